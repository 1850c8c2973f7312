//! What happens to a message: adapters, their steps, and who is started.
//!
//! Deliberately not here: transactions are opened and ended by whoever received the message.

mod pipe;
mod pipes;
mod registry;
mod runner;
mod settings;

pub use pipe::{FailureKind, Pipe, StepFailure, Work};
pub use registry::{AdapterRegistry, AdapterStatus, Announced, CHANGE_BOUND, ChangeError, Changing, Wanted};
pub use runner::Pipelines;
pub use settings::{
    AdapterSettings, AmqpSenderSettings, CallSettings, DEFAULT_TRANSACTION_TIMEOUT, Input, Param, QuerySettings,
    StepKind, StepSettings,
};
