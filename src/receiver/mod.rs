mod resend;
mod settings;

pub use resend::{Actor, ResendOutcome, Resender};
pub use settings::ReceiverSettings;
