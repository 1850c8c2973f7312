//! Dequeuing: from a delivery to a committed attempt, a retry or the error store (protocol §5).

pub mod attempt;
mod process;
mod resend;
mod settings;
mod supervisor;
mod worker;

pub use process::{AttemptEnd, Processor};
pub use resend::{Actor, ResendOutcome, Resender};
pub use settings::ReceiverSettings;
pub use supervisor::{Receiver, supervise};
