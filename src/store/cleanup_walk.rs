//! How far clean-up has come in each thing that it walks through.

use uuid::Uuid;

use crate::model::SlotId;

/// What is walked through by itself, and how far the walk has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub(super) walk: Walk,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Walk {
    /// One slot's rows of type A or L, in the order in which they came.
    Log {
        slot: SlotId,
        kind: String,
        place: Place<i64>,
    },
    /// The journal with all that hangs on its rows, in the order of time.
    Journal {
        place: Place<Uuid>,
    },
    Inbox,
    /// Small tables.
    Rest,
}

impl Part {
    pub(super) fn log(slot: SlotId, kind: &str) -> Self {
        Self { walk: Walk::Log { slot, kind: kind.to_owned(), place: Place::after(i64::MIN) } }
    }

    pub(super) fn journal() -> Self {
        Self { walk: Walk::Journal { place: Place::after(Uuid::nil()) } }
    }

    pub(super) fn inbox() -> Self {
        Self { walk: Walk::Inbox }
    }

    pub(super) fn rest() -> Self {
        Self { walk: Walk::Rest }
    }

    /// Whether both walk through the same rows, wherever they stand.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.walk, &other.walk) {
            (Walk::Log { slot, kind, .. }, Walk::Log { slot: other, kind: of, .. }) => slot == other && kind == of,
            (Walk::Journal { .. }, Walk::Journal { .. }) | (Walk::Inbox, Walk::Inbox) | (Walk::Rest, Walk::Rest) => {
                true
            }
            (Walk::Log { .. } | Walk::Journal { .. } | Walk::Inbox | Walk::Rest, _) => false,
        }
    }

    /// The next round begins at the first row that was too young for this one. From the beginning it would look again
    /// at what waits for a person, and at index entries of rows that are gone and not vacuumed yet.
    pub fn end_round(&mut self) {
        match &mut self.walk {
            Walk::Log { place, .. } => place.end_round(),
            Walk::Journal { place } => place.end_round(),
            Walk::Inbox | Walk::Rest => {}
        }
    }

    /// The next round begins at the first row that was held: it may not be held any more.
    pub fn look_again(&mut self) {
        match &mut self.walk {
            Walk::Log { place, .. } => place.look_again(),
            Walk::Journal { place } => place.look_again(),
            Walk::Inbox | Walk::Rest => {}
        }
    }
}

/// Where a walk stands. All three are keys before the rows that are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<K> {
    pub(super) after: K,
    /// The first row of this round whose time had not come.
    young: Option<K>,
    /// The first row that stayed though its time had come, in any round.
    held: Option<K>,
}

/// What one statement has looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<K> {
    /// The last row, if there was any.
    pub(super) last: Option<K>,
    /// Before the first row whose time had not come.
    pub(super) young: Option<K>,
    /// Rows whose time had come stayed.
    pub(super) held: bool,
}

impl<K: Copy + Ord> Place<K> {
    const fn after(after: K) -> Self {
        Self { after, young: None, held: None }
    }

    pub(super) fn step(&mut self, seen: Seen<K>) {
        if seen.held {
            self.held = Some(self.held.map_or(self.after, |held| held.min(self.after)));
        }
        self.young = self.young.or(seen.young);
        self.after = seen.last.unwrap_or(self.after);
    }

    fn end_round(&mut self) {
        self.after = self.young.take().unwrap_or(self.after);
    }

    fn look_again(&mut self) {
        self.after = self.held.take().map_or(self.after, |held| held.min(self.after));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(last: i64, young: Option<i64>, held: bool) -> Seen<i64> {
        Seen { last: Some(last), young, held }
    }

    #[test]
    fn the_next_round_begins_at_the_first_row_that_was_too_young() {
        let mut place = Place::after(0);
        place.step(seen(10, None, false));
        place.step(seen(20, Some(14), false));
        place.step(seen(30, Some(21), false));
        assert_eq!(place.after, 30, "within a round it goes on");
        place.end_round();
        assert_eq!(place, Place::after(14));
        place.step(Seen { last: None, young: None, held: false });
        place.end_round();
        assert_eq!(place.after, 14, "nothing was seen");
    }

    #[test]
    fn what_is_held_is_passed_by_until_it_is_looked_for_again() {
        let mut place = Place::after(0);
        place.step(seen(10, None, false));
        place.step(seen(20, None, true));
        place.step(seen(30, None, true));
        place.end_round();
        assert_eq!(place.after, 30);
        place.look_again();
        assert_eq!(place.after, 10);
        place.step(seen(40, None, false));
        place.end_round();
        place.look_again();
        assert_eq!(place.after, 40, "nothing is held any more");
    }

    #[test]
    fn no_row_falls_behind_the_walk_where_some_expire_before_earlier_ones() {
        // 5 is young, what is beyond 10 is held.
        let mut place = Place::after(0);
        place.step(seen(10, Some(4), false));
        place.step(seen(20, None, true));
        place.end_round();
        place.look_again();
        assert_eq!(place.after, 4);
        // What was young is held now, before what was held already.
        let mut place = Place::after(0);
        place.step(seen(10, Some(4), false));
        place.step(seen(20, None, true));
        place.end_round();
        place.step(seen(20, None, true));
        place.end_round();
        place.look_again();
        assert_eq!(place.after, 4);
    }

    #[test]
    fn parts_are_the_same_by_what_they_walk_through() {
        let parts = || {
            let log = |slot, kind| Part::log(SlotId::new(slot), kind);
            [log("a", "A"), log("a", "L"), log("b", "A"), Part::journal(), Part::inbox(), Part::rest()]
        };
        for (one, part) in parts().iter().enumerate() {
            for (two, other) in parts().iter().enumerate() {
                assert_eq!(part.is_same(other), one == two, "{part:?}, {other:?}");
            }
        }
    }
}
