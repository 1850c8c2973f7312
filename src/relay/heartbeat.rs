//! The heart-beat: our own counter, a look at the others', and fencing of those who have gone silent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::epoch::EpochWatch;
use super::{LeaseObserver, Relay};
use crate::broker::{Broker, Known as Told, Newer};
use crate::lifecycle::{NeededFor, Task};
use crate::model::{AdapterName, Destination, Epoch, Incarnation};
use crate::store::{HomeCheck, Instance, SAY_WHICH};
use crate::txn::janitor::Round;

/// Between two beats.
const BEAT: Duration = Duration::from_secs(1);
/// The same until the brokers were compared.
const FIRST_BEATS: Duration = Duration::from_millis(100);
const NAME: &str = "heartbeat";
/// A beat without an answer is given up after a lease; twelve of the usual ones.
const TURN: Duration = Duration::from_secs(60);

/// The task that beats.
#[must_use]
pub fn beating(lease: Duration) -> Task {
    Task::new(NAME, NeededFor::Both).turns_within(TURN.max(lease * 12))
}

/// What the beat learns and everyone here may read. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    instances: Vec<Instance>,
    stopped: Vec<AdapterName>,
    seen: BTreeMap<String, i64>,
    reached: Option<Instant>,
    trouble: Option<(String, Timestamp)>,
    /// Instances that are being fenced right now.
    fencing: BTreeSet<Incarnation>,
    recovery: Round,
    /// The brokers were compared with the home, as far as they could be reached.
    compared: bool,
}

impl Known {
    /// It is in trouble since the first time that it was said so.
    fn set_trouble(&mut self, trouble: Option<String>) {
        let since = self.trouble.as_ref().map_or_else(Timestamp::now, |(_, since)| *since);
        self.trouble = trouble.map(|why| (why, since));
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A consumer has received a message that was published at this time (microseconds since 1970).
    pub fn saw(&self, destination: &Destination, published_at: i64) {
        let mut known = self.lock();
        match known.seen.get_mut(destination.as_str()) {
            Some(latest) => *latest = published_at.max(*latest),
            None => {
                known.seen.insert(destination.as_str().to_owned(), published_at);
            }
        }
    }

    /// The latest such time that any live instance knows.
    #[must_use]
    pub fn latest_seen(&self, destination: &Destination) -> Option<i64> {
        let known = self.lock();
        let others = known.instances.iter().filter_map(|instance| instance.seen.get(destination.as_str()));
        others.chain(known.seen.get(destination.as_str())).max().copied()
    }

    #[must_use]
    pub fn live(&self) -> Vec<Incarnation> {
        self.lock().instances.iter().map(|instance| instance.incarnation).collect()
    }

    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        self.lock().instances.clone()
    }

    /// Whether a live instance consumes the destination.
    #[must_use]
    pub fn served(&self, destination: &Destination) -> bool {
        self.lock().instances.iter().any(|instance| instance.serves.iter().any(|one| one == destination.as_str()))
    }

    /// Why the home database cannot be used, if the last beat failed.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.as_ref().map(|(why, _)| why.clone())
    }

    /// Since when it cannot be used.
    #[must_use]
    pub fn troubled_since(&self) -> Option<Timestamp> {
        self.lock().trouble.as_ref().map(|(_, since)| *since)
    }

    /// What operators want stopped, as last read; `None` before the first beat.
    #[must_use]
    pub fn stopped(&self) -> Option<Vec<AdapterName>> {
        let known = self.lock();
        known.reached.map(|_| known.stopped.clone())
    }

    /// What the last round of recovery left in doubt, and which databases it could not ask.
    #[must_use]
    pub fn recovery(&self) -> Round {
        self.lock().recovery.clone()
    }

    /// Whether this database may be taken for the home itself, and not for an old copy: until then nothing that others have
    /// left is touched.
    #[must_use]
    pub fn compared(&self) -> bool {
        self.lock().compared
    }

    pub(super) fn set_recovery(&self, round: Round) {
        self.lock().recovery = round;
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        self.lock().set_trouble(trouble);
    }
}

/// Beats until the hard stop: what is finished during the soft one is still ours. Returns an error when somebody has fenced us: this process must end at once.
///
/// `epoch` is asked before each beat, and `wishes` called after it with what operators want stopped.
pub async fn heartbeat<E>(
    relay: Relay,
    shared: Shared,
    epoch: impl Fn() -> E,
    wishes: impl Fn(&[AdapterName], E),
) -> Result<(), Fenced> {
    let store = relay.store().clone();
    let mut epochs = EpochWatch::default();
    let mut observer = LeaseObserver::new(store.incarnation, relay.0.settings.lease);
    let beat_pause = BEAT.min(relay.0.settings.lease / 5);
    let soft = relay.0.lifecycle.soft.clone();
    let mut announced = false;
    loop {
        relay.0.lifecycle.watch.turn(NAME);
        if soft.is_cancelled() && !announced {
            announced = announce_stop(&relay).await;
        }
        let asked = Instant::now();
        let seen = shared.lock().seen.clone();
        let (before, begun) = (epoch(), store.gate.moment());
        match tokio::time::timeout(relay.0.settings.lease, store.beat(&seen)).await {
            Ok(Ok(beat)) if !beat.live => return Err(Fenced),
            // Another database by now: a fail-over, a restored copy. Nothing is accepted, swept or processed until an
            // operator has said what it is.
            Ok(Ok(beat)) if matches!(beat.home, HomeCheck::Moved(_)) => {
                store.hold(true);
                lost_sight(&shared, &mut observer, beat.home.advice());
            }
            Ok(Ok(beat)) => {
                tell(&relay, beat.epoch, epochs.see(beat.epoch, asked), asked);
                if let Some(reason) = newer(&relay) {
                    store.hold(true);
                    lost_sight(&shared, &mut observer, reason);
                } else {
                    // A synchronous write, like those that it stands for.
                    store.gate.open(begun);
                    relay.0.clock.set(beat.clock, asked);
                    wishes(&beat.stopped, before);
                    let live: Vec<_> = beat.instances.iter().map(|one| (one.incarnation, one.heartbeat)).collect();
                    {
                        let mut known = shared.lock();
                        known.instances = beat.instances;
                        known.stopped = beat.stopped;
                        known.reached = Some(asked);
                        known.trouble = None;
                        known.compared |= all_compared(&relay) || epochs.waited_enough(asked);
                    }
                    let silent = observer.look(asked, &live);
                    if shared.compared() {
                        store.hold(false);
                        fence_the_silent(&relay, &shared, silent);
                        raise(&relay, &mut epochs).await;
                    }
                }
            }
            Ok(Err(error)) => lost_sight(&shared, &mut observer, error.to_string()),
            Err(_elapsed) => {
                store.gate.shut();
                lost_sight(&shared, &mut observer, "the home database does not answer".to_owned());
            }
        }
        // What the brokers say is waited for at the start.
        let first = !shared.compared() && !epochs.waited_enough(asked);
        let pause = if first { beat_pause.min(FIRST_BEATS) } else { beat_pause };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = soft.cancelled(), if !announced && !soft.is_cancelled() => {}
            () = relay.0.lifecycle.hard.cancelled() => return Ok(()),
        }
    }
}

/// Said as soon as a stop begins: whoever asked for it may lose his patience before it ends.
async fn announce_stop(relay: &Relay) -> bool {
    match tokio::time::timeout(relay.0.settings.lease, relay.store().announce_stop()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the stop is not announced yet");
            false
        }
        Err(_elapsed) => false,
    }
}

fn all_compared(relay: &Relay) -> bool {
    relay.0.brokers.values().all(Broker::has_compared)
}

/// What the brokers are compared with.
fn tell(relay: &Relay, epoch: Epoch, raised_here: bool, asked: Instant) {
    for broker in relay.0.brokers.values() {
        broker.tell(Told { epoch, raised_here, asked });
    }
}

/// A broker has seen more of this home than its database holds: a snapshot of the disks, say, from which everything in
/// PostgreSQL is as it was.
fn newer(relay: &Relay) -> Option<String> {
    let (broker, Newer { held, shown }) = relay.0.brokers.values().find_map(|one| Some((one.name(), one.newer()?)))?;
    Some(format!(
        "{broker} was shown epoch {shown} of this home, and this database holds epoch {held}: it is an old copy, as from a \
         snapshot of its disks or a restore to a point in time. {SAY_WHICH}"
    ))
}

/// The database first: no broker may show what it does not hold.
async fn raise(relay: &Relay, epochs: &mut EpochWatch) {
    let asked = Instant::now();
    let Some(from) = epochs.due(asked) else { return };
    match relay.store().raise_epoch(from).await {
        Ok(Some(epoch)) => {
            epochs.raised(epoch, asked);
            tell(relay, epoch, true, asked);
        }
        // Another instance was faster; the next beat shows it.
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "the epoch is not raised now"),
    }
}

/// Somebody has fenced this incarnation: whatever it held is others' now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another instance has taken over from this one because it gave no sign of life for a whole lease")]
pub struct Fenced;

fn lost_sight(shared: &Shared, observer: &mut LeaseObserver, reason: String) {
    observer.lost_sight();
    let mut known = shared.lock();
    let is_news = known.trouble.is_none();
    known.set_trouble(Some(reason.clone()));
    if is_news {
        tracing::warn!(%reason, "the home database cannot be reached");
    }
}

/// In tasks of their own: a fence waits for decisions on their way, and our own beat must not.
fn fence_the_silent(relay: &Relay, shared: &Shared, silent: Vec<(Incarnation, i64)>) {
    for (incarnation, heartbeat) in silent {
        if !shared.lock().fencing.insert(incarnation) {
            continue;
        }
        let (relay, shared) = (relay.clone(), shared.clone());
        let tasks = relay.tasks().clone();
        tasks.spawn(async move {
            let _fencing = Fencing { shared, incarnation };
            match relay.store().fence(incarnation, heartbeat).await {
                Ok(true) => {
                    tracing::warn!(instance = %incarnation, "fenced: no sign of life for a whole lease");
                    relay.wake();
                }
                Ok(false) => {}
                Err(error) => tracing::debug!(instance = %incarnation, %error, "not fenced yet"),
            }
        });
    }
}

/// An instance that is being fenced, until this is dropped, also by a panic: then it may be fenced again.
struct Fencing {
    shared: Shared,
    incarnation: Incarnation,
}

impl Drop for Fencing {
    fn drop(&mut self) {
        self.shared.lock().fencing.remove(&self.incarnation);
    }
}
