mod settings;

pub use settings::{AmqpSettings, QueueSettings};
