//! What a transaction over several databases needs of them. PostgreSQL stands behind these in operation, a simulation in
//! a test.

use std::fmt::Display;

use async_trait::async_trait;

use super::gid::{Gid, Gtrid};
use super::protocol::Outcome;
use super::recovery::Owner;
use crate::model::{HomeId, Incarnation, TxId};

/// One participant's branch of an attempt: a transaction with work in it, in a database that is not the home.
#[async_trait]
pub trait Participant: Send {
    type Error: Display + Send;

    /// Which database, whatever it is called here: `<system identifier>/<database>`.
    fn place(&self) -> &str;

    /// What there is to commit; `None`: nothing. Fails when the transaction is broken.
    async fn wrote(&mut self) -> Result<Option<Mark>, Self::Error>;

    /// Ends a transaction in which nothing was written.
    async fn end(&mut self);

    /// Rolls back before any PREPARE; a connection that does not answer is closed.
    async fn roll_back(&mut self);

    /// PREPARE TRANSACTION.
    async fn prepare(&mut self, gid: &Gid) -> Prepared<Self::Error>;

    /// COMMIT PREPARED or ROLLBACK PREPARED, on a new session when the old one was lost, and then only once the old one
    /// is gone: a PREPARE in flight would come after it.
    async fn finish(&mut self, gid: &Gid, outcome: Outcome) -> Finished;
}

/// By what its database remembers a transaction, also when it is prepared no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub xid: u64,
    /// After a fail-over the same xid may be another transaction's.
    pub timeline: i64,
}

/// The answer to PREPARE TRANSACTION.
#[derive(Debug)]
pub enum Prepared<E> {
    Yes,
    /// Rolled back.
    Refused(E),
    /// Not answered.
    Unknown(E),
}

/// The answer to COMMIT PREPARED or ROLLBACK PREPARED.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    Done,
    /// There is no such gid. `first`: nothing was sent about it before, so it is a surprise.
    Missing {
        first: bool,
    },
    /// Later: unreachable, or somebody else is at it.
    NotYet(String),
}

/// The home's transaction of an attempt.
#[async_trait]
pub trait HomeTransaction: Send {
    type Error: Display + Send;

    /// One phase: COMMIT.
    async fn commit(&mut self) -> Decided<Self::Error>;

    /// The shared fence on this incarnation; then, as a statement of its own, that it is LIVE; the decision row; COMMIT.
    async fn decide(&mut self, decision: &Decision) -> Decided<Self::Error>;

    async fn roll_back(&mut self);
}

/// The answer to the home's COMMIT.
#[derive(Debug)]
pub enum Decided<E> {
    Yes,
    /// Rolled back: refused, fenced, or overtaken by an ABORT in the log.
    No(E),
    /// Not answered.
    Unknown(E),
}

/// A row of the decision log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub gtrid: Gtrid,
    pub incarnation: Incarnation,
    pub outcome: Outcome,
    /// The journal row that its branches are named after.
    pub tx_id: TxId,
    /// Those that shared the transaction with it.
    pub others: Vec<TxId>,
    pub branches: Vec<DecidedBranch>,
}

/// A branch that hangs on a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidedBranch {
    pub gid: Gid,
    /// As [`Participant::place`].
    pub place: String,
    pub mark: Mark,
}

/// The decision log in the home database, and who may still write to it.
#[async_trait]
pub trait DecisionLog: Send + Sync {
    type Error: Display + Send;

    /// Writes ABORT unless something stands there, and answers what stands there; for this incarnation's own
    /// transactions, under its shared fence. Fails once it is fenced: a COMMIT that others have finished and forgotten
    /// would look as if it had never been.
    async fn abort_unless_decided(
        &self,
        gtrid: Gtrid,
        incarnation: Incarnation,
        tx_id: TxId,
    ) -> Result<Outcome, Self::Error>;

    /// For each incarnation what its row says: `None` without a row. Read before the decisions.
    async fn owners(&self, incarnations: &[Incarnation]) -> Result<Vec<(Incarnation, Option<Owner>)>, Self::Error>;

    /// Enters incarnations of this home that have no row as FENCED.
    async fn enter_fenced(&self, incarnations: &[Incarnation]) -> Result<(), Self::Error>;

    /// What stands in the log for these.
    async fn outcomes(&self, gtrids: &[Gtrid]) -> Result<Vec<(Gtrid, Outcome)>, Self::Error>;

    /// All COMMIT rows.
    async fn committed(&self) -> Result<Vec<Decision>, Self::Error>;

    /// Removes rows; one that a crash brings back is removed again.
    async fn forget(&self, gtrids: &[Gtrid]) -> Result<(), Self::Error>;
}

/// A database that may hold prepared branches.
#[async_trait]
pub trait Database: Send + Sync {
    type Error: Display + Send;

    /// The `postgres` entry.
    fn name(&self) -> &str;

    /// As [`Participant::place`]; `None` while it was never reached.
    fn place(&self) -> Option<&str>;

    /// Everything of this home that is prepared here.
    async fn in_doubt(&self, home: HomeId) -> Result<Vec<InDoubt>, Self::Error>;

    async fn finish(&self, gid: &Gid, outcome: Outcome) -> Finished;

    /// Whether a branch that is prepared no longer was committed. `false`: rolled back by somebody, lost in a fail-over, or
    /// not remembered.
    async fn has_committed(&self, branch: &DecidedBranch) -> Result<bool, Self::Error>;
}

/// A prepared transaction that waits for its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InDoubt {
    pub gid: Gid,
    /// Since it was prepared, by its database's clock.
    pub age: std::time::Duration,
}
