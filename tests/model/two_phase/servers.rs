//! The home and the databases beside it, reduced to what a transaction over several of them depends on. One function per
//! statement; sessions go on by themselves when their client is gone.

use posthaste::txn::Branches;
use posthaste::txn::invariants::{Observed, broken};
use posthaste::txn::protocol::Outcome;

/// One start of one process.
pub type Instance = u8;
/// An attempt, by number; its own coordinator is called the same.
pub type Attempt = u8;
/// The name of an attempt's transaction.
pub type Gtrid = u8;
/// Journal rows: a bit for each.
pub type Rows = u8;

pub const MOST_BRANCHES: usize = 3;

/// A row of `instance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    Absent,
    Live,
    Fenced,
}

/// The home's session of an attempt. Until its end it holds the locks of its journal rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Home {
    Open,
    /// It has asked for the shared fence. Only a mutant stops here: its snapshot is older than the lock.
    Asking,
    /// It holds the shared fence of its incarnation.
    Shared,
    /// The decision row is inserted and holds its key; COMMIT was sent.
    Sent,
    Committed,
    /// COMMIT was refused.
    Refused,
    /// Ended before COMMIT was sent.
    Gone,
    /// Ended after that, without a COMMIT.
    Cut,
}

/// The session of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    Open,
    /// PREPARE TRANSACTION was sent.
    Sent,
    Prepared,
    Refused,
    Gone,
}

/// An attempt as the servers have it, and what the observer saw of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempted {
    pub instance: Instance,
    pub gtrid: Gtrid,
    /// Whose work it does.
    pub rows: Rows,
    /// Those that its COMMIT makes DONE.
    pub done: Rows,
    pub home: Home,
    pub backends: [Backend; MOST_BRANCHES],
    pub seen: Observed,
    /// What its coordinator made of it.
    pub told: Option<Outcome>,
    /// What a mutant's old snapshot shows.
    pub saw_live: bool,
}

/// A row of `decision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Decision {
    pub gtrid: Gtrid,
    pub instance: Instance,
    pub outcome: Outcome,
    pub branches: Branches,
}

/// The name of a prepared branch; its number is its database's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gid {
    pub instance: Instance,
    pub gtrid: Gtrid,
    pub branch: u8,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Servers {
    pub entries: Vec<Entry>,
    pub attempts: Vec<Attempted>,
    pub decisions: Vec<Decision>,
    /// With the attempt whose work it is.
    pub prepared: Vec<(Gid, Attempt)>,
}

impl Servers {
    pub fn at(&self, attempt: Attempt) -> &Attempted {
        &self.attempts[usize::from(attempt)]
    }

    pub fn at_mut(&mut self, attempt: Attempt) -> &mut Attempted {
        &mut self.attempts[usize::from(attempt)]
    }

    pub fn numbers(&self) -> impl Iterator<Item = Attempt> + use<> {
        0..u8::try_from(self.attempts.len()).unwrap()
    }

    pub fn is_live(&self, instance: Instance) -> bool {
        self.entries[usize::from(instance)] == Entry::Live
    }

    pub fn locked(&self) -> Rows {
        self.attempts.iter().filter(|one| one.home.is_open()).fold(0, |rows, one| rows | one.rows)
    }

    pub fn done(&self) -> Rows {
        self.attempts.iter().filter(|one| one.home == Home::Committed).fold(0, |rows, one| rows | one.done)
    }

    pub fn outcome(&self, gtrid: Gtrid) -> Option<Outcome> {
        self.decisions.iter().find(|one| one.gtrid == gtrid).map(|one| one.outcome)
    }

    /// Whether the exclusive fence must wait.
    pub fn fence_is_shared(&self, instance: Instance) -> bool {
        self.attempts.iter().any(|one| one.instance == instance && one.home.holds_fence())
    }

    /// Whether an INSERT of this key must wait.
    pub fn key_is_held(&self, gtrid: Gtrid) -> bool {
        self.attempts.iter().any(|one| one.gtrid == gtrid && one.home == Home::Sent)
    }

    /// The observer sees what becomes of a row of the log.
    pub fn record(&mut self, decision: Decision) {
        self.decisions.push(decision);
        self.decisions.sort_unstable();
        for one in self.attempts.iter_mut().filter(|one| one.gtrid == decision.gtrid) {
            one.seen.decision = Some(decision.outcome);
        }
    }

    /// `/* abort_unless_decided */` and `/* outcomes */`, in one transaction.
    pub fn abort_unless_decided(&mut self, gtrid: Gtrid, instance: Instance, live: bool) -> Option<Outcome> {
        if self.outcome(gtrid).is_none() && live {
            self.record(Decision { gtrid, instance, outcome: Outcome::Abort, branches: Branches::NONE });
        }
        self.outcome(gtrid)
    }

    /// The home's COMMIT takes effect. `branches`: those that its decision row names.
    pub fn commit_home(&mut self, attempt: Attempt, branches: Branches) {
        let one = self.at_mut(attempt);
        one.home = Home::Committed;
        one.seen.home_committed = true;
        let Attempted { gtrid, instance, .. } = *one;
        if !branches.is_empty() {
            self.record(Decision { gtrid, instance, outcome: Outcome::Commit, branches });
        }
    }

    /// The home's session ends without a COMMIT.
    pub fn end_home(&mut self, attempt: Attempt) {
        let one = self.at_mut(attempt);
        one.home = if one.home == Home::Sent { Home::Cut } else { Home::Gone };
    }

    /// PREPARE TRANSACTION; a gid that is in use is refused.
    pub fn prepare(&mut self, attempt: Attempt, branch: u8) {
        let one = self.at(attempt);
        let gid = Gid { instance: one.instance, gtrid: one.gtrid, branch };
        if self.prepared.iter().any(|(other, _)| *other == gid) {
            return self.end_branch(attempt, branch, Backend::Refused);
        }
        self.at_mut(attempt).backends[usize::from(branch)] = Backend::Prepared;
        self.prepared.push((gid, attempt));
        self.prepared.sort_unstable();
    }

    /// What became of PREPARE, of which no more is to be heard.
    pub fn hear(&mut self, attempt: Attempt, branch: u8) -> Backend {
        let backend = &mut self.at_mut(attempt).backends[usize::from(branch)];
        let heard = *backend;
        *backend = if heard.is_open() { heard } else { Backend::Gone };
        heard
    }

    /// A branch loses its work before it was prepared.
    pub fn end_branch(&mut self, attempt: Attempt, branch: u8, end: Backend) {
        let one = self.at_mut(attempt);
        one.backends[usize::from(branch)] = end;
        one.seen.rolled_back = one.seen.rolled_back.with(branch);
    }

    /// COMMIT PREPARED or ROLLBACK PREPARED. `false`: there is no such gid.
    pub fn finish(&mut self, gid: Gid, outcome: Outcome) -> bool {
        let Some(at) = self.prepared.iter().position(|(one, _)| *one == gid) else { return false };
        let (_, attempt) = self.prepared.remove(at);
        let seen = &mut self.at_mut(attempt).seen;
        match outcome {
            Outcome::Commit => seen.committed = seen.committed.with(gid.branch),
            Outcome::Abort => seen.rolled_back = seen.rolled_back.with(gid.branch),
        }
        true
    }
}

impl Attempted {
    pub fn new(instance: Instance, gtrid: Gtrid, rows: Rows) -> Self {
        let (backends, seen) = ([Backend::Gone; MOST_BRANCHES], Observed::default());
        Self { instance, gtrid, rows, done: rows, home: Home::Open, backends, seen, told: None, saw_live: false }
    }

    /// Nothing can come of it any more, in any database.
    pub fn is_dead(&self) -> bool {
        let ended = !self.home.is_open() && self.home != Home::Committed;
        ended && !self.backends.iter().any(|one| one.is_open()) && broken(&self.seen).is_none()
    }
}

impl Home {
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Asking) || self.holds_fence()
    }

    fn holds_fence(self) -> bool {
        matches!(self, Self::Shared | Self::Sent)
    }
}

impl Backend {
    /// Whether it may still hold or prepare work that is not prepared.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Sent)
    }
}
