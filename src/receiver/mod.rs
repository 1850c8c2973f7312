mod settings;

pub use settings::ReceiverSettings;
