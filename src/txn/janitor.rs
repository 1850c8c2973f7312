//! Recovery: finishes what coordinators have left behind, at start and then on a timer, on every instance
//! (protocol §6). Any number of them may be at it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;

use super::gid::{Gid, Gtrid};
use super::ports::{Database, DecidedBranch, Decision, DecisionLog, Finished, InDoubt};
use super::protocol::Outcome;
use super::recovery::{Move, Owner, forgettable, next};
use super::running::Coordinators;
use crate::model::{HomeId, Incarnation};

/// Whose rounds these are.
#[derive(Debug, Clone)]
pub struct Janitor {
    pub home: HomeId,
    pub incarnation: Incarnation,
    pub coordinators: Coordinators,
}

/// What one round found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// Still in doubt at its end, with the database.
    pub in_doubt: Vec<(String, InDoubt)>,
    pub committed: Vec<Gid>,
    pub rolled_back: u64,
    /// Decisions removed.
    pub forgotten: u64,
    /// Branches that were to be committed and are prepared no longer, with the database, which cannot show that they were
    /// committed: an operator must look (MD9).
    pub lost: Vec<(String, Gid)>,
    /// Databases that could not be asked, with the reason: what they hold stays as it is.
    pub unreachable: Vec<(String, String)>,
}

impl Janitor {
    /// One round over all databases. Databases that cannot be reached are left for the next.
    ///
    /// # Errors
    /// The home database did not answer: nothing more was touched.
    pub async fn round<D, L>(&self, databases: &[D], log: &L) -> Result<Round, L::Error>
    where
        D: Database,
        L: DecisionLog,
    {
        let mut round = Round::default();
        // Read first: a decision that is not committed yet is not in this list, so its branches may be asked for later.
        let committed = log.committed().await?;
        let mut found: Vec<(&D, InDoubt)> = Vec::new();
        let asked = databases.iter().map(|database| tokio::time::timeout(ANSWER, database.in_doubt(self.home)));
        for (database, answer) in databases.iter().zip(join_all(asked).await) {
            let reason = match answer {
                Ok(Ok(those)) => {
                    found.extend(those.into_iter().map(|one| (database, one)));
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_elapsed) => silent(),
            };
            round.unreachable.push((database.name().to_owned(), reason));
        }
        let ours: Vec<&InDoubt> = found.iter().map(|(_, one)| one).collect();
        let moves = self.moves(&ours, log).await?;
        // One database that is slow to answer does not hold up the others.
        let parts = databases.iter().map(|database| {
            let here = found.iter().filter(|(place, _)| place.name() == database.name());
            finish_all(database, here.map(|(_, one)| one), &moves)
        });
        for part in join_all(parts).await {
            round.committed.extend(part.committed);
            round.rolled_back += part.rolled_back;
            round.in_doubt.extend(part.in_doubt);
        }
        // Two entries may lead to one database, and one of them may be allowed more.
        let mut told: BTreeSet<Gid> = round.committed.iter().copied().collect();
        round.in_doubt.retain(|(_, one)| told.insert(one.gid));
        self.forget(&committed, &mut round, databases, log).await?;
        Ok(round)
    }

    /// What to do about each transaction; owners are read before decisions.
    async fn moves<L: DecisionLog>(&self, those: &[&InDoubt], log: &L) -> Result<BTreeMap<Gtrid, Move>, L::Error> {
        let mut owners = self.owners(those.iter().map(|one| one.gid.incarnation).collect(), log).await?;
        let unknown: Vec<Incarnation> =
            owners.iter().filter(|(_, owner)| **owner == Owner::Unknown).map(|(incarnation, _)| *incarnation).collect();
        if !unknown.is_empty() {
            log.enter_fenced(&unknown).await?;
            owners.extend(self.owners(unknown.into_iter().collect(), log).await?);
        }
        let gtrids: BTreeSet<Gtrid> = those.iter().map(|one| one.gid.gtrid).collect();
        let gtrids: Vec<Gtrid> = gtrids.into_iter().collect();
        let outcomes: BTreeMap<Gtrid, Outcome> = log.outcomes(&gtrids).await?.into_iter().collect();
        let mut moves = BTreeMap::new();
        for InDoubt { gid, age } in those {
            let owner = match self.owner_of(gid.incarnation, gid.gtrid, &owners) {
                Owner::Live if *age > T_RECOVER => Owner::Overdue,
                owner => owner,
            };
            let mut decided = next(owner, outcomes.get(&gid.gtrid).copied());
            if decided == Move::Tombstone {
                let outcome = log.abort_unless_decided(gid.gtrid, gid.incarnation, gid.tx_id).await;
                // It waits for a COMMIT on its way; the next round asks again.
                decided = outcome.map_or(Move::Tombstone, |outcome| next(owner, Some(outcome)));
            }
            moves.insert(gid.gtrid, decided);
        }
        Ok(moves)
    }

    async fn owners<L: DecisionLog>(
        &self,
        incarnations: BTreeSet<Incarnation>,
        log: &L,
    ) -> Result<BTreeMap<Incarnation, Owner>, L::Error> {
        let incarnations: Vec<Incarnation> = incarnations.into_iter().collect();
        if incarnations.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = log.owners(&incarnations).await?;
        Ok(rows.into_iter().map(|(incarnation, owner)| (incarnation, owner.unwrap_or(Owner::Unknown))).collect())
    }

    /// A fenced one of ours is recovered like any other: by then it decides nothing.
    fn owner_of(&self, incarnation: Incarnation, gtrid: Gtrid, owners: &BTreeMap<Incarnation, Owner>) -> Owner {
        match owners.get(&incarnation) {
            Some(Owner::Live) if incarnation == self.incarnation => {
                Owner::Me { running: self.coordinators.runs(gtrid) }
            }
            Some(owner) => *owner,
            None => Owner::Unknown,
        }
    }

    /// Removes decisions whose branches are all committed: those that coordinators gave up, and those that this round saw
    /// so. "Not prepared" alone proves nothing: a fail-over may have lost a branch, or somebody rolled it back.
    async fn forget<D, L>(
        &self,
        committed: &[Decision],
        round: &mut Round,
        databases: &[D],
        log: &L,
    ) -> Result<(), L::Error>
    where
        D: Database,
        L: DecisionLog,
    {
        let owners = self.owners(committed.iter().map(|decision| decision.incarnation).collect(), log).await?;
        let mut gone = self.coordinators.take_forgotten();
        for decision in committed.iter().filter(|decision| !gone.contains(&decision.gtrid)).collect::<Vec<_>>() {
            let owner = self.owner_of(decision.incarnation, decision.gtrid, &owners);
            if !forgettable(owner, true) {
                continue;
            }
            let mut all_committed = true;
            for branch in &decision.branches {
                match self.end_of(branch, round, databases).await {
                    BranchEnd::Committed => continue,
                    BranchEnd::Open => {}
                    BranchEnd::Nowhere => {
                        let place = (branch.place.clone(), "no postgres entry leads there".to_owned());
                        if !round.unreachable.contains(&place) {
                            round.unreachable.push(place);
                        }
                    }
                    BranchEnd::Lost(database) => {
                        if self.coordinators.first_alarm(branch.gid) {
                            alarm(&branch.gid, &database);
                        }
                        round.lost.push((database, branch.gid));
                    }
                }
                all_committed = false;
            }
            if forgettable(owner, all_committed) {
                gone.push(decision.gtrid);
            }
        }
        if !gone.is_empty() {
            log.forget(&gone).await?;
        }
        round.forgotten = u64::try_from(gone.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    async fn end_of<D: Database>(&self, branch: &DecidedBranch, round: &Round, databases: &[D]) -> BranchEnd {
        if round.committed.contains(&branch.gid) {
            return BranchEnd::Committed;
        }
        if round.in_doubt.iter().any(|(_, one)| one.gid == branch.gid) {
            return BranchEnd::Open;
        }
        let Some(database) = databases.iter().find(|database| database.place() == Some(&branch.place)) else {
            // One that was not reached yet may be it.
            let all_known = databases.iter().all(|database| database.place().is_some());
            return if all_known { BranchEnd::Nowhere } else { BranchEnd::Open };
        };
        if round.unreachable.iter().any(|(name, _)| name == database.name()) {
            return BranchEnd::Open;
        }
        match tokio::time::timeout(ANSWER, database.has_committed(branch)).await {
            Ok(Ok(true)) => BranchEnd::Committed,
            Ok(Ok(false)) => BranchEnd::Lost(database.name().to_owned()),
            Ok(Err(_)) | Err(_) => BranchEnd::Open,
        }
    }
}

/// What became of a branch that was to be committed.
enum BranchEnd {
    Committed,
    /// Still prepared, or nobody knows now.
    Open,
    /// It was in a database that the configuration does not name any more.
    Nowhere,
    /// In this database.
    Lost(String),
}

/// A branch that was decided upon is gone, and nothing shows that its work was done.
pub(super) fn alarm(gid: &Gid, database: &str) {
    metrics::counter!("posthaste_heuristic_total").increment(1);
    tracing::error!(%gid, database, "a prepared transaction of ours was finished by somebody else, or lost: look there, \
        put right what is missing, then acknowledge it with `posthaste txn resolve <gid> commit --force`");
}

/// What is prepared in one database, one after the other.
async fn finish_all<D: Database>(
    database: &D,
    those: impl Iterator<Item = &InDoubt>,
    moves: &BTreeMap<Gtrid, Move>,
) -> Round {
    let mut round = Round::default();
    for one in those {
        let end = match moves.get(&one.gid.gtrid) {
            Some(Move::Finish(outcome)) => (*outcome, finish(database, &one.gid, *outcome).await),
            Some(Move::Leave | Move::Fence | Move::Tombstone) | None => {
                round.in_doubt.push((database.name().to_owned(), one.clone()));
                continue;
            }
        };
        match end {
            (Outcome::Commit, Finished::Done) => round.committed.push(one.gid),
            (Outcome::Abort, Finished::Done) => round.rolled_back += 1,
            // Another node, or its own coordinator, was faster.
            (_, Finished::Missing { .. }) => {}
            (_, Finished::NotYet(_)) => round.in_doubt.push((database.name().to_owned(), one.clone())),
        }
    }
    round
}

async fn finish<D: Database>(database: &D, gid: &Gid, outcome: Outcome) -> Finished {
    let end = tokio::time::timeout(ANSWER, database.finish(gid, outcome)).await;
    let end = end.unwrap_or_else(|_elapsed| Finished::NotYet(silent()));
    match &end {
        Finished::Done => {
            tracing::warn!(%gid, database = database.name(), ?outcome, "recovered a prepared transaction")
        }
        Finished::Missing { .. } => {}
        Finished::NotYet(reason) => {
            tracing::warn!(%gid, database = database.name(), reason, "a prepared transaction cannot be finished yet");
        }
    }
    end
}

/// Longest time that a transaction may be in doubt while the home database is up (I6).
pub const T_RECOVER: Duration = Duration::from_secs(15);
/// Longest wait for one answer of a database: one that hangs must not hold up the others, and is asked again.
const ANSWER: Duration = Duration::from_secs(5);

fn silent() -> String {
    format!("no answer within {ANSWER:?}")
}

/// Between two rounds.
pub const ROUND: Duration = Duration::from_secs(1);
