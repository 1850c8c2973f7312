//! One walk through all that is open: how far it has come, and what it has counted. Each begins at the beginning: no mark
//! that is kept could hide a row (protocol §2, I9). A walk may take several rounds.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::OpenCounts;
use crate::model::{Destination, JournalState, TxId};
use crate::store::{OpenCount, OpenRow};

/// The next page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Of `unsettled`, after this entry.
    Unsettled(Uuid),
    /// Of `due`, after this row.
    Due(Uuid),
}

#[derive(Debug)]
pub(super) struct Walk {
    pub place: Place,
    /// The database's clock at the beginning, in milliseconds since 1970.
    clock_ms: u64,
    pub counts: BTreeMap<Destination, OpenCounts>,
    /// Time spent on reading.
    pub reading: Duration,
}

impl Walk {
    pub fn begin(clock_ms: u64) -> Self {
        Self { place: Place::Unsettled(Uuid::nil()), clock_ms, counts: BTreeMap::new(), reading: Duration::ZERO }
    }

    /// Counts an open row that an entry names; one that stands in `due` is counted there.
    pub fn count(&mut self, row: &OpenRow) {
        if !row.has_due_row {
            let unpublished = u64::from(row.state == JournalState::Ready);
            self.add(&row.destination, 1, unpublished, row.tx_id.0);
        }
    }

    /// Counts rows that stand in `due`.
    pub fn count_all(&mut self, rows: &OpenCount) {
        self.add(&rows.destination, rows.open, rows.unpublished, rows.oldest);
    }

    fn add(&mut self, destination: &Destination, open: u64, unpublished: u64, oldest: Uuid) {
        let counts = self.counts.entry(destination.clone()).or_default();
        counts.open += open;
        counts.unpublished += unpublished;
        let age = self.clock_ms.saturating_sub(TxId(oldest).millis()) / 1000;
        counts.oldest_seconds = counts.oldest_seconds.max(age);
    }

    /// Goes on behind a page, by its last row. `false`: this was the end.
    pub fn pass(&mut self, last: Option<Uuid>) -> bool {
        self.place = match (self.place, last) {
            (Place::Unsettled(_), Some(last)) => Place::Unsettled(last),
            (Place::Unsettled(_), None) => Place::Due(Uuid::nil()),
            (Place::Due(_), Some(last)) => Place::Due(last),
            (Place::Due(_), None) => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mode;

    fn id_at(millis: u64) -> Uuid {
        Uuid::from_u128(u128::from(millis) << 80)
    }

    fn row(millis: u64, state: JournalState, has_due_row: bool) -> OpenRow {
        OpenRow {
            tx_id: TxId(id_at(millis)),
            destination: Destination::queue("rabbit", "myQueue"),
            mode: Mode::Own,
            state,
            attempts: 0,
            max_attempts: 6,
            publishes: 0,
            owner: None,
            running_by: None,
            started: None,
            published_at: None,
            published: None,
            due: true,
            publish_due: true,
            has_due_row,
        }
    }

    #[test]
    fn a_walk_goes_through_both_tables_from_their_beginnings_to_their_ends() {
        let mut walk = Walk::begin(0);
        assert_eq!(walk.place, Place::Unsettled(Uuid::nil()));
        for (last, place) in [
            (Some(id_at(7)), Place::Unsettled(id_at(7))),
            (None, Place::Due(Uuid::nil())),
            (Some(id_at(3)), Place::Due(id_at(3))),
        ] {
            assert!(walk.pass(last));
            assert_eq!(walk.place, place);
        }
        assert!(!walk.pass(None));
    }

    #[test]
    fn each_open_row_is_counted_once_and_the_oldest_is_told_whatever_order_ids_come_in() {
        let mut walk = Walk::begin(10_000);
        walk.count(&row(8_000, JournalState::Ready, false));
        walk.count(&row(20_000, JournalState::Published, false));
        walk.count(&row(1_000, JournalState::Ready, true));
        let destination = Destination::queue("rabbit", "myQueue");
        let found = |walk: &Walk| walk.counts[&destination];
        assert_eq!(found(&walk), OpenCounts { open: 2, unpublished: 1, oldest_seconds: 2 });
        walk.count_all(&OpenCount { destination: destination.clone(), open: 5, unpublished: 4, oldest: id_at(1_000) });
        assert_eq!(found(&walk), OpenCounts { open: 7, unpublished: 5, oldest_seconds: 9 });
    }
}
