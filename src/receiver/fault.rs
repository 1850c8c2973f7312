//! Whose fault an error is that a database in trouble answers, and that a step may raise by itself: pure (protocol §5,
//! ADR 18).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::model::TxId;
use crate::pipeline::Trouble;

/// Excused so often among others, a message is tried alone, and its attempts count while the databases are well.
pub const EXCUSED_AMONG_OTHERS: i32 = 2;
/// A message that takes its connection with it, and the server, is excused so often and no more; so is one that fails as others
/// do while the databases take writes: poisons that are left by themselves would excuse each other for ever.
const MOST_EXCUSED: i32 = 10;

/// Whether the databases took a write right after the failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    Passed,
    Failed,
}

/// What is known when an attempt has failed so and was rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    pub trouble: Trouble,
    pub probe: Probe,
    /// Another message failed in the same way before it, and nothing has succeeded since.
    pub alike: bool,
    /// How often the message was excused.
    pub excused: i32,
}

/// Whose fault it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is tried until it is well; the attempt does not count.
    Database,
    /// Perhaps the database's, perhaps that of several messages: all pause, and the attempt does not count. The message waits
    /// longer, so that after the pause others come first: one that succeeds tells.
    Several,
    /// Perhaps the message's: it waits, and the attempt does not count; its neighbours go on.
    Unclear,
    /// It fails while the databases are well: the attempt counts.
    Message,
}

/// Judges.
#[must_use]
pub const fn whose(suspicion: Suspicion) -> Fault {
    let Suspicion { trouble, probe, alike, excused } = suspicion;
    match (trouble, probe, alike) {
        // Brought down again and again, each time in the midst of the same message.
        (Trouble::Lost, Probe::Passed | Probe::Failed, _) if excused >= MOST_EXCUSED => Fault::Message,
        (Trouble::Class(_), Probe::Passed, true) if excused >= MOST_EXCUSED => Fault::Message,
        (Trouble::Lost | Trouble::Class(_), Probe::Failed, _) => Fault::Database,
        (Trouble::Lost | Trouble::Class(_), Probe::Passed, true) => Fault::Several,
        (Trouble::Lost | Trouble::Class(_), Probe::Passed, false) => {
            if excused < EXCUSED_AMONG_OTHERS {
                Fault::Unclear
            } else {
                Fault::Message
            }
        }
    }
}

/// Such failures of a receiver since a message succeeded: of each trouble two messages, which is enough to tell.
#[derive(Debug, Default)]
pub struct Troubles {
    any: AtomicBool,
    since: Mutex<Vec<(TxId, Trouble)>>,
}

impl Troubles {
    /// A message was committed.
    pub fn success(&self) {
        if self.any.swap(false, Ordering::Relaxed) {
            self.since.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Whether messages fail alike, and none succeeds: then it is no use to try one without the others.
    pub fn several(&self) -> bool {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.iter().any(|(one, trouble)| since.iter().any(|(other, same)| other != one && same == trouble))
    }

    /// Whether another message failed in the same way before this one, and none has succeeded since.
    pub fn failure(&self, tx_id: TxId, trouble: Trouble) -> bool {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(true, Ordering::Relaxed);
        let alike = since.iter().any(|(other, same)| *other != tx_id && *same == trouble);
        let known = since.iter().filter(|(_, same)| *same == trouble).count();
        if known < 2 && !since.contains(&(tx_id, trouble)) {
            since.push((tx_id, trouble));
        }
        alike
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERNAL: Trouble = Trouble::Class(*b"XX");
    const DISK_FULL: Trouble = Trouble::Class(*b"53");
    const ONCE: Suspicion = Suspicion { trouble: INTERNAL, probe: Probe::Passed, alike: false, excused: 0 };

    #[test]
    fn a_message_that_fails_while_the_database_is_well_is_excused_twice_and_then_counted() {
        let faults = [0, 1, 2, 3, 100].map(|excused| whose(Suspicion { excused, ..ONCE }));
        assert_eq!(faults, [Fault::Unclear, Fault::Unclear, Fault::Message, Fault::Message, Fault::Message]);
    }

    #[test]
    fn a_database_that_takes_no_write_is_to_blame_however_often() {
        for excused in [0, 2, 1000] {
            let full = Suspicion { trouble: DISK_FULL, probe: Probe::Failed, excused, ..ONCE };
            assert_eq!(whose(full), Fault::Database);
        }
    }

    #[test]
    fn messages_that_are_answered_alike_make_room_for_others_until_the_database_has_taken_writes_ten_times() {
        for trouble in [DISK_FULL, Trouble::Lost] {
            let alike = Suspicion { trouble, alike: true, ..ONCE };
            for excused in [0, 2, 9] {
                assert_eq!(whose(Suspicion { excused, ..alike }), Fault::Several);
                assert_eq!(whose(Suspicion { excused, probe: Probe::Failed, ..alike }), Fault::Database);
            }
            assert_eq!(whose(Suspicion { excused: 10, ..alike }), Fault::Message);
        }
        let full = Suspicion { trouble: DISK_FULL, alike: true, probe: Probe::Failed, excused: 10 };
        assert_eq!(whose(full), Fault::Database);
    }

    #[test]
    fn a_message_that_brings_the_server_down_each_time_does_not_go_round_for_ever() {
        for alike in [false, true] {
            let lost = Suspicion { trouble: Trouble::Lost, probe: Probe::Failed, alike, ..ONCE };
            assert_eq!(whose(Suspicion { excused: 9, ..lost }), Fault::Database);
            assert_eq!(whose(Suspicion { excused: 10, ..lost }), Fault::Message);
        }
    }

    #[test]
    fn failures_are_alike_when_two_messages_have_the_same_and_none_succeeds_between() {
        let troubles = Troubles::default();
        let (one, other) = (TxId::mint(), TxId::mint());
        assert!(!troubles.failure(one, INTERNAL), "the first");
        assert!(!troubles.failure(one, INTERNAL), "the same message");
        assert!(!troubles.failure(other, DISK_FULL), "in another way");
        assert!(!troubles.several());
        assert!(troubles.failure(one, DISK_FULL));
        assert!(troubles.failure(one, DISK_FULL), "also when it is the same again");
        assert!(troubles.several());
        troubles.success();
        assert!(!troubles.several());
        assert!(!troubles.failure(other, DISK_FULL), "something has succeeded");
    }
}
