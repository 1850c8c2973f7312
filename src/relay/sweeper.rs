//! The sweeper: looks at what is due, walks what is open, and does what [`decide`] says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use uuid::Uuid;

use super::{Facts, Next, OpenCounts, Relay, Shared, decide};
use crate::model::{Destination, JournalState, Mode};
use crate::store::{FailedAttempt, OpenRow, PUBLISH_AFTER, StoreError};

/// Between two looks at what is due.
const SWEEP: Duration = Duration::from_secs(1);
/// Between two walks over what is open; a walk never takes more than a twentieth of the time.
const WALK: Duration = Duration::from_secs(5);
/// Rows per statement.
const PAGE: i64 = 500;
/// Rows per walk; the next one goes on where it stopped.
const WALK_PAGES: usize = 40;
/// Ids are minted by the database's clock, carried forward; commits come later than their ids by less than this.
const LATE_COMMITS: Duration = Duration::from_secs(120);
/// Between two looks at a row that nobody consumes.
const NO_CONSUMER: Duration = Duration::from_secs(10);

/// Sweeps until the stop.
pub async fn sweep(relay: Relay, shared: Shared) {
    let soft = relay.0.lifecycle.soft.clone();
    let mut sweeper = Sweeper::new(relay, shared);
    while !soft.is_cancelled() {
        if let Err(error) = sweeper.round().await {
            tracing::debug!(%error, "sweep interrupted");
        }
        let pause = sweeper.pause().await;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = sweeper.relay.0.wake.notified() => {}
            () = soft.cancelled() => {}
        }
    }
}

struct Sweeper {
    relay: Relay,
    shared: Shared,
    next_walk: Instant,
    walk_from: Option<Uuid>,
    known_live: BTreeSet<Uuid>,
    counts: BTreeMap<Destination, OpenCounts>,
    /// Destinations with published rows old enough to be asked about: their queues are looked at before the next read.
    suspected: BTreeSet<Destination>,
    unserved: BTreeSet<Destination>,
}

/// What a round has decided, by kind.
#[derive(Default)]
struct Actions {
    publish: Vec<OpenRow>,
    dispatch: Vec<OpenRow>,
    give_up: Vec<OpenRow>,
    unpublishable: Vec<OpenRow>,
    later: BTreeMap<Duration, Vec<Uuid>>,
}

impl Sweeper {
    fn new(relay: Relay, shared: Shared) -> Self {
        Self {
            relay,
            shared,
            next_walk: Instant::now(),
            walk_from: None,
            known_live: BTreeSet::new(),
            counts: BTreeMap::new(),
            suspected: BTreeSet::new(),
            unserved: BTreeSet::new(),
        }
    }

    async fn pause(&self) -> Duration {
        match self.relay.store().next_due().await {
            Ok(Some(next)) => next.clamp(Duration::from_millis(10), SWEEP),
            Ok(None) | Err(_) => SWEEP,
        }
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        // Asked before the rows are read: a message published in between cannot look lost.
        let empty = self.empty_queues().await;
        let rows = self.relay.store().due_rows(PAGE).await?;
        let actions = self.decide_all(&rows, &empty);
        self.act(actions).await?;
        let live: BTreeSet<Uuid> = self.shared.live().into_iter().map(|incarnation| incarnation.0).collect();
        let somebody_died = self.known_live.iter().any(|one| !live.contains(one));
        self.known_live = live;
        if somebody_died || Instant::now() >= self.next_walk {
            let began = Instant::now();
            self.walk(&empty).await?;
            self.next_walk = Instant::now() + WALK.max(began.elapsed() * 20);
        }
        Ok(())
    }

    async fn empty_queues(&self) -> BTreeSet<Destination> {
        let mut empty = BTreeSet::new();
        for destination in &self.suspected {
            let Some(settings) = self.relay.destination(destination) else { continue };
            let Some(broker) = self.relay.broker(&settings.connection) else { continue };
            if broker.queue_state(&settings.queue).await.is_ok_and(|state| state.ready == 0) {
                empty.insert(destination.clone());
            }
        }
        empty
    }

    fn decide_all(&mut self, rows: &[OpenRow], empty: &BTreeSet<Destination>) -> Actions {
        let live = self.shared.live();
        let mut actions = Actions::default();
        for row in rows {
            let next = self.next(row, &live, empty);
            self.note_suspicion(row, next);
            match next {
                Next::Publish => actions.publish.push(row.clone()),
                Next::Dispatch => actions.dispatch.push(row.clone()),
                Next::GiveUp => actions.give_up.push(row.clone()),
                Next::Unpublishable => actions.unpublishable.push(row.clone()),
                Next::NoConsumer => {
                    if self.unserved.insert(row.destination.clone()) {
                        tracing::warn!(destination = %row.destination, "no live instance consumes it; its messages wait");
                    }
                    actions.later.entry(NO_CONSUMER).or_default().push(row.tx_id.0);
                }
                Next::Later(pause) if row.has_due_row => actions.later.entry(pause).or_default().push(row.tx_id.0),
                Next::Later(_) => {}
            }
        }
        actions
    }

    fn next(&self, row: &OpenRow, live: &[crate::model::Incarnation], empty: &BTreeSet<Destination>) -> Next {
        let relay = &self.relay;
        let facts = Facts {
            live,
            running_here: relay.runs(row.tx_id),
            me: relay.store().incarnation,
            watch: relay.settings().watch,
            known: relay.destination(&row.destination).is_some(),
            served_here: relay.route(&row.destination).is_some(),
            served: self.shared.served(&row.destination),
            publishable: relay.ready(&row.destination).is_ok(),
            queue_empty: empty.contains(&row.destination),
            seen: self.shared.latest_seen(&row.destination),
        };
        decide(row, &facts)
    }

    fn note_suspicion(&mut self, row: &OpenRow, next: Next) {
        let old = row.published.is_some_and(|age| age >= super::redo_after(row.publishes));
        if row.mode == Mode::Own && row.state == JournalState::Published && old {
            self.suspected.insert(row.destination.clone());
        }
        if next != Next::NoConsumer {
            self.unserved.remove(&row.destination);
        }
    }

    async fn act(&self, actions: Actions) -> Result<(), StoreError> {
        let store = self.relay.store();
        for (pause, rows) in &actions.later {
            store.postpone(rows, *pause).await?;
        }
        for row in &actions.give_up {
            let reason = format!("the process ended during attempt {}", row.attempts);
            self.to_error_store(row, &reason, true).await?;
        }
        for row in &actions.unpublishable {
            let reason = format!("cannot be published: {} tries failed", row.publishes);
            self.to_error_store(row, &reason, false).await?;
        }
        if !actions.dispatch.is_empty() {
            for message in store.claim(&actions.dispatch, self.relay.settings().watch).await? {
                let Some(route) = self.relay.route(&message.destination) else { continue };
                if let Err(error) = route.try_send(message) {
                    tracing::debug!(%error, "no room to process in process; it stays due");
                }
            }
        }
        if !actions.publish.is_empty() {
            let claimed = store.claim(&actions.publish, PUBLISH_AFTER).await?;
            join_all(claimed.into_iter().map(|message| self.relay.publish(message))).await;
        }
        Ok(())
    }

    async fn to_error_store(&self, row: &OpenRow, reason: &str, crashed: bool) -> Result<(), StoreError> {
        let (slot, adapter) = match self.relay.destination(&row.destination) {
            Some(settings) => (settings.error_slot.clone(), settings.adapter.as_str()),
            None => (crate::model::SlotId::new(row.destination.as_str()), ""),
        };
        let failed = FailedAttempt {
            tx_id: row.tx_id,
            destination: &row.destination,
            seen: row.attempts,
            n: row.attempts,
            adapter,
            step: None,
            error: reason,
            took: Duration::ZERO,
        };
        let host = &self.relay.settings().host;
        if let Some(key) = self.relay.store().give_up(&failed, &slot, host, crashed).await? {
            metrics::counter!("posthaste_failed_total", "adapter" => adapter.to_owned()).increment(1);
            tracing::warn!(tx_id = %row.tx_id, slot = %slot, messagekey = %key, reason, "moved to the error store");
        }
        Ok(())
    }

    /// Counts what is open and does what must be done with rows that nobody watches.
    async fn walk(&mut self, empty: &BTreeSet<Destination>) -> Result<(), StoreError> {
        let store = self.relay.store().clone();
        let (open_from, clock_ms) = store.open_from().await?;
        let mut after = match self.walk_from.take() {
            Some(from) => from,
            None => {
                self.counts.clear();
                open_from
            }
        };
        let mut oldest_unwatched = None;
        for page in 0..WALK_PAGES {
            let rows = store.open_rows(after, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = last.tx_id.0;
            for row in &rows {
                self.count(row, clock_ms);
                if !row.has_due_row {
                    oldest_unwatched.get_or_insert(row.tx_id.0);
                }
            }
            let complete = rows.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            let unwatched: Vec<OpenRow> = rows.into_iter().filter(|row| !row.has_due_row).collect();
            let actions = self.decide_all(&unwatched, empty);
            self.act(actions).await?;
            if complete {
                break;
            }
            if page + 1 == WALK_PAGES {
                self.walk_from = Some(after);
                return Ok(());
            }
        }
        self.share_counts();
        let settled = id_at(clock_ms.saturating_sub(u64::try_from(LATE_COMMITS.as_millis()).unwrap_or(0)));
        let begin = oldest_unwatched.map_or(settled, |oldest: Uuid| before(oldest).min(settled));
        // The mark moves seldom: a walk over settled rows costs less than a write each time.
        if millis_of(begin) > millis_of(open_from).saturating_add(30_000) {
            store.set_open_from(begin).await?;
        }
        Ok(())
    }

    fn count(&mut self, row: &OpenRow, clock_ms: u64) {
        let counts = self.counts.entry(row.destination.clone()).or_default();
        counts.open += 1;
        counts.unpublished += u64::from(row.state == JournalState::Ready);
        let age = clock_ms.saturating_sub(millis_of(row.tx_id.0)) / 1000;
        counts.oldest_seconds = counts.oldest_seconds.max(age);
    }

    fn share_counts(&mut self) {
        let mut total = OpenCounts::default();
        for one in &self.relay.settings().destinations {
            let counts = self.counts.get(&one.destination).copied().unwrap_or_default();
            self.relay.0.board.set_open(&one.destination, counts);
            if counts.open == 0 {
                self.suspected.remove(&one.destination);
            }
            total.open += counts.open;
            total.oldest_seconds = total.oldest_seconds.max(counts.oldest_seconds);
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and counts stay far below 2^52")]
        {
            metrics::gauge!("posthaste_journal_open").set(total.open as f64);
            metrics::gauge!("posthaste_journal_oldest_seconds").set(total.oldest_seconds as f64);
        }
    }
}

/// The smallest UUIDv7 of a millisecond.
fn id_at(millis: u64) -> Uuid {
    Uuid::from_u128(u128::from(millis) << 80)
}

fn before(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_sub(1))
}

fn millis_of(id: Uuid) -> u64 {
    u64::try_from(id.as_u128() >> 80).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_an_id_is_read_back() {
        let id = Uuid::now_v7();
        assert!(id_at(millis_of(id)) <= id && id < id_at(millis_of(id) + 1));
        assert!(before(id) < id);
    }
}
