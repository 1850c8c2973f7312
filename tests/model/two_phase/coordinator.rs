//! A coordinator: the product's state machine, performed step by step as its driver does it.

use posthaste::txn::Branches;
use posthaste::txn::protocol::{Action as Do, Event, Outcome, State};

use super::mutants::Mutant;
use super::rules::Rule;
use super::servers::{Attempt, Attempted, Backend, Decision, Gid, Home};
use super::world::{Lab, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Coordinator {
    pub attempt: Attempt,
    pub state: State,
    /// Branches that were asked to end before.
    asked: Branches,
    /// What is still open is to be rolled back.
    roll_back: bool,
}

/// The next thing that happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Its steps are through, or one has failed.
    Worked,
    WorkFailed,
    /// The answer to PREPARE arrives.
    Hears(u8),
    /// It does not.
    Misses(u8),
    /// The home's next statement, or the answer to its COMMIT.
    Decides,
    /// No answer to COMMIT.
    MissesDecision,
    Asks,
    /// The log's answer is lost; it asks again.
    AsksInVain,
    Finishes(u8),
    /// Done, and the answer is lost: it tries again.
    FinishesInVain(u8),
    GivesUp,
    RollsBack,
}

impl Step {
    /// Nothing goes wrong in it.
    pub fn is_ordinary(self) -> bool {
        match self {
            Self::Worked | Self::Hears(_) | Self::Decides | Self::Asks | Self::Finishes(_) | Self::RollsBack => true,
            Self::WorkFailed | Self::Misses(_) | Self::MissesDecision | Self::AsksInVain => false,
            Self::FinishesInVain(_) | Self::GivesUp => false,
        }
    }
}

impl Coordinator {
    pub fn new(attempt: Attempt) -> Self {
        Self { attempt, state: State::Working, asked: Branches::NONE, roll_back: false }
    }

    /// Whether the session of the home is still in its hands.
    pub fn holds_home(self) -> bool {
        self.roll_back || matches!(self.state, State::Working | State::Preparing { .. } | State::Deciding { .. })
    }

    pub fn holds_branch(self, branch: u8) -> bool {
        match self.state {
            State::Working => true,
            State::Preparing { waiting, .. } => waiting.has(branch),
            _ => self.roll_back,
        }
    }

    pub fn steps(self, world: &World) -> Vec<Step> {
        let (losses, refusals) = (world.left.losses > 0, world.left.refusals > 0);
        let perhaps = |step: Step, may: bool| may.then_some(step);
        match self.state {
            State::Working => [Some(Step::Worked), perhaps(Step::WorkFailed, refusals)].into_iter().flatten().collect(),
            State::Preparing { waiting, .. } => {
                let both = |branch| [Some(Step::Hears(branch)), perhaps(Step::Misses(branch), losses)];
                waiting.iter().flat_map(both).flatten().collect()
            }
            State::Deciding { .. } => {
                [Some(Step::Decides), perhaps(Step::MissesDecision, losses)].into_iter().flatten().collect()
            }
            State::Unsure { .. } => {
                let lost = [perhaps(Step::AsksInVain, losses), perhaps(Step::GivesUp, losses)];
                [Some(Step::Asks)].into_iter().chain(lost).flatten().collect()
            }
            State::Finishing { left, .. } => {
                let both = |branch| [Some(Step::Finishes(branch)), perhaps(Step::FinishesInVain(branch), losses)];
                left.iter().flat_map(both).chain([perhaps(Step::GivesUp, losses)]).flatten().collect()
            }
            State::Ended { .. } => vec![Step::RollsBack],
        }
    }
}

/// Takes a step; `None`: not now.
pub fn step(lab: &Lab, world: &mut World, mut me: Coordinator, step: Step) -> Option<()> {
    let attempt = me.attempt;
    let event = match step {
        Step::Worked => Event::Worked { wrote: lab.scenario.wrote() },
        Step::WorkFailed => {
            world.left.refusals -= 1;
            Event::WorkFailed
        }
        Step::Hears(branch) => match world.servers.hear(attempt, branch) {
            Backend::Prepared => Event::Prepared(branch),
            Backend::Refused => Event::PrepareRefused(branch),
            Backend::Gone => Event::PrepareUnknown(branch),
            Backend::Open | Backend::Sent => return None,
        },
        Step::Misses(branch) => {
            world.left.losses -= 1;
            world.servers.hear(attempt, branch);
            Event::PrepareUnknown(branch)
        }
        Step::Decides => match decide(lab, world, &me)? {
            Some(event) => event,
            None => return Some(()),
        },
        Step::MissesDecision => {
            let sent = matches!(world.servers.at(attempt).home, Home::Sent | Home::Committed);
            world.left.losses = world.left.losses.checked_sub(u8::from(sent))?;
            sent.then_some(Event::DecisionUnknown)?
        }
        Step::Asks => match ask(lab, world, attempt)? {
            Some(event) => event,
            None => return Some(()),
        },
        Step::AsksInVain => {
            world.left.losses -= 1;
            let _lost = ask(lab, world, attempt)?;
            return Some(());
        }
        Step::Finishes(branch) => match finish(lab, world, &mut me, branch)? {
            Some(event) => event,
            None => return keep(world, me),
        },
        Step::FinishesInVain(branch) => {
            world.left.losses -= 1;
            let _lost = finish(lab, world, &mut me, branch)?;
            return keep(world, me);
        }
        Step::GivesUp => {
            world.left.losses -= 1;
            Event::GaveUp
        }
        Step::RollsBack => {
            roll_back(world, attempt);
            me.roll_back = false;
            return end(world, me);
        }
    };
    hear(lab, world, me, event)
}

fn keep(world: &mut World, me: Coordinator) -> Option<()> {
    world.coordinators.retain(|one| one.attempt != me.attempt);
    world.coordinators.push(me);
    world.coordinators.sort_unstable();
    Some(())
}

/// Tells the state machine, and begins what it wants done.
fn hear(lab: &Lab, world: &mut World, mut me: Coordinator, event: Event) -> Option<()> {
    let event = match event {
        Event::PrepareUnknown(branch) if lab.is(Mutant::UnsureIsUnprepared) => Event::PrepareRefused(branch),
        event => event,
    };
    let Ok((state, actions)) = me.state.step(event) else {
        world.broken.get_or_insert(Rule::Legal);
        return Some(());
    };
    me.state = hasty(lab, state);
    for action in actions {
        match action {
            Do::Prepare(branches) => {
                for branch in branches.iter() {
                    world.servers.at_mut(me.attempt).backends[usize::from(branch)] = Backend::Sent;
                }
            }
            Do::RollBackWork | Do::RollBackHome => me.roll_back = true,
            // Its state says so too.
            Do::Decide(_) | Do::AskTheLog | Do::Commit(_) | Do::RollBack(_) => {}
            Do::Alert(_) => {
                world.broken.get_or_insert(Rule::Alert);
            }
            Do::Forget => forget(world, me.attempt),
        }
    }
    if let State::Ended { left, .. } = me.state
        && lab.is(Mutant::ForgetsWhatIsLeft)
        && !left.is_empty()
    {
        forget(world, me.attempt);
    }
    end(world, me)
}

/// For its own janitor.
fn forget(world: &mut World, attempt: Attempt) {
    let Attempted { instance, gtrid, .. } = *world.servers.at(attempt);
    world.forgotten.push((instance, gtrid));
    world.forgotten.sort_unstable();
}

/// A mutant decides once somebody is prepared.
fn hasty(lab: &Lab, state: State) -> State {
    match state {
        State::Preparing { waiting, prepared, failed: false, .. }
            if lab.is(Mutant::CommitsBeforeAllPrepared) && !prepared.is_empty() =>
        {
            State::Deciding { branches: prepared.and(waiting) }
        }
        state => state,
    }
}

/// Goes on, or leaves with what it has learnt.
fn end(world: &mut World, me: Coordinator) -> Option<()> {
    let State::Ended { outcome, left } = me.state else { return keep(world, me) };
    if me.roll_back {
        return keep(world, me);
    }
    world.coordinators.retain(|one| one.attempt != me.attempt);
    let one = world.servers.at_mut(me.attempt);
    one.told = outcome;
    if outcome.is_some_and(|outcome| (outcome == Outcome::Commit) != one.seen.home_committed) {
        world.broken.get_or_insert(Rule::Told);
    }
    let mut behind = (0_u8..).zip(one.backends).filter(|(_, backend)| *backend == Backend::Sent);
    let sent = behind.any(|(branch, _)| !left.has(branch));
    let prepared = world.servers.prepared.iter().any(|(gid, whose)| *whose == me.attempt && !left.has(gid.branch));
    if sent || prepared {
        world.broken.get_or_insert(Rule::Left);
    }
    Some(())
}

fn roll_back(world: &mut World, attempt: Attempt) {
    let one = world.servers.at(attempt);
    let (home, backends) = (one.home, one.backends);
    if home.is_open() {
        world.servers.end_home(attempt);
    }
    for (branch, _) in (0..).zip(backends).filter(|(_, backend)| *backend == Backend::Open) {
        world.servers.end_branch(attempt, branch, Backend::Gone);
    }
}

/// The shared fence, the decision row, COMMIT, and its answer: one after the other. `None`: it waits; `Some(None)`: a
/// statement was done, and another follows.
fn decide(lab: &Lab, world: &mut World, me: &Coordinator) -> Option<Option<Event>> {
    let State::Deciding { branches } = me.state else { return None };
    let live = world.servers.is_live(world.servers.at(me.attempt).instance);
    let one = world.servers.at_mut(me.attempt);
    match one.home {
        Home::Open if branches.is_empty() => one.home = Home::Sent,
        Home::Open if lab.is(Mutant::FenceInOneStatement) => (one.home, one.saw_live) = (Home::Asking, live),
        Home::Open | Home::Asking => one.home = Home::Shared,
        Home::Shared => {
            let old_snapshot = lab.is(Mutant::FenceInOneStatement) || lab.is(Mutant::FenceUnderRepeatableRead);
            let live = if old_snapshot { one.saw_live } else { live || lab.is(Mutant::DecidesFenced) };
            let gtrid = one.gtrid;
            if world.servers.key_is_held(gtrid) {
                return None;
            }
            if !live || world.servers.outcome(gtrid).is_some() {
                world.servers.end_home(me.attempt);
                return Some(Some(Event::DecisionRefused));
            }
            world.servers.at_mut(me.attempt).home = Home::Sent;
        }
        Home::Sent => return None,
        Home::Committed => {
            if lab.is(Mutant::DecisionAfterCommit) {
                let (gtrid, instance) = (one.gtrid, one.instance);
                world.servers.record(Decision { gtrid, instance, outcome: Outcome::Commit, branches });
            }
            return Some(Some(Event::Decided));
        }
        Home::Refused => return Some(Some(Event::DecisionRefused)),
        Home::Gone if !branches.is_empty() => return Some(Some(Event::DecisionRefused)),
        Home::Gone | Home::Cut => return Some(Some(Event::DecisionUnknown)),
    }
    Some(None)
}

/// Writes ABORT under the shared fence while LIVE, and reads what stands there; it waits for a COMMIT on its way.
fn ask(lab: &Lab, world: &mut World, attempt: Attempt) -> Option<Option<Event>> {
    let one = world.servers.at(attempt);
    let (gtrid, instance, saw_live) = (one.gtrid, one.instance, one.saw_live);
    let live = world.servers.is_live(instance);
    if lab.is(Mutant::UnsurePresumesAbort) {
        return Some(Some(Event::Read(world.servers.outcome(gtrid).unwrap_or(Outcome::Abort))));
    }
    if lab.is(Mutant::AsksWithoutSharedFence) && live && !saw_live {
        world.servers.at_mut(attempt).saw_live = true;
        return Some(None);
    }
    if world.servers.key_is_held(gtrid) && !lab.is(Mutant::KeyIsNotUnique) {
        return None;
    }
    let live = live || saw_live || lab.is(Mutant::FencedAsksTheLog);
    let read = world.servers.abort_unless_decided(gtrid, instance, live);
    // Fenced, and nothing stands there: no answer as long as it asks.
    Some(Some(read.map_or(Event::GaveUp, Event::Read)))
}

/// COMMIT PREPARED or ROLLBACK PREPARED, once the old session can prepare nothing more.
fn finish(lab: &Lab, world: &mut World, me: &mut Coordinator, branch: u8) -> Option<Option<Event>> {
    let State::Finishing { outcome, .. } = me.state else { return None };
    let one = world.servers.at(me.attempt);
    let gid = Gid { instance: one.instance, gtrid: one.gtrid, branch };
    if one.backends[usize::from(branch)].is_open() && !lab.is(Mutant::OldSessionIsLeft) {
        world.servers.end_branch(me.attempt, branch, Backend::Gone);
        return Some(None);
    }
    let first = outcome == Outcome::Commit && !me.asked.has(branch);
    me.asked = me.asked.with(branch);
    if world.servers.finish(gid, outcome) || outcome == Outcome::Abort {
        return Some(Some(Event::Finished(branch)));
    }
    // Whoever has fenced this incarnation has finished it; the janitor looks whether it was committed.
    let mine = world.servers.is_live(gid.instance) || lab.is(Mutant::AlertsThoughFenced);
    Some(Some(if first && mine { Event::Missing(branch) } else { Event::GaveUp }))
}
