//! What must hold of a transaction over several databases: the product's own judgement of every attempt, and more.

use posthaste::txn::invariants::{Broken, broken};
use posthaste::txn::protocol::Outcome;
use stateright::Property;

use super::super::harness;
use super::servers::{Attempted, Home, Rows};
use super::world::{Action, Budget, Lab, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// I6: all databases or none.
    Torn,
    /// I5: no branch without the home.
    Phantom,
    /// I1: no home without its branches.
    Lost,
    /// The decision log says what the home's transaction came to.
    Misrecorded,
    /// I1: one attempt at most commits the work of a row.
    Once,
    /// What a coordinator learns is so, and remains so (I2).
    Told,
    /// What a coordinator does not leave to the janitor is not prepared, and will not be.
    Left,
    /// Nobody is called when nothing but this system has touched its transactions.
    Alert,
    /// The state machine is told nothing that it rules out.
    Legal,
    /// At the quiet end each row is done once in every database, nothing is prepared, and no COMMIT stands in the log;
    /// and that end is always reached. Asked of a sample of states, because cycles hide an end that is never reached.
    Settles,
}

impl Rule {
    pub const ALL: &[Self] = &[
        Self::Torn,
        Self::Phantom,
        Self::Lost,
        Self::Misrecorded,
        Self::Once,
        Self::Told,
        Self::Left,
        Self::Alert,
        Self::Legal,
        Self::Settles,
    ];

    pub fn property(self) -> Property<Lab> {
        let (name, holds): (&str, fn(&Lab, &World) -> bool) = match self {
            Self::Torn => ("I6: all databases or none", |_, world| !world.is(Broken::Torn)),
            Self::Phantom => ("I5: no branch without the home", |_, world| !world.is(Broken::Phantom)),
            Self::Lost => ("I1: no home without its branches", |_, world| !world.is(Broken::Lost)),
            Self::Misrecorded => ("the decision log is true", |_, world| !world.is(Broken::Misrecorded)),
            Self::Once => ("I1: one attempt commits", commits_once),
            Self::Told => ("what a coordinator learns is so", is_told_right),
            Self::Left => ("nothing is left in silence", |_, world| world.broken != Some(Self::Left)),
            Self::Alert => ("no false alert", |_, world| world.broken != Some(Self::Alert)),
            Self::Legal => ("no illegal event", |_, world| world.broken != Some(Self::Legal)),
            Self::Settles => ("everything comes to its end", settles),
        };
        Property::always(name, holds)
    }
}

impl World {
    /// Whether some attempt is broken so.
    fn is(&self, so: Broken) -> bool {
        self.servers.attempts.iter().any(|one| broken(&one.seen) == Some(so))
    }
}

fn commits_once(lab: &Lab, world: &World) -> bool {
    let committed = |row: Rows| {
        let its = world.servers.attempts.iter().filter(|one| one.home == Home::Committed);
        its.filter(|one| one.rows & row != 0).count()
    };
    rows_of(lab).all(|row| committed(row) <= 1)
}

/// Each by itself.
fn rows_of(lab: &Lab) -> impl Iterator<Item = Rows> + use<> {
    (0..lab.scenario.rows).map(|number| 1 << number)
}

fn is_told_right(_: &Lab, world: &World) -> bool {
    let so = |one: &Attempted| one.told != Some(Outcome::Abort) || !one.seen.home_committed;
    world.broken != Some(Rule::Told) && world.servers.attempts.iter().all(so)
}

/// Nobody is at work, and nothing is left to be done.
pub fn is_over(lab: &Lab, world: &World) -> bool {
    let servers = &world.servers;
    let nobody = world.coordinators.is_empty() && world.janitors.is_empty() && world.silent().next().is_none();
    let sessions =
        servers.attempts.iter().any(|one| one.home.is_open() || one.backends.iter().any(|one| one.is_open()));
    let decided = servers.decisions.iter().any(|one| one.outcome == Outcome::Commit);
    let done = servers.done() == lab.scenario.all_rows();
    nobody && done && !sessions && servers.prepared.is_empty() && !decided
}

/// In the home and in every other database.
pub fn is_done_once(lab: &Lab, world: &World) -> bool {
    rows_of(lab).all(|row| {
        let done = || world.servers.attempts.iter().filter(|one| one.rows & row != 0);
        let mut branches = lab.scenario.wrote().iter();
        done().filter(|one| one.seen.home_committed).count() == 1
            && branches.all(|branch| done().filter(|one| one.seen.committed.has(branch)).count() == 1)
    })
}

fn settles(lab: &Lab, world: &World) -> bool {
    if is_over(lab, world) {
        return is_done_once(lab, world);
    }
    let calm = World { left: Budget { attempts: world.left.attempts, ..Budget::default() }, ..world.clone() };
    harness::comes_to_its_end(lab, world, calm, |world| is_over(lab, world), Action::is_ordinary)
}
