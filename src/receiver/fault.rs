//! Whose fault an error is that a database in trouble answers, and that a step may raise by itself: pure (protocol §5,
//! ADR 18).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    pub company: Company,
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
    let Suspicion { trouble, probe, company, excused } = suspicion;
    match (trouble, probe, company) {
        // Brought down again and again, each time in the midst of the same message.
        (Trouble::Lost, Probe::Passed | Probe::Failed, _) if excused >= MOST_EXCUSED => Fault::Message,
        (Trouble::Class(_), Probe::Passed, Company::Alike) if excused >= MOST_EXCUSED => Fault::Message,
        (Trouble::Lost | Trouble::Class(_), Probe::Failed, _) => Fault::Database,
        (Trouble::Lost | Trouble::Class(_), Probe::Passed, Company::Alike) => Fault::Several,
        (Trouble::Lost | Trouble::Class(_), Probe::Passed, Company::None | Company::Well) => {
            if excused < EXCUSED_AMONG_OTHERS { Fault::Unclear } else { Fault::Message }
        }
    }
}

/// So many messages are remembered; beyond them all are forgotten, and known again by their next failures.
const REMEMBERED: usize = 4096;

/// What a receiver's databases answered lately.
#[derive(Debug, Default)]
pub struct Troubles {
    /// Messages that were committed.
    successes: AtomicU64,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    /// With so many successes.
    at: u64,
    /// Since the last of them: of each trouble two messages, which is enough to tell.
    since: Vec<(TxId, Trouble)>,
    /// How many successes there were when a message failed last.
    last: BTreeMap<TxId, u64>,
}

/// In whose company a message failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Nothing tells it from a database in trouble, nor from a message's own failure.
    None,
    /// Another failed in the same way before it, and nothing has succeeded since.
    Alike,
    /// Others succeeded between its last failure and this one.
    Well,
}

impl Troubles {
    /// A message was committed.
    pub fn success(&self) {
        self.successes.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were committed.
    pub fn successes(&self) -> u64 {
        self.successes.load(Ordering::Relaxed)
    }

    /// Whether messages fail alike, and none succeeds: then it is no use to try one without the others.
    pub fn several(&self) -> bool {
        let failures = self.failures();
        let mut since = failures.since.iter();
        failures.at == self.successes()
            && since.any(|(one, trouble)| failures.since.iter().any(|(other, same)| other != one && same == trouble))
    }

    /// A message has failed.
    pub fn failure(&self, tx_id: TxId, trouble: Trouble) -> Company {
        let (mut failures, now) = (self.failures(), self.successes());
        if failures.at != now {
            failures.at = now;
            failures.since.clear();
        }
        let alike = failures.since.iter().any(|(other, same)| *other != tx_id && *same == trouble);
        let known = failures.since.iter().filter(|(_, same)| *same == trouble).count();
        if known < 2 && !failures.since.contains(&(tx_id, trouble)) {
            failures.since.push((tx_id, trouble));
        }
        if failures.last.len() >= REMEMBERED && !failures.last.contains_key(&tx_id) {
            failures.last.clear();
        }
        match failures.last.insert(tx_id, now) {
            Some(last) if last < now => Company::Well,
            Some(_) | None if alike => Company::Alike,
            Some(_) | None => Company::None,
        }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERNAL: Trouble = Trouble::Class(*b"XX");
    const DISK_FULL: Trouble = Trouble::Class(*b"53");
    const ONCE: Suspicion = Suspicion { trouble: INTERNAL, probe: Probe::Passed, company: Company::None, excused: 0 };

    #[test]
    fn a_message_that_fails_while_the_database_is_well_is_excused_twice_and_then_counted() {
        for company in [Company::None, Company::Well] {
            let faults = [0, 1, 2, 3, 100].map(|excused| whose(Suspicion { company, excused, ..ONCE }));
            assert_eq!(faults, [Fault::Unclear, Fault::Unclear, Fault::Message, Fault::Message, Fault::Message]);
        }
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
            let alike = Suspicion { trouble, company: Company::Alike, ..ONCE };
            for excused in [0, 2, 9] {
                assert_eq!(whose(Suspicion { excused, ..alike }), Fault::Several);
                assert_eq!(whose(Suspicion { excused, probe: Probe::Failed, ..alike }), Fault::Database);
            }
            assert_eq!(whose(Suspicion { excused: 10, ..alike }), Fault::Message);
        }
        let full = Suspicion { trouble: DISK_FULL, company: Company::Alike, probe: Probe::Failed, excused: 10 };
        assert_eq!(whose(full), Fault::Database);
    }

    #[test]
    fn a_message_that_brings_the_server_down_each_time_does_not_go_round_for_ever() {
        for company in [Company::None, Company::Alike, Company::Well] {
            let lost = Suspicion { trouble: Trouble::Lost, probe: Probe::Failed, company, ..ONCE };
            assert_eq!(whose(Suspicion { excused: 9, ..lost }), Fault::Database);
            assert_eq!(whose(Suspicion { excused: 10, ..lost }), Fault::Message);
        }
    }

    #[test]
    fn failures_are_alike_when_two_messages_have_the_same_and_none_succeeds_between() {
        let troubles = Troubles::default();
        let (one, other, third) = (TxId::mint(), TxId::mint(), TxId::mint());
        assert_eq!(troubles.failure(one, INTERNAL), Company::None, "the first");
        assert_eq!(troubles.failure(one, INTERNAL), Company::None, "the same message");
        assert_eq!(troubles.failure(other, DISK_FULL), Company::None, "in another way");
        assert!(!troubles.several());
        assert_eq!(troubles.failure(one, DISK_FULL), Company::Alike);
        assert_eq!(troubles.failure(one, DISK_FULL), Company::Alike, "also when it is the same again");
        assert!(troubles.several());
        troubles.success();
        assert!(!troubles.several());
        assert_eq!(troubles.failure(third, DISK_FULL), Company::None, "something has succeeded");
    }

    #[test]
    fn who_fails_again_after_others_succeeded_fails_by_itself_however_many_do() {
        let troubles = Troubles::default();
        let (one, other) = (TxId::mint(), TxId::mint());
        let both = || [one, other].map(|tx_id| troubles.failure(tx_id, INTERNAL));
        assert_eq!(both(), [Company::None, Company::Alike]);
        assert_eq!(both(), [Company::Alike; 2]);
        troubles.success();
        assert_eq!(both(), [Company::Well; 2]);
        assert_eq!(both(), [Company::Alike; 2], "nothing has succeeded since");
    }

    #[test]
    fn the_number_of_those_who_are_remembered_is_bounded() {
        let troubles = Troubles::default();
        for _ in 0..=REMEMBERED {
            troubles.failure(TxId::mint(), INTERNAL);
        }
        assert_eq!(troubles.failures().last.len(), 1);
    }
}
