//! What a coordinator does next: pure (protocol §6). One machine per attempt that wrote to several databases.

use super::branches::Branches;

/// The two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    Commit,
    Abort,
}

/// Where a coordinator stands. `Ended` is the only end; whatever is in `left` there is the janitor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Steps run in open transactions.
    Working,
    /// PREPARE TRANSACTION was sent to `waiting`; `unsure` did not answer.
    Preparing { waiting: Branches, prepared: Branches, unsure: Branches, failed: bool },
    /// The home's COMMIT was sent, with the decision in it unless `branches` is empty.
    Deciding { branches: Branches },
    /// The home's COMMIT was not answered: only the decision log can tell.
    Unsure { branches: Branches },
    /// The outcome stands; `left` have not heard of it.
    Finishing { outcome: Outcome, left: Branches, hazard: bool },
    /// `None`: not known here; whoever reads the decision log later knows.
    Ended { outcome: Option<Outcome>, left: Branches },
}

/// What was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// The steps are through. `wrote`: branches that have something to commit; every branch answered a probe.
    Worked {
        wrote: Branches,
    },
    /// A step, a probe or the time-out failed: nothing was prepared.
    WorkFailed,
    Prepared(u8),
    /// PostgreSQL said no: the branch is rolled back.
    PrepareRefused(u8),
    /// No answer: it may be prepared, or may become so.
    PrepareUnknown(u8),
    /// The home's COMMIT was confirmed.
    Decided,
    /// The home was rolled back: fenced, refused, or its session was alive and said so.
    DecisionRefused,
    /// The home's COMMIT was not answered.
    DecisionUnknown,
    /// What the decision log holds, after an ABORT was written there unless something stood there already.
    Read(Outcome),
    /// The branch has heard of the outcome.
    Finished(u8),
    /// The branch does not know its gid, although nobody else should have finished it.
    Missing(u8),
    /// Nothing more is tried here.
    GaveUp,
}

/// What is to be done now. An empty set is never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// PREPARE TRANSACTION, in parallel.
    Prepare(Branches),
    /// Roll back the open transactions, of branches that were not prepared too.
    RollBackWork,
    /// Fence, decision row unless the set is empty, COMMIT of the home.
    Decide(Branches),
    /// Roll back the home's transaction.
    RollBackHome,
    /// Write ABORT into the decision log unless something stands there, and read it.
    AskTheLog,
    /// COMMIT PREPARED.
    Commit(Branches),
    /// ROLLBACK PREPARED; of an unsure branch once its session is gone.
    RollBack(Branches),
    /// A branch was finished by somebody unknown: an operator must look (MD9).
    Alert(u8),
    /// All branches are gone: the decision row is not needed any more.
    Forget,
}

/// An event that cannot happen in this state: a defect of the caller, reported and never acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen in {state:?}")]
pub struct Illegal {
    pub state: State,
    pub event: Event,
}

/// At most four actions, in the order in which they are to begin.
pub type Actions = Vec<Action>;

impl State {
    /// The next state and what to do.
    ///
    /// # Errors
    /// `Illegal`: nothing changes; whoever asked stops and leaves the rest to the janitor.
    pub fn step(self, event: Event) -> Result<(Self, Actions), Illegal> {
        let illegal = Illegal { state: self, event };
        match (self, event) {
            (Self::Working, Event::Worked { wrote }) => Ok(worked(wrote)),
            (Self::Working, Event::WorkFailed) => {
                Ok((ended(Some(Outcome::Abort), Branches::NONE), vec![Action::RollBackWork, Action::RollBackHome]))
            }
            (Self::Preparing { waiting, prepared, unsure, failed }, event) => {
                let (prepared, unsure, failed, branch) = match event {
                    Event::Prepared(branch) => (prepared.with(branch), unsure, failed, branch),
                    Event::PrepareRefused(branch) => (prepared, unsure, true, branch),
                    Event::PrepareUnknown(branch) => (prepared, unsure.with(branch), true, branch),
                    _ => return Err(illegal),
                };
                if !waiting.has(branch) {
                    return Err(illegal);
                }
                Ok(answered(waiting.without(branch), prepared, unsure, failed))
            }
            (Self::Deciding { branches }, event) => decided(branches, event).ok_or(illegal),
            (Self::Unsure { branches }, event) => read(branches, event).ok_or(illegal),
            (Self::Finishing { outcome, left, hazard }, event) => finished(outcome, left, hazard, event).ok_or(illegal),
            (Self::Working | Self::Ended { .. }, _) => Err(illegal),
        }
    }
}

const fn ended(outcome: Option<Outcome>, left: Branches) -> State {
    State::Ended { outcome, left }
}

/// Nothing but the home wrote: one phase.
fn worked(wrote: Branches) -> (State, Actions) {
    if wrote.is_empty() {
        return (State::Deciding { branches: wrote }, vec![Action::Decide(wrote)]);
    }
    let state = State::Preparing { waiting: wrote, prepared: Branches::NONE, unsure: Branches::NONE, failed: false };
    (state, vec![Action::Prepare(wrote)])
}

/// Decides only when every branch is prepared; presumes abort otherwise, once every branch has answered or cannot.
fn answered(waiting: Branches, prepared: Branches, unsure: Branches, failed: bool) -> (State, Actions) {
    if !waiting.is_empty() {
        return (State::Preparing { waiting, prepared, unsure, failed }, Vec::new());
    }
    if !failed {
        return (State::Deciding { branches: prepared }, vec![Action::Decide(prepared)]);
    }
    let (state, mut actions) = finish(Outcome::Abort, prepared.and(unsure));
    actions.push(Action::RollBackHome);
    (state, actions)
}

fn finish(outcome: Outcome, left: Branches) -> (State, Actions) {
    if left.is_empty() {
        return (ended(Some(outcome), left), Vec::new());
    }
    let action = match outcome {
        Outcome::Commit => Action::Commit(left),
        Outcome::Abort => Action::RollBack(left),
    };
    (State::Finishing { outcome, left, hazard: false }, vec![action])
}

fn decided(branches: Branches, event: Event) -> Option<(State, Actions)> {
    match event {
        Event::Decided => Some(finish(Outcome::Commit, branches)),
        Event::DecisionRefused => Some(finish(Outcome::Abort, branches)),
        // One phase: no branch hangs on it; the next start, which locks the row, tells (DQ2).
        Event::DecisionUnknown if branches.is_empty() => Some((ended(None, branches), Vec::new())),
        Event::DecisionUnknown => Some((State::Unsure { branches }, vec![Action::AskTheLog])),
        _ => None,
    }
}

fn read(branches: Branches, event: Event) -> Option<(State, Actions)> {
    match event {
        Event::Read(outcome) => Some(finish(outcome, branches)),
        Event::DecisionUnknown => Some((State::Unsure { branches }, vec![Action::AskTheLog])),
        Event::GaveUp => Some((ended(None, branches), Vec::new())),
        _ => None,
    }
}

fn finished(outcome: Outcome, left: Branches, hazard: bool, event: Event) -> Option<(State, Actions)> {
    let (branch, missing) = match event {
        Event::Finished(branch) => (branch, false),
        Event::Missing(branch) => (branch, outcome == Outcome::Commit),
        Event::GaveUp => return Some((ended(Some(outcome), left), Vec::new())),
        _ => return None,
    };
    if !left.has(branch) {
        return None;
    }
    let (left, hazard) = (left.without(branch), hazard || missing);
    let mut actions = if missing { vec![Action::Alert(branch)] } else { Vec::new() };
    if !left.is_empty() {
        return Some((State::Finishing { outcome, left, hazard }, actions));
    }
    // With a hazard the row stays as evidence.
    if outcome == Outcome::Commit && !hazard {
        actions.push(Action::Forget);
    }
    Some((ended(Some(outcome), left), actions))
}

#[cfg(test)]
mod tests;
