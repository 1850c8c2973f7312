//! What happens to a message: adapters, their steps, and who is started.
//!
//! Deliberately not here: opening transactions, and what follows a failure; whoever received the message does that.

mod outcomes;
mod pipe;
mod pipes;
mod plan;
mod reach;
mod recent;
mod registry;
mod runner;
mod settings;
mod transaction;

pub use outcomes::{AllOutcomes, Outcomes};
pub use pipe::{FailureKind, Pipe, Planned, StepFailure, Trouble, Work};
pub use plan::{PlannedStep, Planning};
pub use reach::Reach;
pub use recent::Failing;
pub use registry::{AdapterRegistry, AdapterStatus, Announced, CHANGE_BOUND, ChangeError, Changing, Wanted};
pub use runner::Pipelines;
pub use settings::{
    AdapterSettings, AmqpSenderSettings, CallSettings, DEFAULT_TRANSACTION_TIMEOUT, Input, Param, QuerySettings,
    StepKind, StepSettings,
};
pub use transaction::{Committed, Engine, NotCommitted, Transaction};
