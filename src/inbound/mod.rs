mod settings;

pub use settings::{Accept, ApiSettings, DuplicateKey, InboundSettings, MessageLogSettings};
