//! Group commit: what arrives while messages are being accepted waits, and is accepted and published together (protocol §7).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Accept;
use super::accept::Room;
use crate::model::TxId;
use crate::relay::Relay;
use crate::store::{AcceptRequest, GROUP_CONNECTIONS, Inserted, StoreError};

/// Most messages that are accepted together.
const GROUP: usize = 256;
/// Most bytes of bodies and headers that are accepted together; one larger message goes alone.
const GROUP_BYTES: usize = 256 * 1024;
/// Messages that may wait for their turn; more are refused.
const WAITING: usize = 1024;
/// So many more must wait for a second group to be written beside the first: two small ones cost more than a large one,
/// two large ones share PostgreSQL's flush.
const SECOND: usize = 32;
/// A group that takes longer to be accepted and published holds up nobody else.
const HOLD: Duration = Duration::from_millis(20);
/// Longest wait for one's turn.
const TURN: Duration = Duration::from_secs(5);

/// Accepts messages together. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

struct Inner {
    relay: Relay,
    line: Mutex<Line>,
}

/// Who waits, and how many groups are under way.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Member>,
    /// Of all that wait, as [`size`] counts.
    bytes: usize,
    /// Groups whose statement has not ended.
    deciding: usize,
    /// Groups that were taken less than [`HOLD`] ago and are not published yet.
    young: usize,
}

impl Line {
    /// Whether those who wait make a group beside the groups that are under way.
    fn next_may_go(&self) -> bool {
        let waiting = self.waiting.len();
        if waiting == 0 || self.deciding >= GROUP_CONNECTIONS {
            return false;
        }
        // Whoever comes later would not make it any larger.
        let full = waiting >= GROUP || self.bytes >= GROUP_BYTES;
        full || self.young == 0 || (self.young == 1 && waiting >= SECOND)
    }

    fn next_group(&mut self) -> Option<Vec<Member>> {
        if !self.next_may_go() {
            return None;
        }
        let many = cut(self.waiting.iter().map(|member| size(&member.request)));
        let group: Vec<Member> = self.waiting.drain(..many).collect();
        self.bytes -= group.iter().map(|member| size(&member.request)).sum::<usize>();
        self.deciding += 1;
        self.young += 1;
        Some(group)
    }
}

struct Member {
    request: Box<AcceptRequest>,
    /// Whether its answer waits for the broker.
    accept: Accept,
    /// Kept until it is published.
    room: Room,
    tell: oneshot::Sender<Together>,
}

/// What became of a message that was accepted together with others.
#[derive(Debug)]
pub enum Together {
    /// And published, or the journal's row brings it there.
    Accepted,
    /// `Refused`: its whole group is undone, and nobody knows whose fault that is: try it alone. `Unreachable`: nothing
    /// was sent. Any other error: it may have been accepted.
    Not { request: Box<AcceptRequest>, tried: Result<Inserted, StoreError> },
    /// The group's task has panicked: it may have been accepted.
    Lost,
}

impl Groups {
    #[must_use]
    pub fn new(relay: Relay) -> Self {
        Self(Arc::new(Inner { relay, line: Mutex::default() }))
    }

    /// Accepts a message that has a log entry, together with whatever else arrives, and publishes it. Dropping the future
    /// cancels nothing.
    pub async fn accept(&self, request: Box<AcceptRequest>, accept: Accept, room: Room) -> Together {
        let (tell, mut told) = oneshot::channel();
        let tx_id = request.envelope.tx_id;
        let not_sent = |member: Member, reason| {
            let tried = Err(StoreError::Unreachable(reason));
            Together::Not { request: member.request, tried }
        };
        if let Err(member) = self.enter(Member { request, accept, room, tell }) {
            return not_sent(member, format!("{WAITING} messages wait for it already"));
        }
        let answer = match tokio::time::timeout(TURN, &mut told).await {
            Ok(answer) => answer,
            Err(_elapsed) => match self.withdraw(tx_id) {
                Some(member) => return not_sent(member, format!("it was busy with other messages for {TURN:?}")),
                // Its group is under way.
                None => told.await,
            },
        };
        answer.unwrap_or(Together::Lost)
    }

    fn enter(&self, member: Member) -> Result<(), Member> {
        let mut line = self.line();
        if line.waiting.len() >= WAITING {
            return Err(member);
        }
        line.bytes += size(&member.request);
        line.waiting.push_back(member);
        self.go_on(line);
        Ok(())
    }

    /// `None`: it does not wait any more.
    fn withdraw(&self, tx_id: TxId) -> Option<Member> {
        let mut line = self.line();
        let place = line.waiting.iter().position(|member| member.request.envelope.tx_id == tx_id)?;
        let member = line.waiting.remove(place)?;
        line.bytes -= size(&member.request);
        Some(member)
    }

    /// Sends as many groups on their way as may go now.
    fn go_on(&self, mut line: MutexGuard<'_, Line>) {
        while let Some(group) = line.next_group() {
            self.0.relay.tasks().spawn(self.clone().attend(group));
        }
    }

    /// Takes a group on its way, and lets others follow as soon as they may.
    async fn attend(self, group: Vec<Member>) {
        let (decided, mut is_decided) = oneshot::channel();
        // A task of its own: should it panic, its members learn nothing, and the others still get their turn.
        let mut published = self.0.relay.tasks().spawn(Box::pin(flush(self.0.relay.clone(), group, decided)));
        let old = tokio::time::sleep(HOLD);
        let mut old = std::pin::pin!(old);
        let (mut deciding, mut young) = (true, true);
        while deciding || young {
            tokio::select! {
                // Also when it has panicked.
                _ = &mut is_decided, if deciding => {
                    deciding = false;
                    self.go_on_after(|line| line.deciding -= 1);
                }
                ended = &mut published, if young => {
                    young = false;
                    if let Err(error) = ended {
                        tracing::error!(%error, "a group's task ended early");
                    }
                    self.go_on_after(|line| line.young -= 1);
                }
                () = &mut old, if young => {
                    young = false;
                    self.go_on_after(|line| line.young -= 1);
                }
            }
        }
    }

    fn go_on_after(&self, change: impl FnOnce(&mut Line)) {
        let mut line = self.line();
        change(&mut line);
        self.go_on(line);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts and publishes a group, and tells each of its members. `decided`: its statement has ended.
async fn flush(relay: Relay, group: Vec<Member>, decided: oneshot::Sender<()>) {
    // No histogram: it would keep every value until somebody asks for the figures.
    metrics::counter!("posthaste_accept_groups_total").increment(1);
    metrics::counter!("posthaste_accept_group_messages_total").increment(u64::try_from(group.len()).unwrap_or(0));
    let requests: Vec<&AcceptRequest> = group.iter().map(|member| &*member.request).collect();
    let answers = match relay.store().accept_group(&requests).await {
        Ok(inserted) => inserted.into_iter().map(Ok).collect(),
        Err(error) => {
            metrics::counter!("posthaste_accept_groups_failed_total").increment(1);
            tracing::debug!(%error, messages = group.len(), "a group was not accepted; each message goes on alone");
            vec![Err(error); group.len()]
        }
    };
    // Whoever waits for it may have waited long enough; and whoever asked below may be gone.
    let _waiting = decided.send(()).is_ok();
    let (mut messages, mut rooms, mut confirmed) = (Vec::new(), Vec::new(), Vec::new());
    for (Member { request, accept, room, tell }, tried) in group.into_iter().zip(answers) {
        if !matches!(tried, Ok(Inserted::Yes)) {
            let _told = tell.send(Together::Not { request, tried }).is_ok();
            continue;
        }
        messages.extend(request.into_messages());
        rooms.push(room);
        match accept {
            Accept::Confirmed => confirmed.push(tell),
            Accept::Journalled => {
                let _told = tell.send(Together::Accepted).is_ok();
            }
        }
    }
    relay.publish_all(messages).await;
    drop(rooms);
    for tell in confirmed {
        let _told = tell.send(Together::Accepted).is_ok();
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Envelope, MessageId};

    fn member(bytes: usize) -> Member {
        let (tx_id, id) = (TxId::mint(), MessageId::mint());
        let envelope = Envelope {
            tx_id,
            root_id: tx_id.into(),
            message_id: id.clone(),
            correlation_id: id,
            content_type: None,
            headers: BTreeMap::new(),
            body: vec![0; bytes].into(),
        };
        let request = AcceptRequest { envelope, sha256: [0; 32], host: "host".into(), log: None, outgoing: Vec::new() };
        Member {
            request: Box::new(request),
            accept: Accept::Confirmed,
            room: Arc::default(),
            tell: oneshot::channel().0,
        }
    }

    fn line(waiting: usize, bytes: usize, deciding: usize, young: usize) -> Line {
        let members = (0..waiting).map(|_| member(bytes)).collect();
        Line { waiting: members, bytes: waiting * bytes, deciding, young }
    }

    /// How many go, and how many stay.
    fn next(mut line: Line) -> (usize, usize) {
        let gone = line.next_group().map_or(0, |group| group.len());
        (gone, line.waiting.len())
    }

    #[test]
    fn whoever_comes_alone_goes_at_once() {
        assert_eq!(next(line(1, 16, 0, 0)), (1, 0));
        assert_eq!(next(line(0, 16, 0, 0)), (0, 0));
    }

    #[test]
    fn until_a_group_is_published_few_wait_and_many_make_one_second_group() {
        for deciding in [0, 1] {
            assert_eq!(next(line(SECOND - 1, 16, deciding, 1)), (0, SECOND - 1));
            assert_eq!(next(line(SECOND, 16, deciding, 1)), (SECOND, 0));
            assert_eq!(next(line(SECOND, 16, deciding, 2)), (0, SECOND));
        }
    }

    #[test]
    fn a_group_that_has_taken_long_holds_up_nobody() {
        assert_eq!(next(line(1, 16, 1, 0)), (1, 0));
        assert_eq!(next(line(1, 16, 0, 0)), (1, 0));
    }

    #[test]
    fn a_full_group_waits_for_no_confirm_and_no_group_goes_without_a_session() {
        let few = GROUP_BYTES / 65_536;
        assert_eq!(next(line(few, 65_536, 0, 2)), (few, 0));
        assert_eq!(next(line(GROUP + 1, 16, 1, 2)), (GROUP, 1));
        assert_eq!(next(line(few, 65_536, GROUP_CONNECTIONS, 2)), (0, few));
        assert_eq!(next(line(GROUP, 16, GROUP_CONNECTIONS, 0)), (0, GROUP));
    }

    #[test]
    fn the_bytes_that_wait_are_those_of_the_members_that_wait() {
        let mut line = line(GROUP_BYTES / 65_536 + 3, 65_536, 0, 0);
        assert!(line.next_group().is_some());
        assert_eq!((line.bytes, line.deciding, line.young), (3 * 65_536, 1, 1));
    }

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
