//! Doing what was decided about open rows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Relay;
use super::direct::Places;
use super::page::pages;
use crate::model::{Destination, TxId};
use crate::store::{Claimed, FailedAttempt, GivenUpBy, OpenRow, PUBLISH_AFTER, StoreError};
use crate::txn::faults::{Point, reach};

/// Between two looks at a row that could not be claimed: somebody holds it, or there is no room to process it.
const HELD: Duration = Duration::from_secs(1);
/// Between two looks at a row that has a turn as soon as there is room for its body: meanwhile nobody else gets any.
const TURN: Duration = Duration::from_millis(100);
/// Between two looks at a row that the error store refused.
const REFUSED: Duration = Duration::from_secs(60);

/// How long a round waits for room: what has it may be at work for minutes, and the rest of the round is not about that.
const ROOM_BOUND: Duration = Duration::from_secs(5);
/// Bytes of bodies that one round publishes, or a little more: what is due meanwhile shall not wait for all of a backlog.
const ROUND: usize = 32 << 20;

/// What a round has decided, by kind.
#[derive(Default)]
pub(super) struct Actions {
    pub publish: Vec<OpenRow>,
    pub dispatch: Vec<OpenRow>,
    pub give_up: Vec<OpenRow>,
    pub later: BTreeMap<Duration, Vec<Uuid>>,
}

impl Actions {
    /// Does it all; one row's trouble is not that of the others.
    pub async fn take(self, relay: &Relay) -> Result<(), StoreError> {
        let store = relay.store();
        for (pause, rows) in &self.later {
            store.postpone(rows, *pause).await?;
        }
        for row in &self.give_up {
            let reason = format!("the process ended during attempt {}", row.attempts);
            to_error_store(relay, row.tx_id, &row.destination, row.attempts, &reason).await?;
        }
        dispatch(relay, &self.dispatch).await?;
        publish(relay, self.publish).await
    }
}

/// Page by page. What is beyond a round's bytes, or finds no room, comes with the next round, behind what is due before it.
async fn publish(relay: &Relay, rows: Vec<OpenRow>) -> Result<(), StoreError> {
    let sizes = sizes(relay, &rows).await?;
    let (mut published, mut left) = (0_usize, Vec::new());
    for page in pages(rows, &sizes) {
        let goes = published < ROUND && !relay.stopping().is_cancelled();
        let room = if goes { relay.room().take_within(page.bytes, ROOM_BOUND).await } else { None };
        let Some(room) = room else {
            published = ROUND;
            left.extend(page.rows.iter().filter(|row| !row.has_due_row).map(|row| row.tx_id.0));
            continue;
        };
        published += page.bytes;
        let claimed = relay.store().claim(&page.rows, PUBLISH_AFTER).await?;
        look_again_at_others(relay, &page.rows, &claimed).await?;
        reach(Point::IN9).await?;
        relay.publish_each(claimed, &room).await;
    }
    if left.is_empty() { Ok(()) } else { relay.store().postpone(&left, Duration::ZERO).await }
}

/// Hands rows to their receivers, as many as these have room for.
async fn dispatch(relay: &Relay, rows: &[OpenRow]) -> Result<(), StoreError> {
    let sizes = sizes(relay, rows).await?;
    let mut wanted: BTreeMap<&Destination, Vec<(TxId, usize)>> = BTreeMap::new();
    for row in rows {
        let bytes = sizes.get(&row.tx_id).copied().unwrap_or(0);
        wanted.entry(&row.destination).or_default().push((row.tx_id, bytes));
    }
    let mut all = Places::default();
    for (destination, rows) in wanted {
        match relay.route(destination) {
            Some(route) => all.add(route.places(rows, Instant::now())),
            None => all.later.extend(rows.iter().map(|(tx_id, _)| tx_id.0)),
        }
    }
    let (store, Places { found: mut places, soon, later }) = (relay.store(), all);
    for (rows, pause) in [(soon, TURN), (later, HELD)] {
        if !rows.is_empty() {
            store.postpone(&rows, pause).await?;
        }
    }
    let now: Vec<OpenRow> = rows.iter().filter(|row| places.contains_key(&row.tx_id)).cloned().collect();
    if now.is_empty() {
        return Ok(());
    }
    let claimed = store.claim(&now, relay.settings().watch).await?;
    look_again_at_others(relay, &now, &claimed).await?;
    for message in claimed {
        if let Some(place) = places.remove(&message.envelope.tx_id) {
            place.put(message);
        }
    }
    Ok(())
}

async fn sizes(relay: &Relay, rows: &[OpenRow]) -> Result<BTreeMap<TxId, usize>, StoreError> {
    let tx_ids: Vec<Uuid> = rows.iter().map(|row| row.tx_id.0).collect();
    if tx_ids.is_empty() { Ok(BTreeMap::new()) } else { relay.store().body_sizes(&tx_ids).await }
}

/// Rows that were due and could not be claimed would be due again at once, for as long as somebody holds them.
async fn look_again_at_others(relay: &Relay, wanted: &[OpenRow], claimed: &[Claimed]) -> Result<(), StoreError> {
    let claimed: BTreeSet<Uuid> = claimed.iter().map(|message| message.envelope.tx_id.0).collect();
    let others = wanted.iter().filter(|row| row.has_due_row && !claimed.contains(&row.tx_id.0));
    let others: Vec<Uuid> = others.map(|row| row.tx_id.0).collect();
    if others.is_empty() { Ok(()) } else { relay.store().postpone(&others, HELD).await }
}

/// Gives a message up, as it was seen with so many `attempts`.
pub(super) async fn to_error_store(
    relay: &Relay,
    tx_id: TxId,
    destination: &Destination,
    attempts: i32,
    reason: &str,
) -> Result<(), StoreError> {
    let (slot, adapter) = match relay.destination(destination) {
        Some(settings) => (settings.error_slot.clone(), settings.adapter.as_str()),
        None => (destination.error_slot(), ""),
    };
    let failed = FailedAttempt {
        tx_id,
        destination,
        seen: attempts,
        n: attempts,
        adapter,
        step: None,
        error: reason,
        took: Duration::ZERO,
    };
    let store = relay.store();
    let host = &relay.settings().host;
    match store.give_up(&failed, &slot, host, GivenUpBy::Observer).await {
        Ok(Some(key)) => {
            metrics::counter!("posthaste_failed_total", "adapter" => adapter.to_owned()).increment(1);
            tracing::warn!(tx_id = %tx_id, %slot, messagekey = %key, reason, "moved to the error store");
            Ok(())
        }
        Ok(None) => store.postpone(&[tx_id.0], HELD).await,
        Err(error) if error.is_infrastructure() => Err(error),
        // One row's trouble is not that of all others.
        Err(error) if error.sqlstate() == Some("55P03") => store.postpone(&[tx_id.0], HELD).await,
        Err(error) => {
            tracing::error!(tx_id = %tx_id, %slot, %error, "the error store refused a message; trying again later");
            store.postpone(&[tx_id.0], REFUSED).await
        }
    }
}
