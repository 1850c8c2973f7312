mod settings;

pub use settings::{PostgresSettings, SessionTimeouts};
