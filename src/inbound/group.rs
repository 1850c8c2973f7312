//! Group commit: what arrives while messages are being accepted waits, and is accepted together (protocol §7).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::store::{AcceptRequest, GROUP_CONNECTIONS, Inserted, Store, StoreError};

/// Most messages that are accepted together.
const GROUP: usize = 256;
/// Most bytes of bodies and headers that are accepted together; one larger message goes alone.
const GROUP_BYTES: usize = 256 * 1024;
/// Messages that may wait for their turn; more are refused.
const WAITING: usize = 1024;
/// So many more must wait for a second group to be written beside the first: two small ones cost more than a large one,
/// two large ones share PostgreSQL's flush.
const SECOND: usize = 32;
/// A group that takes longer holds up nobody else.
const HOLD: Duration = Duration::from_millis(20);
/// Longest wait for one's turn.
const TURN: Duration = Duration::from_secs(5);

/// Accepts messages together. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

struct Inner {
    store: Store,
    tasks: TaskTracker,
    line: Mutex<Line>,
}

/// Who waits, and how many groups are under way.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Member>,
    flushing: usize,
    /// Of these, groups that have taken longer than [`HOLD`].
    stuck: usize,
}

impl Line {
    /// Whether those who wait make a group beside the groups that are under way.
    fn next_may_go(&self) -> bool {
        match self.waiting.len() {
            0 => false,
            waiting => self.flushing <= self.stuck || waiting >= SECOND,
        }
    }
}

struct Member {
    request: Arc<AcceptRequest>,
    tell: oneshot::Sender<Result<Inserted, StoreError>>,
}

impl Groups {
    /// `tasks`: a stop waits for them, so that whatever waits is decided first.
    #[must_use]
    pub fn new(store: Store, tasks: TaskTracker) -> Self {
        Self(Arc::new(Inner { store, tasks, line: Mutex::default() }))
    }

    /// Accepts a message that has a log entry, together with whatever else arrives.
    ///
    /// # Errors
    /// `Refused`: its whole group is undone, and nobody knows whose fault that is: try it alone. `Unreachable`: nothing
    /// was sent. Else it may have been accepted.
    pub async fn accept(&self, request: Arc<AcceptRequest>) -> Result<Inserted, StoreError> {
        let (tell, mut told) = oneshot::channel();
        self.enter(Member { request: request.clone(), tell })?;
        let answer = match tokio::time::timeout(TURN, &mut told).await {
            Ok(answer) => answer,
            Err(_elapsed) if self.withdraw(&request) => {
                return Err(StoreError::Unreachable(format!("it was busy with other messages for {TURN:?}")));
            }
            // Its group is under way.
            Err(_elapsed) => told.await,
        };
        answer.unwrap_or_else(|_gone| Err(StoreError::Unknown("the group's task ended early".to_owned())))
    }

    fn enter(&self, member: Member) -> Result<(), StoreError> {
        let mut line = self.line();
        if line.waiting.len() >= WAITING {
            return Err(StoreError::Unreachable(format!("{WAITING} messages wait for it already")));
        }
        line.waiting.push_back(member);
        self.flush_more(&mut line);
        Ok(())
    }

    fn flush_more(&self, line: &mut Line) {
        if line.flushing < GROUP_CONNECTIONS && line.next_may_go() {
            line.flushing += 1;
            self.0.tasks.spawn(self.clone().flush_all());
        }
    }

    /// Whether it still waited. It does not any more.
    fn withdraw(&self, request: &Arc<AcceptRequest>) -> bool {
        let mut line = self.line();
        let place = line.waiting.iter().position(|member| Arc::ptr_eq(&member.request, request));
        place.is_some_and(|place| line.waiting.remove(place).is_some())
    }

    /// One group after the other, until nobody waits.
    async fn flush_all(self) {
        while let Some(group) = self.next_group() {
            // A task of its own: should it panic, its members learn nothing, and the others still get their turn.
            let mut flushed = self.0.tasks.spawn(Box::pin(flush(self.0.store.clone(), group)));
            let ended = match tokio::time::timeout(HOLD, &mut flushed).await {
                Ok(ended) => ended,
                Err(_elapsed) => {
                    self.stuck(1);
                    let ended = flushed.await;
                    self.stuck(-1);
                    ended
                }
            };
            if let Err(error) = ended {
                tracing::error!(%error, "a group's task ended early");
            }
        }
    }

    fn stuck(&self, more: isize) {
        let mut line = self.line();
        line.stuck = line.stuck.saturating_add_signed(more);
        self.flush_more(&mut line);
    }

    /// `None`: nobody waits whom no other group will take, and whoever asked is not counted any more.
    fn next_group(&self) -> Option<Vec<Member>> {
        let mut line = self.line();
        line.flushing -= 1;
        if !line.next_may_go() {
            return None;
        }
        line.flushing += 1;
        let many = cut(line.waiting.iter().map(|member| size(&member.request)));
        Some(line.waiting.drain(..many).collect())
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn flush(store: Store, group: Vec<Member>) {
    // No histogram: it would keep every value until somebody asks for the figures.
    metrics::counter!("posthaste_accept_groups_total").increment(1);
    metrics::counter!("posthaste_accept_group_messages_total").increment(u64::try_from(group.len()).unwrap_or(0));
    let requests: Vec<_> = group.iter().map(|member| member.request.clone()).collect();
    let answers = match store.accept_group(&requests).await {
        Ok(inserted) => inserted.into_iter().map(Ok).collect(),
        Err(error) => {
            metrics::counter!("posthaste_accept_groups_failed_total").increment(1);
            tracing::debug!(%error, messages = group.len(), "a group was not accepted; each message goes on alone");
            vec![Err(error); group.len()]
        }
    };
    for (member, answer) in group.into_iter().zip(answers) {
        // Whoever asked is a task that no client can cancel: gone only at a hard stop.
        let _told = member.tell.send(answer).is_ok();
    }
}

/// What it adds to the statement, nearly.
fn size(request: &AcceptRequest) -> usize {
    let headers = request.envelope.headers.iter().map(|(name, value)| name.len() + value.len());
    request.envelope.body.len() + headers.sum::<usize>()
}

/// How many of those that wait, in their order, make the next group: at least one.
fn cut(sizes: impl Iterator<Item = usize>) -> usize {
    let sums = sizes.scan(0_usize, |sum, size| {
        *sum = sum.saturating_add(size);
        Some(*sum)
    });
    sums.take(GROUP).take_while(|sum| *sum <= GROUP_BYTES).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_all_that_wait() {
        for many in [1, 2, 17, GROUP] {
            assert_eq!(cut(vec![16; many].into_iter()), many);
        }
    }

    #[test]
    fn a_group_has_at_most_so_many_messages() {
        assert_eq!(cut(vec![0; GROUP + 1].into_iter()), GROUP);
    }

    #[test]
    fn a_group_has_at_most_so_many_bytes() {
        assert_eq!(cut([GROUP_BYTES - 1, 1, 0].into_iter()), 3);
        assert_eq!(cut([GROUP_BYTES - 1, 2, 0].into_iter()), 1);
        assert_eq!(cut([1, GROUP_BYTES, 1].into_iter()), 1);
    }

    #[test]
    fn a_message_larger_than_a_group_goes_alone() {
        assert_eq!(cut([GROUP_BYTES + 1, 1].into_iter()), 1);
        assert_eq!(cut([usize::MAX, usize::MAX].into_iter()), 1);
        assert_eq!(cut([1, GROUP_BYTES + 1].into_iter()), 1);
    }
}
