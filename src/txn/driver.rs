//! The coordinator: performs what the protocol says, and tells it what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use super::branches::{Branches, MAX_BRANCHES};
use super::gid::{Gid, Gtrid};
use super::janitor::alarm;
use super::ports::{
    Decided, DecidedBranch, Decision, DecisionLog, Finished, HomeTransaction, Mark, Participant, Prepared,
};
use super::protocol::{Action, Actions, Event, Outcome, State};
use super::running::Coordinators;
use crate::model::{HomeId, Incarnation, TxId};

/// Between two tries to reach the decision log or a branch.
const AGAIN: Duration = Duration::from_millis(200);
/// Longest search for a decision, or for a branch that does not answer; the janitor goes on with it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who coordinates, and for which journal rows.
#[derive(Debug, Clone, Copy)]
pub struct Coordinator<'a> {
    pub home: HomeId,
    pub incarnation: Incarnation,
    /// The first of them, after which branches are named.
    pub tx_id: TxId,
    pub others: &'a [TxId],
    pub coordinators: &'a Coordinators,
}

/// Why nothing can be built on it.
#[derive(Debug)]
pub enum NotCommitted<E> {
    /// Nothing was done, in no database.
    RolledBack(E),
    /// The decision log tells, once it can be reached.
    Unknown(E),
    /// More databases than one transaction takes, or an answer that the protocol rules out.
    Defect(String),
}

/// Commits the home's transaction and those of its participants, all or none: in one phase when nothing but the home
/// wrote. Every participant has ended, or is left to the janitor.
///
/// # Errors
/// See [`NotCommitted`].
pub async fn commit<H, P, L>(
    coordinator: Coordinator<'_>,
    home: H,
    participants: Vec<P>,
    log: &L,
) -> Result<(), NotCommitted<H::Error>>
where
    H: HomeTransaction,
    P: Participant<Error = H::Error>,
    L: DecisionLog<Error = H::Error>,
{
    let gtrid = Gtrid::mint();
    let _at_work = (!participants.is_empty()).then(|| coordinator.coordinators.enter(gtrid));
    let idle = Branches::NONE;
    let mut run =
        Run { coordinator, gtrid, home, participants, log, idle, marks: BTreeMap::new(), error: None, outcome: None };
    match run.drive().await {
        Ok(()) => run.end_idle().await,
        Err(defect) => {
            run.roll_back_all().await;
            return Err(NotCommitted::Defect(defect));
        }
    }
    match (run.outcome, run.error) {
        (Some(Outcome::Commit), _) => Ok(()),
        (Some(Outcome::Abort), Some(error)) => Err(NotCommitted::RolledBack(error)),
        (None, Some(error)) => Err(NotCommitted::Unknown(error)),
        (outcome, None) => Err(NotCommitted::Defect(format!("ended as {outcome:?} for no reason"))),
    }
}

/// One commit under way.
struct Run<'a, H: HomeTransaction, P, L> {
    coordinator: Coordinator<'a>,
    gtrid: Gtrid,
    home: H,
    participants: Vec<P>,
    log: &'a L,
    /// Of those that have something to commit.
    marks: BTreeMap<u8, Mark>,
    /// They have nothing to commit.
    idle: Branches,
    /// The first thing that went wrong.
    error: Option<H::Error>,
    outcome: Option<Outcome>,
}

impl<H, P, L> Run<'_, H, P, L>
where
    H: HomeTransaction,
    P: Participant<Error = H::Error>,
    L: DecisionLog<Error = H::Error>,
{
    async fn drive(&mut self) -> Result<(), String> {
        if self.participants.len() > usize::from(MAX_BRANCHES) {
            return Err(format!("{} databases in one transaction, at most {MAX_BRANCHES}", self.participants.len()));
        }
        let first = self.worked().await;
        let (mut state, mut actions) = State::Working.step(first).map_err(|illegal| illegal.to_string())?;
        loop {
            let mut next = Actions::new();
            for action in actions {
                for event in self.perform(action).await {
                    let (after, more) = state.step(event).map_err(|illegal| illegal.to_string())?;
                    state = after;
                    next.extend(more);
                }
            }
            if let State::Ended { outcome, left } = state {
                self.outcome = outcome;
                self.leave(left);
                if next.is_empty() {
                    return Ok(());
                }
            } else if next.is_empty() {
                return Err(format!("nothing to do in {state:?}"));
            }
            actions = next;
        }
    }

    /// Asks every branch what it has to commit.
    async fn worked(&mut self) -> Event {
        let answers = join_all(self.participants.iter_mut().map(Participant::wrote)).await;
        let mut wrote = Branches::NONE;
        for (branch, answer) in (0..MAX_BRANCHES).zip(answers) {
            match answer {
                Ok(Some(mark)) => {
                    wrote = wrote.with(branch);
                    self.marks.insert(branch, mark);
                }
                Ok(None) => {}
                Err(error) => self.note(error),
            }
        }
        if self.error.is_some() {
            return Event::WorkFailed;
        }
        let idle: Vec<u8> = self.numbered().map(|(branch, _)| branch).filter(|branch| !wrote.has(*branch)).collect();
        self.idle = idle.into_iter().fold(Branches::NONE, Branches::with);
        Event::Worked { wrote }
    }

    /// Ends the branches that have nothing to commit: after the decision, since a NOTIFY of theirs is sent by it.
    async fn end_idle(&mut self) {
        let (idle, committed) = (self.idle, self.outcome == Some(Outcome::Commit));
        let idle = self.numbered().filter(|(branch, _)| idle.has(*branch));
        join_all(idle.map(
            async |(_, participant)| {
                if committed { participant.end().await } else { participant.roll_back().await }
            },
        ))
        .await;
    }

    async fn perform(&mut self, action: Action) -> Vec<Event> {
        match action {
            Action::Prepare(branches) => self.prepare(branches).await,
            Action::RollBackWork => {
                join_all(self.participants.iter_mut().map(Participant::roll_back)).await;
                Vec::new()
            }
            Action::RollBackHome => {
                self.home.roll_back().await;
                Vec::new()
            }
            Action::Decide(branches) => self.decide(branches).await,
            Action::AskTheLog => self.ask_the_log().await,
            Action::Commit(branches) => self.finish(branches, Outcome::Commit).await,
            Action::RollBack(branches) => self.finish(branches, Outcome::Abort).await,
            Action::Alert(branch) => {
                let (gid, place) = (self.gid(branch), self.participants.get(usize::from(branch)).map(P::place));
                if self.coordinator.coordinators.first_alarm(gid) {
                    alarm(&gid, place.unwrap_or_default());
                }
                Vec::new()
            }
            Action::Forget => {
                self.coordinator.coordinators.forget(self.gtrid);
                Vec::new()
            }
        }
    }

    async fn prepare(&mut self, branches: Branches) -> Vec<Event> {
        let gids: Vec<Gid> = branches.iter().map(|branch| self.gid(branch)).collect();
        let asked = self.numbered().filter(|(branch, _)| branches.has(*branch)).zip(gids);
        let answers =
            join_all(asked.map(async |((branch, participant), gid)| (branch, participant.prepare(&gid).await))).await;
        let mut events = Vec::new();
        for (branch, answer) in answers {
            events.push(match answer {
                Prepared::Yes => Event::Prepared(branch),
                Prepared::Refused(error) => {
                    self.note(error);
                    Event::PrepareRefused(branch)
                }
                Prepared::Unknown(error) => {
                    self.note(error);
                    Event::PrepareUnknown(branch)
                }
            });
        }
        events
    }

    async fn decide(&mut self, branches: Branches) -> Vec<Event> {
        let decided = if branches.is_empty() {
            self.home.commit().await
        } else {
            let decision = self.decision(branches);
            self.home.decide(&decision).await
        };
        match decided {
            Decided::Yes => vec![Event::Decided],
            Decided::No(error) => {
                self.note(error);
                vec![Event::DecisionRefused]
            }
            Decided::Unknown(error) => {
                self.note(error);
                vec![Event::DecisionUnknown]
            }
        }
    }

    async fn ask_the_log(&mut self) -> Vec<Event> {
        let Coordinator { incarnation, tx_id, .. } = self.coordinator;
        let begun = tokio::time::Instant::now();
        loop {
            match self.log.abort_unless_decided(self.gtrid, incarnation, tx_id).await {
                Ok(outcome) => return vec![Event::Read(outcome)],
                Err(error) if begun.elapsed() < PATIENCE => {
                    tracing::debug!(%error, "the decision log does not answer yet");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => {
                    tracing::warn!(%error, gtrid = %self.gtrid, "not known whether it was committed; its branches stay \
                        prepared until the home database answers");
                    return vec![Event::GaveUp];
                }
            }
        }
    }

    async fn finish(&mut self, branches: Branches, outcome: Outcome) -> Vec<Event> {
        let gids: Vec<Gid> = branches.iter().map(|branch| self.gid(branch)).collect();
        let asked = self.numbered().filter(|(branch, _)| branches.has(*branch)).zip(gids);
        let ends =
            join_all(asked.map(async |((branch, participant), gid)| {
                (branch, finish_patiently(participant, &gid, outcome).await)
            }))
            .await;
        let mut events = Vec::new();
        let mut gave_up = false;
        for (branch, end) in ends {
            match end {
                Finished::Done => events.push(Event::Finished(branch)),
                Finished::Missing { .. } if outcome == Outcome::Abort => events.push(Event::Finished(branch)),
                Finished::Missing { first: true } if self.still_mine().await => events.push(Event::Missing(branch)),
                // It may be committed, or lost in a fail-over: the janitor asks its database before it forgets.
                Finished::Missing { .. } => gave_up = true,
                Finished::NotYet(reason) => {
                    tracing::warn!(gid = %self.gid(branch), reason, "a prepared branch is left to the janitor");
                    gave_up = true;
                }
            }
        }
        if gave_up {
            events.push(Event::GaveUp);
        }
        events
    }

    /// Whether nobody else may have finished a branch of this incarnation. Not knowing is no alarm.
    async fn still_mine(&self) -> bool {
        let me = self.coordinator.incarnation;
        match self.log.owners(&[me]).await {
            Ok(owners) => owners.iter().any(|(one, owner)| *one == me && *owner == Some(super::recovery::Owner::Live)),
            Err(_error) => false,
        }
    }

    fn note(&mut self, error: H::Error) {
        self.error.get_or_insert(error);
    }

    fn leave(&self, left: Branches) {
        for branch in left.iter() {
            tracing::debug!(gid = %self.gid(branch), "left to the janitor");
        }
    }

    async fn roll_back_all(&mut self) {
        join_all(self.participants.iter_mut().map(Participant::roll_back)).await;
        self.home.roll_back().await;
    }

    fn numbered(&mut self) -> impl Iterator<Item = (u8, &mut P)> {
        (0..MAX_BRANCHES).zip(self.participants.iter_mut())
    }

    fn gid(&self, branch: u8) -> Gid {
        let Coordinator { home, incarnation, tx_id, .. } = self.coordinator;
        Gid { home, incarnation, gtrid: self.gtrid, branch, tx_id }
    }

    fn decision(&self, branches: Branches) -> Decision {
        let Coordinator { incarnation, tx_id, others, .. } = self.coordinator;
        let named = (0..MAX_BRANCHES).zip(&self.participants).filter(|(branch, _)| branches.has(*branch));
        let branches = named.filter_map(|(branch, one)| {
            let mark = *self.marks.get(&branch)?;
            Some(DecidedBranch { gid: self.gid(branch), place: one.place().to_owned(), mark })
        });
        let (others, branches) = (others.to_vec(), branches.collect());
        Decision { gtrid: self.gtrid, incarnation, outcome: Outcome::Commit, tx_id, others, branches }
    }
}

async fn finish_patiently<P: Participant>(participant: &mut P, gid: &Gid, outcome: Outcome) -> Finished {
    let tries = async {
        loop {
            match participant.finish(gid, outcome).await {
                Finished::NotYet(reason) => {
                    tracing::debug!(%gid, reason, "not finished yet");
                    tokio::time::sleep(AGAIN).await;
                }
                end => return end,
            }
        }
    };
    match tokio::time::timeout(PATIENCE, tries).await {
        Ok(end) => end,
        Err(_elapsed) => Finished::NotYet(format!("not within {PATIENCE:?}")),
    }
}
