//! Group commit: what arrives while messages are being accepted waits, and is accepted and published together (protocol §7).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Accept;
use super::accept::Room;
use super::line::{Line, Member};
use crate::model::{Destination, TxId};
use crate::relay::{Published, Relay};
use crate::store::{AcceptRequest, Claimed, Inserted, StoreError};

/// Messages that may wait for their turn; more are refused.
const WAITING: usize = 1024;
/// A group that takes longer to be accepted and published holds up nobody else.
pub(super) const HOLD: Duration = Duration::from_millis(50);
/// Longest wait for one's turn.
const TURN: Duration = Duration::from_secs(5);

/// Accepts messages together. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

struct Inner {
    relay: Relay,
    line: Mutex<Line>,
}

/// What became of a message that was accepted together with others.
#[derive(Debug)]
pub enum Together {
    /// And published, or the journal's row brings it there.
    Accepted,
    /// `Refused`: its whole group is undone, and nobody knows whose fault that is: try it alone. `Unreachable`: nothing
    /// was sent. Any other error: it may have been accepted.
    Not { request: Box<AcceptRequest>, tried: Result<Inserted, StoreError> },
    /// Nothing was sent: too many are before it, or it has waited too long.
    Busy { reason: String },
    /// The group's task has panicked: it may have been accepted.
    Lost,
}

impl Groups {
    #[must_use]
    pub fn new(relay: Relay) -> Self {
        Self(Arc::new(Inner { relay, line: Mutex::default() }))
    }

    /// Accepts a message that has a log entry, together with whatever else arrives, and publishes it. To be run to its end:
    /// whoever drops the future half way still stands in the line, and nobody takes him out of it.
    pub async fn accept(&self, request: Box<AcceptRequest>, accept: Accept, room: Room) -> Together {
        let (tell, mut told) = oneshot::channel();
        let tx_id = request.envelope.tx_id;
        if self.enter(Member { request, accept, room, tell }).is_err() {
            return Together::Busy { reason: format!("{WAITING} messages wait for the database already") };
        }
        let answer = match tokio::time::timeout(TURN, &mut told).await {
            Ok(answer) => answer,
            Err(_elapsed) => match self.withdraw(tx_id) {
                Some(_member) => {
                    return Together::Busy { reason: format!("the database was busy with others for {TURN:?}") };
                }
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
        line.push(member);
        drop(line);
        self.go_on();
        Ok(())
    }

    fn withdraw(&self, tx_id: TxId) -> Option<Member> {
        self.line().withdraw(tx_id)
    }

    /// Sends as many groups on their way as may go now.
    fn go_on(&self) {
        // While the line is locked nothing is spawned: a runtime at its end drops a task at once, and with it what counts it.
        while let Some((number, group)) = self.next_group() {
            let counted = |leave| Counted { groups: self.clone(), number, leave };
            let (deciding, young) = (counted(|line, _| line.decided()), counted(Line::grown));
            let Ok(runtime) = Handle::try_current() else { return };
            let (tasks, relay) = (self.0.relay.tasks(), self.0.relay.clone());
            let flushed = tasks.spawn_on(flush(relay, group, deciding).boxed(), &runtime);
            tasks.spawn_on(attend(flushed, young), &runtime);
        }
    }

    fn next_group(&self) -> Option<(u64, Vec<Member>)> {
        self.line().next_group()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A group that stands in one of the line's counts: others may follow when it is dropped, also by a panic.
struct Counted {
    groups: Groups,
    number: u64,
    leave: fn(&mut Line, u64),
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.leave)(&mut self.groups.line(), self.number);
        self.groups.go_on();
    }
}

/// Lets others follow a group that is published, or that takes long.
async fn attend(mut flushed: JoinHandle<()>, young: Counted) {
    let in_time = tokio::time::timeout(HOLD, &mut flushed).await;
    drop(young);
    let ended = match in_time {
        Ok(ended) => ended,
        Err(_elapsed) => flushed.await,
    };
    if let Err(error) = ended {
        tracing::error!(%error, "a group's task ended early");
    }
}

/// Accepts a group, publishes it and tells each of its members. `deciding`: dropped when its statement has ended.
async fn flush(relay: Relay, group: Vec<Member>, deciding: Counted) {
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
    let (groups, number) = (deciding.groups.clone(), deciding.number);
    drop(deciding);
    let answered = |members| {
        if members > 0 {
            groups.line().answered(number, members);
        }
    };
    // Who waits for another queue is not waited for.
    let (mut parts, mut known): (BTreeMap<Vec<Destination>, Part>, Vec<_>) = (BTreeMap::new(), Vec::new());
    for (member, tried) in group.into_iter().zip(answers) {
        if matches!(tried, Ok(Inserted::Yes)) {
            let sent: Vec<_> = member.request.outgoing.iter().map(|row| row.destination.clone()).collect();
            let each = sent.len();
            let part = parts.entry(sent).or_insert_with(|| Part { each, ..Part::default() });
            known.extend(part.accepted(member).map(|tell| (tell, Together::Accepted)));
        } else {
            known.push((member.tell, Together::Not { request: member.request, tried }));
        }
    }
    tell_all(known, &answered);
    join_all(parts.into_values().map(|part| part.publish(&relay, &answered))).await;
}

/// Those of a group that are accepted and sent to the same queues.
#[derive(Default)]
struct Part {
    /// How many messages each of them sends.
    each: usize,
    messages: Vec<Claimed>,
    members: Vec<Open>,
}

/// A member whose messages are published.
struct Open {
    /// Of so many of them nothing is known yet.
    messages: usize,
    /// Kept until something is known of all of them.
    room: Option<Room>,
    /// `None`: had his answer before.
    tell: Option<oneshot::Sender<Together>>,
}

impl Part {
    /// Whom to tell now, if he does not wait for the broker.
    fn accepted(&mut self, Member { request, accept, room, tell }: Member) -> Option<oneshot::Sender<Together>> {
        self.messages.extend(request.into_messages());
        let (tell, now) = match accept {
            Accept::Confirmed => (Some(tell), None),
            Accept::Journalled => (None, Some(tell)),
        };
        self.members.push(Open { messages: self.each, room: Some(room), tell });
        now
    }

    /// Tells each of them as soon as it is known what became of his messages. `answered`: so many are told now.
    async fn publish(self, relay: &Relay, answered: &impl Fn(usize)) {
        let Self { each, messages, mut members } = self;
        let tell = |some: &[(usize, Published)]| {
            let mut known = Vec::with_capacity(some.len());
            for place in some.iter().filter_map(|(at, _)| at.checked_div(each)) {
                let Some(member) = members.get_mut(place) else { continue };
                member.messages -= 1;
                if member.messages == 0 {
                    member.room = None;
                    known.extend(member.tell.take().map(|tell| (tell, Together::Accepted)));
                }
            }
            tell_all(known, answered);
        };
        relay.publish_all(messages, tell).await;
        let rest = members.into_iter().filter_map(|member| member.tell);
        tell_all(rest.map(|tell| (tell, Together::Accepted)).collect(), answered);
    }
}

/// Counts them first, for then they come again.
fn tell_all(known: Vec<(oneshot::Sender<Together>, Together)>, answered: &impl Fn(usize)) {
    answered(known.len());
    for (tell, answer) in known {
        // A stop may have ended whoever asked.
        let _told = tell.send(answer).is_ok();
    }
}
