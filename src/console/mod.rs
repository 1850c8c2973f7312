mod settings;

pub use settings::ConsoleSettings;
