//! What a step is to the runner.

use async_trait::async_trait;
use bytes::Bytes;

use super::{AdapterRegistry, Planning, Transaction};
use crate::model::{AdapterName, Envelope};
use crate::store::{Outgoing, Store, StoreError};

/// One kind of step. A test or a user may bring another.
#[async_trait]
pub trait Pipe: Send + Sync {
    /// Reads `input` and answers the payload that it leaves, `None` for the one that stood there; all within the
    /// caller's transaction.
    async fn run(&self, input: Bytes, work: &mut Work<'_>) -> Result<Option<Bytes>, StepFailure>;

    /// Adds to the plan all that `run` would send, in this order, without any I/O. Only where none of it depends on what
    /// a database answers: then messages may share a transaction.
    fn plan<'p>(&'p self, input: Bytes, planning: &mut Planning<'p>) -> Planned {
        let _alone = (input, planning);
        Planned::No
    }
}

/// Whether a step's work is known beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// Only a run can tell.
    No,
    /// It is in the plan, and leaves this payload; `None` for the one that stood there.
    Leaves(Option<Bytes>),
}

/// What a pipeline works with during one attempt.
pub struct Work<'a> {
    pub store: &'a Store,
    pub transaction: &'a mut Transaction,
    pub registry: &'a AdapterRegistry,
    pub pipelines: &'a super::Pipelines,
    /// The message as the receiver got it.
    pub envelope: &'a Envelope,
    /// What this adapter was given.
    pub original: Bytes,
    /// Journal rows inserted so far, with their payloads: to be published after the commit.
    pub sent: Vec<(Outgoing, Bytes)>,
    /// Adapters entered on the way here, outermost first.
    pub chain: Vec<AdapterName>,
    pub mint: &'a (dyn Fn() -> crate::model::TxId + Send + Sync),
}

/// Why a step failed, and where. Its text goes into the error store's comments; it quotes no payload of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step} of {chain}: {reason}")]
pub struct StepFailure {
    pub step: String,
    /// `outer > inner`.
    pub chain: String,
    pub reason: String,
    /// The same for whoever may not see what the installation is like inside.
    pub public: String,
    pub kind: FailureKind,
}

/// What a failure says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The message or its circumstances: counts as an attempt.
    Step,
    /// The data itself (SQLSTATE 22, 23, a payload that no parameter takes): trying again will not help by itself.
    Permanent,
    /// What a database that is in trouble answers, or one that cannot be reached. A step may raise the same by itself.
    Infrastructure(Trouble),
    /// Perhaps a plan that the session had kept: only a new session tells whether it is the message.
    StalePlan,
}

/// In which way a database failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// There was no connection, or it was lost.
    Lost,
    /// It refused with an SQLSTATE of this class.
    Class([u8; 2]),
}

impl Trouble {
    fn of(error: &StoreError) -> Self {
        match error.sqlstate().map(str::as_bytes) {
            Some(&[first, second, ..]) => Self::Class([first, second]),
            Some(_) | None => Self::Lost,
        }
    }
}

impl FailureKind {
    /// In a session that has kept none.
    pub(super) fn without_plans(self) -> Self {
        match self {
            Self::StalePlan => Self::Step,
            Self::Step | Self::Permanent | Self::Infrastructure(_) => self,
        }
    }

    /// Whether the class of an SQLSTATE blames the data.
    #[must_use]
    pub fn of(error: &StoreError) -> Self {
        if error.is_infrastructure() {
            return Self::Infrastructure(Trouble::of(error));
        }
        if error.may_be_stale_plan() {
            return Self::StalePlan;
        }
        match error.sqlstate().and_then(|sqlstate| sqlstate.get(..2)) {
            Some("22" | "23") => Self::Permanent,
            Some(_) | None => Self::Step,
        }
    }
}
