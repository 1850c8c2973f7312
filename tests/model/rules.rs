//! What must hold: the invariants of the protocol (§2) and some of its other rules, in every state and at every end.

use posthaste::model::{JournalState, Mode, StoreType};
use stateright::Property;

use super::harness;
use super::world::{Action, Budget, Lab, MESSAGES, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Accepted: processed exactly once in effect, or exactly one row in the error store.
    I1,
    /// Refused: nothing was done, and nothing will be.
    I2,
    /// A repeat is answered as a duplicate, once the message was accepted.
    I3,
    /// One acceptance per id; a duplicate answer never precedes a durable acceptance.
    I4,
    /// No effect without a journal row of that destination.
    I5,
    /// At most maxRetries + 1 attempts, all counted but one in which the process died or lost the database.
    I7,
    /// Where nothing fails and nobody dies no message ends in the error store, however often instances are stopped.
    Stops,
    /// Clean-up removes nothing that waits for a person, and no id within its retention.
    I8,
    /// Every open row is found.
    I9,
    /// A published message is with the broker until its decision: acknowledgements follow decisions (§1).
    Carried,
    /// Nothing is published or processed before its time (§3, `not_before`).
    Delay,
    /// Nothing is given up for a full queue, a confirm that does not come or a channel that is lost (§4, step 4).
    Blamed,
    /// When nothing goes wrong any more, everything comes to its end. Asked of a sample of states, because cycles hide
    /// an end that is never reached.
    Settles,
}

impl Rule {
    pub const ALL: &[Self] = &[
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I7,
        Self::Stops,
        Self::I8,
        Self::I9,
        Self::Carried,
        Self::Delay,
        Self::Blamed,
        Self::Settles,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::I1 => "I1",
            Self::I2 => "I2",
            Self::I3 => "I3",
            Self::I4 => "I4",
            Self::I5 => "I5",
            Self::I7 => "I7",
            Self::Stops => "stops use up no attempts",
            Self::I8 => "I8",
            Self::I9 => "I9",
            Self::Carried => "published messages are with the broker",
            Self::Delay => "delays are kept",
            Self::Blamed => "back-pressure is not the message's fault",
            Self::Settles => "everything comes to its end",
        }
    }

    pub fn property(self) -> Property<Lab> {
        let holds: fn(&Lab, &World) -> bool = match self {
            Self::I1 => exactly_once,
            Self::I2 => refused_is_never_accepted,
            Self::I3 => |_, world| !world.broke(Self::I3),
            Self::I4 => one_acceptance_per_id,
            Self::I5 => |_, world| !world.broke(Self::I5),
            Self::I7 => attempts_are_counted,
            Self::Stops => stops_use_up_no_attempts,
            Self::I8 => clean_up_keeps_what_is_needed,
            Self::I9 => |_, world| world.db.journal.iter().all(|row| !row.open() || row.found()),
            Self::Carried => published_is_carried,
            Self::Delay => |_, world| !world.broke(Self::Delay),
            Self::Blamed => |_, world| !world.broke(Self::Blamed),
            Self::Settles => settles,
        };
        Property::always(self.name(), holds)
    }
}

fn exactly_once(lab: &Lab, world: &World) -> bool {
    let settled = |body| usize::from(world.record.effects[body]) + world.stored(StoreType::Error, body);
    let moving = |body| world.rows(body).any(|row| row.open()) || world.copies(body) > 0;
    let quiet = lab.is_quiet(world);
    !world.broke(Rule::I1)
        && (0..MESSAGES).filter(|body| world.record.accepted[*body]).all(|body| match settled(body) {
            0 => moving(body) && (!quiet || !lab.scenario.consumed),
            1 => !quiet || !world.rows(body).any(|row| row.open()),
            _ => false,
        })
}

fn settles(lab: &Lab, world: &World) -> bool {
    let calm = World { left: Budget::default(), ..world.clone() };
    harness::comes_to_its_end(lab, world, calm, |world| lab.is_quiet(world), Action::is_ordinary)
}

fn refused_is_never_accepted(_: &Lab, world: &World) -> bool {
    world.record.refused.iter().all(|tx| world.db.row(*tx).is_none())
}

fn one_acceptance_per_id(_: &Lab, world: &World) -> bool {
    let keys = || world.db.store.iter().filter_map(|row| row.dedup_key);
    !world.broke(Rule::I4) && keys().all(|key| keys().filter(|other| *other == key).count() == 1)
}

fn attempts_are_counted(_: &Lab, world: &World) -> bool {
    world.db.journal.iter().all(|row| {
        let ran = world.record.ran[usize::from(row.tx)];
        // The next start counts what was noted.
        let noted = u8::from(row.attempts == 0 && row.running_by.is_some());
        row.attempts <= row.max_attempts && ran <= row.attempts + noted + 1
    })
}

fn stops_use_up_no_attempts(lab: &Lab, world: &World) -> bool {
    let Budget { crashes, zombies, cuts, haste, stops, .. } = lab.scenario.start.left;
    let only_stops = stops > 0 && crashes + zombies + cuts + haste == 0 && !lab.scenario.steps_fail;
    !only_stops || world.record.waiting.iter().all(|waiting| *waiting == 0)
}

fn clean_up_keeps_what_is_needed(_: &Lab, world: &World) -> bool {
    (0..MESSAGES).all(|body| {
        let errors = world.stored(StoreType::Error, body);
        let logged = world.stored(StoreType::Log, body) > 0;
        let needed = errors > 0 || world.rows(body).any(|row| row.open()) || !world.record.expired[body];
        errors >= usize::from(world.record.waiting[body]) && (logged || !world.record.logged[body] || !needed)
    })
}

fn published_is_carried(_: &Lab, world: &World) -> bool {
    world.db.journal.iter().all(|row| {
        row.mode != Mode::Own
            || row.state != JournalState::Published
            || world.record.lost[usize::from(row.body)]
            || world.copies_of(row.tx) > 0
    })
}
