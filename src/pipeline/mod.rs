mod registry;
mod settings;

pub use registry::{AdapterRegistry, AdapterStatus, Announced, CHANGE_BOUND, ChangeError, Wanted};
pub use settings::{
    AdapterSettings, AmqpSenderSettings, CallSettings, DEFAULT_TRANSACTION_TIMEOUT, Input, Param, QuerySettings,
    StepKind, StepSettings,
};
