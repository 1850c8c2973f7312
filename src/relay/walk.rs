//! How far the walk over open rows has come: pure. A walk may take several rounds, and what its first part saw counts
//! until its end: a mark that forgot it would leave open rows behind for ever.

use std::time::Duration;

use uuid::Uuid;

use crate::store::OpenRow;

/// One walk from the mark to the youngest row.
#[derive(Debug)]
pub(super) struct Walk {
    /// The mark at its beginning.
    pub from: Uuid,
    /// The last row that was read.
    pub after: Uuid,
    /// The database's clock at the beginning, in milliseconds since 1970.
    pub clock_ms: u64,
    /// Everything older was committed before the walk began.
    settled: Uuid,
    /// The oldest row that no row of `due` watches.
    oldest_unwatched: Option<Uuid>,
    /// Time spent on reading.
    pub reading: Duration,
}

impl Walk {
    /// A walk from the mark, or from where commits may still come in when the clock has gone back behind it.
    pub fn begin(open_from: Uuid, clock_ms: u64, late_commits: Duration) -> Self {
        let late = u64::try_from(late_commits.as_millis()).unwrap_or(u64::MAX);
        let settled = id_at(clock_ms.saturating_sub(late));
        Self {
            from: open_from,
            after: open_from.min(settled),
            clock_ms,
            settled,
            oldest_unwatched: None,
            reading: Duration::ZERO,
        }
    }

    /// Takes note of a row, in the order of the ids.
    pub fn pass(&mut self, row: &OpenRow) {
        self.after = row.tx_id.0;
        if !row.has_due_row {
            self.oldest_unwatched.get_or_insert(row.tx_id.0);
        }
    }

    /// Where the next walk may begin, once this one has come to its end.
    pub fn next_mark(&self) -> Uuid {
        self.oldest_unwatched.map_or(self.settled, |oldest| before(oldest).min(self.settled))
    }
}

/// The smallest UUIDv7 of a millisecond.
fn id_at(millis: u64) -> Uuid {
    Uuid::from_u128(u128::from(millis) << 80)
}

fn before(id: Uuid) -> Uuid {
    Uuid::from_u128(id.as_u128().saturating_sub(1))
}

/// The time in an id, in milliseconds since 1970.
pub(super) fn millis_of(id: Uuid) -> u64 {
    u64::try_from(id.as_u128() >> 80).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Destination, JournalState, Mode, TxId};

    const LATE: Duration = Duration::from_secs(100);

    fn row(millis: u64, has_due_row: bool) -> OpenRow {
        OpenRow {
            tx_id: TxId(id_at(millis)),
            destination: Destination::queue("rabbit", "myQueue"),
            mode: Mode::Own,
            state: JournalState::Published,
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
    fn the_time_in_an_id_is_read_back() {
        let id = Uuid::now_v7();
        assert!(id_at(millis_of(id)) <= id && id < id_at(millis_of(id) + 1));
        assert!(before(id) < id);
    }

    #[test]
    fn a_walk_in_several_parts_keeps_its_mark_before_the_oldest_row_that_nobody_watches() {
        let mut walk = Walk::begin(Uuid::nil(), 1_000_000, LATE);
        walk.pass(&row(5_000, true));
        walk.pass(&row(6_000, false));
        // The second part of the same walk.
        walk.pass(&row(500_000, false));
        assert_eq!(millis_of(walk.next_mark()), 5_999);
        assert!(walk.next_mark() < id_at(6_000));
    }

    #[test]
    fn the_mark_stays_behind_what_may_still_be_committed() {
        let mut walk = Walk::begin(Uuid::nil(), 1_000_000, LATE);
        assert_eq!(walk.next_mark(), id_at(900_000));
        walk.pass(&row(999_000, false));
        assert_eq!(walk.next_mark(), id_at(900_000));
    }

    #[test]
    fn a_clock_that_went_back_hides_no_row() {
        let walk = Walk::begin(id_at(900_000), 500_000, LATE);
        assert_eq!(walk.after, id_at(400_000));
    }
}
