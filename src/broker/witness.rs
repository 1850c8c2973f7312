//! By which names a broker is shown an epoch, and which of them tell a newer one. Pure.
//!
//! Names cannot be listed over AMQP, only asked for one by one. So an epoch is shown by its leading bits at each of some levels:
//! of two that differ, at the highest level where they do, the newer one has the older one's bits and one more. Whoever
//! believes an older epoch knows all names that a newer one might have, however far it is away.

use crate::model::{Epoch, HomeId};

/// Raised each minute, an epoch would have to be ahead by sixteen years to be overlooked.
const LEVELS: u32 = 24;

/// An epoch's leading bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sign {
    /// So many bits are left out.
    pub level: u32,
    bits: u64,
}

impl Sign {
    const fn of(number: u64, level: u32) -> Self {
        Self { level, bits: number >> level }
    }

    /// The exchange that stands for it.
    pub(super) fn exchange(self, home: HomeId) -> String {
        format!("{}{}.{}", prefix(home), self.level, self.bits)
    }

    /// The oldest epoch that shows it.
    pub(super) const fn oldest(self) -> u64 {
        self.bits << self.level
    }

    /// Whether every epoch that shows it is newer than this one.
    pub(super) const fn is_newer_than(self, number: u64) -> bool {
        self.bits > number >> self.level
    }
}

/// How all names of a home's begin.
pub(super) fn prefix(home: HomeId) -> String {
    format!("posthaste.home.{home}.")
}

/// The level that every epoch shows by a name of its own.
pub(super) const fn exact(number: u64) -> Sign {
    Sign::of(number, 0)
}

/// All that an epoch shows.
pub(super) fn signs(number: u64) -> impl Iterator<Item = Sign> {
    (0..LEVELS).map(move |level| Sign::of(number, level))
}

/// What `to` shows and `from` does not.
pub(super) fn changed(from: u64, to: u64) -> impl Iterator<Item = Sign> {
    signs(to).filter(move |sign| *sign != Sign::of(from, sign.level))
}

/// What to look for: some of these, the first of all, is shown by every newer epoch. Where a bit is set already the newer one
/// differs further up, but at the highest level there is nothing further up.
pub(super) fn newer(number: u64) -> impl Iterator<Item = Sign> {
    let next = move |level| Sign { bits: (number >> level) + 1, ..Sign::of(number, level) };
    let may_differ = move |level: &u32| level + 1 == LEVELS || (number >> level) & 1 == 0;
    (0..LEVELS).rev().filter(may_differ).map(next)
}

/// What is thought of a database once it has answered again. `found`: the sign of a newer epoch, or none, and the exact name was
/// taken by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// An old copy: the broker was shown this epoch, or one after it.
    Old { shown: u64 },
    /// It holds another epoch by now, which is to be compared anew.
    Again,
}

/// A raise is in the database before it is shown: what the database does not hold by now was shown by another.
pub(super) fn judge(compared: Epoch, found: Option<Sign>, later: Epoch) -> Judgement {
    match found {
        Some(sign) if later.home == compared.home && sign.is_newer_than(later.number) => {
            Judgement::Old { shown: sign.oldest() }
        }
        None if later == compared => Judgement::Old { shown: compared.number },
        Some(_) | None => Judgement::Again,
    }
}

#[cfg(test)]
#[path = "witness_model.rs"]
mod model;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;

    fn shown(number: u64) -> BTreeSet<Sign> {
        signs(number).collect()
    }

    fn pairs() -> impl Iterator<Item = (u64, u64)> {
        let small = (0_u64..70).flat_map(|one| (0..70).map(move |other| (one, other)));
        let far = [1, 2, 1023, 1024, 525_600, (1 << 23) - 1, 1 << 23, (1 << 24) - 1, 1 << 24, (1 << 24) + 5];
        let far = far.into_iter().flat_map(move |one| far.into_iter().map(move |other| (one, other)));
        small.chain(far).filter(|(one, other)| one.abs_diff(*other) < 1 << 23)
    }

    #[test]
    fn a_newer_epoch_is_found_however_far_it_is_away_and_an_older_one_never() {
        for (held, there) in pairs() {
            let there_now = shown(there);
            let found = newer(held).find(|sign| there_now.contains(sign));
            assert_eq!(found.is_some(), there > held, "{held} {there} {found:?}");
            if let Some(sign) = found {
                assert!(sign.is_newer_than(held) && !sign.is_newer_than(there), "{held} {there} {sign:?}");
                assert!(sign.oldest() > held && sign.oldest() <= there, "{held} {there} {sign:?}");
            }
        }
    }

    #[test]
    fn following_what_is_found_leads_to_the_newest() {
        for (held, there) in pairs().filter(|(held, there)| there > held) {
            let (there_now, mut at) = (shown(there), held);
            while let Some(sign) = newer(at).find(|sign| there_now.contains(sign)) {
                at = sign.oldest();
            }
            assert_eq!(at, there, "from {held}");
        }
    }

    #[test]
    fn names_that_an_interrupted_raise_left_behind_hide_no_newer_epoch() {
        for (held, there) in pairs().filter(|(held, there)| there > held) {
            let left: BTreeSet<Sign> = shown(there).into_iter().chain(signs(held)).chain(signs(held + 1)).collect();
            assert!(newer(held).any(|sign| left.contains(&sign)), "{held} {there}");
        }
    }

    #[test]
    fn a_raise_by_one_changes_two_names_on_average_and_what_it_takes_away_no_later_epoch_shows() {
        let all: usize = (0..4096).map(|number| changed(number, number + 1).count()).sum();
        assert!(all <= 2 * 4096, "{all}");
        for (from, to) in pairs().filter(|(from, to)| to > from) {
            let gone: BTreeSet<Sign> = changed(to, from).collect();
            assert!(shown(to).is_disjoint(&gone) && shown(to + 1).is_disjoint(&gone), "{from} {to}");
        }
    }

    #[test]
    fn names_are_those_of_one_home() {
        let home = HomeId(Uuid::nil());
        assert_eq!(exact(5).exchange(home), format!("posthaste.home.{home}.0.5"));
        assert!(signs(5).all(|sign| sign.exchange(home).starts_with(&prefix(home))));
    }
}
