pub mod problem;
mod settings;

pub use settings::{Accept, ApiSettings, DuplicateKey, InboundSettings, MessageLogSettings};
