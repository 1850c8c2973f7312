//! Marking what the broker has confirmed: late, many at a time, and only what nobody has processed meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use super::Relay;
use super::decide::T_REDO;
use super::publish::lock;
use crate::lifecycle::{NeededFor, Task, Watch, point};
use crate::model::TxId;
use crate::store::{Mark, Store};

/// How long confirmed rows wait for their mark: most are DONE by then and need none.
const MARK_DELAY: Duration = Duration::from_secs(1);

/// Rows that wait for a mark, with the `attempts` that were published last.
pub(super) type Unmarked = Arc<Mutex<BTreeMap<TxId, i32>>>;

impl Relay {
    /// Answers those for which there is no room now.
    pub(super) fn mark_later(&self, confirmed: impl Iterator<Item = Mark> + Clone) -> Vec<(Mark, Instant)> {
        lock(&self.0.unmarked).extend(confirmed.clone().map(|mark| (mark.tx_id, mark.attempts)));
        let (mut count, mut no_room, now) = (0, Vec::new(), Instant::now());
        for mark in confirmed {
            count += 1;
            match self.0.marks.try_send((mark, now)) {
                Ok(()) => {}
                Err(TrySendError::Full(mark)) => no_room.push(mark),
                Err(TrySendError::Closed((mark, _))) => self.not_marked(&mark),
            }
        }
        metrics::counter!("posthaste_published_total").increment(count);
        no_room
    }

    /// A database that hangs must not hold up whoever waits for this any longer than `until`.
    pub(super) async fn mark_when_there_is_room(&self, waiting: Vec<(Mark, Instant)>, until: Instant) {
        for one in waiting {
            if self.0.marks.send_timeout(one, until.saturating_duration_since(Instant::now())).await.is_err() {
                self.not_marked(&one.0);
            }
        }
    }

    fn not_marked(&self, mark: &Mark) {
        lock(&self.0.unmarked).remove(&mark.tx_id);
        tracing::debug!(tx_id = %mark.tx_id, "not marked; a second publish does no harm");
    }
}

const NAME: &str = "marker";

/// The task that marks.
pub(super) struct Marker {
    pub store: Store,
    /// What is not in it any more needs no mark.
    pub unmarked: Unmarked,
    pub closing: CancellationToken,
    pub hard: CancellationToken,
}

impl Marker {
    /// Until the relay is closed. What waits outlives a panic, and what was in hand is not marked: a second publish does no harm.
    pub async fn live(self, mut waiting: mpsc::Receiver<(Mark, Instant)>, watch: Watch) {
        let (task, stop) = (Task::new(NAME, NeededFor::Processing), self.hard.clone());
        let marker = Arc::new(self);
        let marks =
            watch.until_done(task, &stop, &mut waiting, |waiting| marker.clone().mark_in_batches(waiting).boxed());
        let _stopped = marks.await;
    }

    /// Marks what was confirmed at least [`MARK_DELAY`] ago, many at a time; at the end whatever waits, at once.
    async fn mark_in_batches(self: Arc<Self>, waiting: &mut mpsc::Receiver<(Mark, Instant)>) {
        let mut batch = Vec::new();
        loop {
            let received = tokio::select! {
                biased;
                received = waiting.recv_many(&mut batch, 1000) => received,
                () = self.closing.cancelled() => 0,
                () = self.hard.cancelled() => 0,
            };
            if received == 0 {
                return;
            }
            point(NAME);
            if let Some((_, youngest)) = batch.last() {
                let rest = MARK_DELAY.saturating_sub(youngest.elapsed());
                tokio::select! {
                    () = tokio::time::sleep(rest) => {}
                    () = self.closing.cancelled() => {}
                }
            }
            let marks = self.still_wanted(batch.drain(..).map(|(mark, _)| mark));
            if marks.is_empty() {
                continue;
            }
            if let Err(error) = self.store.mark(&marks, T_REDO).await {
                tracing::debug!(%error, rows = marks.len(), "not marked; a second publish does no harm");
            }
        }
    }

    fn still_wanted(&self, marks: impl Iterator<Item = Mark>) -> Vec<Mark> {
        let mut unmarked = lock(&self.unmarked);
        let mut wanted = |mark: &Mark| match unmarked.get(&mark.tx_id) {
            Some(attempts) if *attempts == mark.attempts => unmarked.remove(&mark.tx_id).is_some(),
            // A later one follows, or none is needed.
            Some(_) | None => false,
        };
        marks.filter(|mark| wanted(mark)).collect()
    }
}
