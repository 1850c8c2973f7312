mod settings;

pub use settings::{
    AdapterSettings, AmqpSenderSettings, CallSettings, DEFAULT_TRANSACTION_TIMEOUT, Input, Param, QuerySettings,
    StepKind, StepSettings,
};
