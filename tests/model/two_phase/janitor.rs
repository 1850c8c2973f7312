//! A janitor's round, statement by statement, with the product's decisions in between.

use posthaste::txn::Branches;
use posthaste::txn::protocol::Outcome;
use posthaste::txn::recovery::{Move, Owner, forgettable, next};

use super::mutants::Mutant;
use super::servers::{Decision, Entry, Gid, Gtrid, Instance};
use super::world::{Lab, World};

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Janitor {
    pub instance: Instance,
    at: Stage,
    committed: Vec<Decision>,
    /// With what is to become of each.
    found: Vec<(Gid, Option<Move>)>,
    owners: Vec<(Instance, Entry)>,
    outcomes: Vec<(Gtrid, Outcome)>,
    in_doubt: Vec<Gid>,
    unreachable: Branches,
    gone: Vec<Gtrid>,
}

/// The next statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stage {
    Committed,
    Scan(u8),
    Owners,
    EnterFenced,
    Outcomes,
    Judge,
    Finish,
    OwnersOfCommitted,
    Forget,
}

/// How a statement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    Well,
    /// The database does not answer.
    Unanswered,
    /// It is done, and the answer is lost.
    InVain,
}

impl Janitor {
    pub fn new(lab: &Lab, instance: Instance) -> Self {
        let at = if lab.is(Mutant::CommittedAfterDatabases) { Stage::Scan(0) } else { Stage::Committed };
        let (owners, outcomes, in_doubt, gone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (committed, found, unreachable) = (Vec::new(), Vec::new(), Branches::NONE);
        Self { instance, at, committed, found, owners, outcomes, in_doubt, unreachable, gone }
    }

    pub fn ways(&self, world: &World) -> Vec<Way> {
        let in_vain = matches!(self.at, Stage::Finish);
        let lost = [(true, Way::Unanswered), (in_vain, Way::InVain)];
        let lost = lost.into_iter().filter(|(may, _)| *may && world.left.losses > 0).map(|(_, way)| way);
        [Way::Well].into_iter().chain(lost).collect()
    }

    fn owner_of(&self, lab: &Lab, world: &World, instance: Instance, gtrid: Gtrid) -> Owner {
        let runs = || {
            world.coordinators.iter().map(|one| world.servers.at(one.attempt)).any(|one| {
                one.instance == self.instance && one.gtrid == gtrid && !lab.is(Mutant::PresumesAbortOfItsOwn)
            })
        };
        match self.owners.iter().find(|(one, _)| *one == instance).map(|(_, entry)| *entry) {
            Some(Entry::Live) if instance == self.instance => Owner::Me { running: runs() },
            Some(Entry::Live) if lab.is(Mutant::NoFence) => Owner::Fenced,
            Some(Entry::Live) => Owner::Live,
            Some(Entry::Fenced) => Owner::Fenced,
            Some(Entry::Absent) if lab.is(Mutant::UnknownIsFenced) => Owner::Fenced,
            Some(Entry::Absent) | None => Owner::Unknown,
        }
    }

    fn undecided(&self) -> Option<Gid> {
        self.found.iter().find(|(_, chosen)| chosen.is_none()).map(|(gid, _)| *gid)
    }

    /// Whether its coordinator may be at work here.
    fn is_own(&self, gid: Gid) -> bool {
        gid.instance == self.instance && self.owners.contains(&(gid.instance, Entry::Live))
    }

    fn read_owners(&mut self, world: &World, instances: impl Iterator<Item = Instance>) {
        self.owners = instances.map(|one| (one, world.servers.entries[usize::from(one)])).collect();
        self.owners.sort_unstable();
        self.owners.dedup();
    }
}

/// Takes the next step of a round; `None`: it cannot.
pub fn step(lab: &Lab, world: &mut World, mut me: Janitor, way: Way) -> Option<()> {
    world.janitors.retain(|one| one.instance != me.instance);
    if way != Way::Well {
        world.left.losses -= 1;
        match me.at {
            Stage::Scan(at) => {
                me.unreachable = me.unreachable.with(at);
                me.at = after_scan(lab, at);
                return goes_on(lab, world, me);
            }
            Stage::Finish => {
                finish(world, &mut me, way);
                return goes_on(lab, world, me);
            }
            // The home does not answer: the round is over.
            _ => return Some(()),
        }
    }
    match me.at {
        Stage::Committed => {
            let commits = world.servers.decisions.iter().filter(|one| one.outcome == Outcome::Commit);
            me.committed = commits.copied().collect();
            me.at = if lab.is(Mutant::CommittedAfterDatabases) { Stage::Owners } else { Stage::Scan(0) };
        }
        Stage::Scan(at) => {
            let here = world.servers.prepared.iter().map(|(gid, _)| *gid).filter(|gid| gid.branch == at);
            me.found.extend(here.map(|gid| (gid, None)));
            me.at = after_scan(lab, at);
        }
        Stage::Owners => {
            let instances: Vec<Instance> = me.found.iter().map(|(gid, _)| gid.instance).collect();
            me.read_owners(world, instances.into_iter());
            let unknown = me.owners.iter().any(|(_, entry)| *entry == Entry::Absent);
            me.at = match () {
                () if unknown && !lab.is(Mutant::UnknownIsFenced) => Stage::EnterFenced,
                () if lab.is(Mutant::OutcomesBeforeOwners) => Stage::Judge,
                () => Stage::Outcomes,
            };
        }
        Stage::EnterFenced => {
            for (instance, _) in &me.owners {
                let entry = &mut world.servers.entries[usize::from(*instance)];
                *entry = if *entry == Entry::Absent { Entry::Fenced } else { *entry };
            }
            me.at = Stage::Owners;
        }
        Stage::Outcomes => {
            let asked = |one: &&Decision| me.found.iter().any(|(gid, _)| gid.gtrid == one.gtrid);
            let rows = world.servers.decisions.iter().filter(asked);
            me.outcomes = rows.map(|one| (one.gtrid, one.outcome)).collect();
            me.at = if lab.is(Mutant::OutcomesBeforeOwners) { Stage::Owners } else { Stage::Judge };
        }
        Stage::Judge => judge(lab, world, &mut me)?,
        Stage::Finish => finish(world, &mut me, way),
        Stage::OwnersOfCommitted => {
            let instances: Vec<Instance> = me.committed.iter().map(|one| one.instance).collect();
            me.read_owners(world, instances.into_iter());
            choose_gone(lab, world, &mut me);
        }
        Stage::Forget => {
            world.servers.decisions.retain(|one| one.outcome != Outcome::Commit || !me.gone.contains(&one.gtrid));
            return Some(());
        }
    }
    goes_on(lab, world, me)
}

fn after_scan(lab: &Lab, at: u8) -> Stage {
    match () {
        () if at + 1 < lab.scenario.branches => Stage::Scan(at + 1),
        () if lab.is(Mutant::CommittedAfterDatabases) => Stage::Committed,
        () if lab.is(Mutant::OutcomesBeforeOwners) => Stage::Outcomes,
        () => Stage::Owners,
    }
}

/// Passes over what needs no statement, and keeps nothing that is not needed any more.
fn goes_on(lab: &Lab, world: &mut World, mut me: Janitor) -> Option<()> {
    while me.at == Stage::Judge {
        match me.undecided() {
            None => me.at = Stage::Finish,
            // Nothing but what was read decides.
            Some(gid) if !me.is_own(gid) => judge(lab, world, &mut me)?,
            Some(_) => break,
        }
    }
    if me.at == Stage::Finish {
        let found = std::mem::take(&mut me.found);
        let (found, left): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(_, chosen)| matches!(chosen, Some(Move::Finish(_))));
        me.found = found;
        me.in_doubt.extend(left.into_iter().map(|(gid, _)| gid));
        (me.owners, me.outcomes) = (Vec::new(), Vec::new());
    }
    if me.found.is_empty() && !matches!(me.at, Stage::Committed | Stage::Scan(_) | Stage::Forget) {
        (me.at, me.outcomes) = (Stage::OwnersOfCommitted, Vec::new());
    }
    let committed = &me.committed;
    me.in_doubt.retain(|gid| committed.iter().any(|one| one.gtrid == gid.gtrid));
    if committed.is_empty() && !matches!(me.at, Stage::Committed | Stage::Scan(_)) {
        me.unreachable = Branches::NONE;
    }
    let own = world.forgotten.iter().any(|(instance, _)| *instance == me.instance);
    let over = match me.at {
        Stage::OwnersOfCommitted => me.committed.is_empty() && !own,
        Stage::Forget => me.gone.is_empty(),
        _ => false,
    };
    if !over {
        world.janitors.push(me);
    }
    Some(())
}

/// Decides about one transaction, with a tombstone if that is what it takes.
fn judge(lab: &Lab, world: &mut World, me: &mut Janitor) -> Option<()> {
    let gid = me.undecided()?;
    let owner = me.owner_of(lab, world, gid.instance, gid.gtrid);
    let outcome = me.outcomes.iter().find(|(one, _)| *one == gid.gtrid).map(|(_, outcome)| *outcome);
    let outcome = outcome.filter(|_| !lab.is(Mutant::RecoveryIgnoresTheLog));
    let mut chosen = next(owner, outcome);
    if chosen == Move::Tombstone && (lab.is(Mutant::NoTombstone) || lab.is(Mutant::PresumesAbortOfItsOwn)) {
        chosen = Move::Finish(Outcome::Abort);
    }
    if matches!(owner, Owner::Me { running: false }) && lab.is(Mutant::OrphansAreLeft) {
        chosen = Move::Leave;
    }
    if chosen == Move::Tombstone && !world.servers.key_is_held(gid.gtrid) {
        let live = world.servers.is_live(gid.instance);
        let stands = world.servers.abort_unless_decided(gid.gtrid, gid.instance, live);
        chosen = stands.map_or(Move::Tombstone, |outcome| next(owner, Some(outcome)));
    }
    for (_, its) in me.found.iter_mut().filter(|(one, _)| one.gtrid == gid.gtrid) {
        *its = Some(chosen);
    }
    Some(())
}

/// COMMIT PREPARED or ROLLBACK PREPARED of the next branch. That others were faster is fine.
fn finish(world: &mut World, me: &mut Janitor, way: Way) {
    let Some((gid, Some(Move::Finish(outcome)))) = me.found.first().copied() else { return };
    me.found.remove(0);
    if way != Way::Unanswered {
        world.servers.finish(gid, outcome);
    }
    if way != Way::Well {
        me.in_doubt.push(gid);
    }
}

/// Which decisions nobody needs any more: those that coordinators gave up, and those that this round saw so.
fn choose_gone(lab: &Lab, world: &mut World, me: &mut Janitor) {
    let (mine, others) = std::mem::take(&mut world.forgotten).into_iter().partition(|(one, _)| *one == me.instance);
    world.forgotten = others;
    let mine: Vec<(Instance, Gtrid)> = mine;
    me.gone = mine.into_iter().map(|(_, gtrid)| gtrid).collect();
    for decision in &me.committed {
        let all_gone = decision.branches.iter().all(|branch| {
            let asked = !me.unreachable.has(branch) || lab.is(Mutant::ForgetsUnasked);
            asked && !me.in_doubt.iter().any(|gid| gid.gtrid == decision.gtrid && gid.branch == branch)
        });
        let owner = me.owner_of(lab, world, decision.instance, decision.gtrid);
        if forgettable(owner, all_gone || lab.is(Mutant::ForgetsBeforeAllAreGone)) {
            me.gone.push(decision.gtrid);
        }
    }
    (me.owners, me.committed, me.in_doubt) = (Vec::new(), Vec::new(), Vec::new());
    me.at = Stage::Forget;
}
