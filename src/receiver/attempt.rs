//! What a delivery, a missed claim and a failure mean: pure (protocol §5).

use std::time::Duration;

use super::ReceiverSettings;
use crate::model::{Destination, JournalState};
use crate::pipeline::FailureKind;
use crate::store::{JournalRow, StoreError};

/// How an own message enters its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Never tried, as far as anybody knows: the compare-and-set alone.
    First,
    /// It may have been tried before, uncounted: noted first, so that it is known who had it in hand should he die.
    Noted,
    /// Its attempts are counted: a start is committed first.
    Start,
}

/// `redelivered` is a hint (everything that was prefetched comes so), `attempts` what the message carries.
#[must_use]
pub const fn entry(redelivered: bool, attempts: i32) -> Entry {
    match (redelivered, attempts) {
        (false, 0) => Entry::First,
        (true, 0) => Entry::Noted,
        (_, _) => Entry::Start,
    }
}

/// What to do with a delivery whose row could not be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclaimed {
    /// It is settled: acknowledge and forget.
    Drop,
    /// Its time has not come: the row brings it back; acknowledge.
    Reopen { attempts: i32 },
    /// Its attempts are used up and nobody runs it.
    GiveUp { attempts: i32 },
    /// It cannot be ours, or not as it is: keep it for a person.
    Park { reason: String },
    /// Locked, overtaken or running: again after a pause, uncounted.
    HandBack,
}

/// Reads the row that would not be claimed.
#[must_use]
pub fn unclaimed(row: Option<&JournalRow>, destination: &Destination, sha256: &[u8]) -> Unclaimed {
    let Some(row) = row else {
        return Unclaimed::Park { reason: "expired, probably done: its journal row is gone".to_owned() };
    };
    if row.destination != destination.as_str() {
        return Unclaimed::Park { reason: format!("it came from {destination} and belongs to {}", row.destination) };
    }
    if row.sha256 != sha256 {
        return Unclaimed::Park { reason: "its body is not the one that was accepted under its id".to_owned() };
    }
    match row.state {
        JournalState::Done | JournalState::Error => Unclaimed::Drop,
        JournalState::Ready | JournalState::Published => {
            if row.runner_lives {
                Unclaimed::HandBack
            } else if row.attempts >= row.max_attempts {
                Unclaimed::GiveUp { attempts: row.attempts }
            } else if !row.due {
                Unclaimed::Reopen { attempts: row.attempts }
            } else {
                Unclaimed::HandBack
            }
        }
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Retry {
        delay: Duration,
    },
    GiveUp,
    /// Not the message's fault: nothing is written, the delivery goes back.
    HandBack,
}

/// Decides after attempt `n` of at most `max_attempts` (I7).
#[must_use]
pub fn after_failure(kind: FailureKind, n: i32, max_attempts: i32, settings: &ReceiverSettings) -> Verdict {
    match kind {
        FailureKind::Infrastructure(_) => Verdict::HandBack,
        FailureKind::Permanent if !settings.retry_permanent_errors => Verdict::GiveUp,
        FailureKind::Permanent | FailureKind::Step | FailureKind::StalePlan => {
            if n >= max_attempts {
                Verdict::GiveUp
            } else {
                Verdict::Retry { delay: settings.delay_after(n) }
            }
        }
    }
}

/// Whom an error in a transaction of several messages speaks of (protocol §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Its data, or a step that raised it.
    Message,
    /// The message, or that it shared a transaction: it is tried alone.
    Unclear,
    /// The database, or others that were in the way: all are tried alone.
    Nobody,
}

/// Reads what a call in such a transaction was answered.
#[must_use]
pub fn blame(error: &StoreError) -> Blame {
    if error.is_infrastructure() {
        return Blame::Nobody;
    }
    match error.sqlstate().and_then(|sqlstate| sqlstate.get(..2)) {
        Some("22" | "23" | "P0") => Blame::Message,
        // Deadlocks, locks that were not given, statements that were cancelled.
        Some("40" | "55" | "57") => Blame::Nobody,
        Some(_) | None => Blame::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AdapterName, SlotId, TransactionAttribute};
    use crate::pipeline::Trouble;

    fn settings() -> ReceiverSettings {
        ReceiverSettings {
            adapter: AdapterName::new("writeDb"),
            connection: "rabbit".to_owned(),
            queue: "myQueue".to_owned(),
            destination: Destination::queue("rabbit", "myQueue"),
            transaction_attribute: TransactionAttribute::Required,
            transaction_timeout: Duration::from_secs(30),
            max_retries: 5,
            retry_delays: vec![Duration::from_secs(1), Duration::from_secs(2)],
            retry_permanent_errors: true,
            num_threads: 8,
            group_size: 64,
            databases: Vec::new(),
            error_slot: SlotId::new("write-db"),
        }
    }

    fn row() -> JournalRow {
        JournalRow {
            state: JournalState::Published,
            attempts: 1,
            max_attempts: 6,
            destination: "rabbit/myQueue".to_owned(),
            sha256: vec![1],
            running_by: None,
            due: true,
            runner_lives: false,
        }
    }

    fn read(row: &JournalRow) -> Unclaimed {
        unclaimed(Some(row), &Destination::queue("rabbit", "myQueue"), &[1])
    }

    #[test]
    fn only_a_message_that_nobody_has_tried_enters_without_a_write() {
        assert_eq!(entry(false, 0), Entry::First);
        assert_eq!(entry(true, 0), Entry::Noted);
        for redelivered in [false, true] {
            assert_eq!(entry(redelivered, 2), Entry::Start);
        }
    }

    #[test]
    fn max_retries_5_means_6_attempts_and_then_the_error_store() {
        let settings = settings();
        assert_eq!(settings.max_attempts(), 6);
        for n in 1..6 {
            let verdict = after_failure(FailureKind::Step, n, 6, &settings);
            assert!(matches!(verdict, Verdict::Retry { .. }), "{n}");
        }
        assert_eq!(after_failure(FailureKind::Step, 6, 6, &settings), Verdict::GiveUp);
    }

    #[test]
    fn the_last_delay_repeats() {
        let delays: Vec<u64> = (1..5).map(|n| settings().delay_after(n).as_secs()).collect();
        assert_eq!(delays, [1, 2, 2, 2]);
    }

    #[test]
    fn permanent_errors_skip_the_retries_only_when_the_adapter_says_so() {
        let retried = after_failure(FailureKind::Permanent, 1, 6, &settings());
        assert!(matches!(retried, Verdict::Retry { .. }));
        let strict = ReceiverSettings { retry_permanent_errors: false, ..settings() };
        assert_eq!(after_failure(FailureKind::Permanent, 1, 6, &strict), Verdict::GiveUp);
    }

    #[test]
    fn a_database_that_is_down_is_not_the_message_s_fault() {
        assert_eq!(after_failure(FailureKind::Infrastructure(Trouble::Lost), 6, 6, &settings()), Verdict::HandBack);
    }

    #[test]
    fn data_and_raised_errors_are_a_message_s_own_and_a_group_s_other_errors_are_not() {
        let refused = |sqlstate: &str| StoreError::Refused {
            sqlstate: sqlstate.to_owned(),
            message: String::new(),
            constraint: None,
        };
        for own in ["22P02", "23505", "P0001"] {
            assert_eq!(blame(&refused(own)), Blame::Message, "{own}");
        }
        for nobody in ["40P01", "40001", "53100", "55P03", "57014", "57P01", "58030", "XX000", "08006", "25006"] {
            assert_eq!(blame(&refused(nobody)), Blame::Nobody, "{nobody}");
        }
        for unclear in ["42P07", "42P01", "25001", "0A000"] {
            assert_eq!(blame(&refused(unclear)), Blame::Unclear, "{unclear}");
        }
        assert_eq!(blame(&StoreError::Unknown(String::new())), Blame::Nobody);
        assert_eq!(blame(&StoreError::Unreachable(String::new())), Blame::Nobody);
        assert_eq!(blame(&StoreError::Unexpected(String::new())), Blame::Unclear);
    }

    #[test]
    fn a_settled_row_drops_its_delivery() {
        for state in [JournalState::Done, JournalState::Error] {
            assert_eq!(read(&JournalRow { state, ..row() }), Unclaimed::Drop);
        }
    }

    #[test]
    fn an_own_message_without_a_row_or_with_another_body_or_queue_is_parked() {
        let here = Destination::queue("rabbit", "myQueue");
        assert!(matches!(unclaimed(None, &here, &[1]), Unclaimed::Park { .. }));
        assert!(matches!(unclaimed(Some(&row()), &here, &[2]), Unclaimed::Park { .. }));
        let elsewhere = Destination::queue("rabbit", "other");
        assert!(matches!(unclaimed(Some(&row()), &elsewhere, &[1]), Unclaimed::Park { .. }));
    }

    #[test]
    fn a_row_that_somebody_runs_or_holds_is_handed_back_uncounted() {
        assert_eq!(read(&row()), Unclaimed::HandBack);
        assert_eq!(read(&JournalRow { runner_lives: true, attempts: 6, ..row() }), Unclaimed::HandBack);
    }

    #[test]
    fn used_up_attempts_without_a_runner_end_in_the_error_store() {
        assert_eq!(read(&JournalRow { attempts: 6, ..row() }), Unclaimed::GiveUp { attempts: 6 });
    }

    #[test]
    fn a_delivery_before_its_time_goes_back_to_the_journal() {
        assert_eq!(read(&JournalRow { due: false, ..row() }), Unclaimed::Reopen { attempts: 1 });
    }
}
