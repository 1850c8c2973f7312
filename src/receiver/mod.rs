//! Dequeuing: from a delivery to a committed attempt, a retry or the error store (protocol §5).

mod aside;
pub mod attempt;
pub mod fault;
mod gather;
mod group;
mod group_across;
mod lanes;
mod left;
mod pace;
mod process;
mod replay;
mod resend;
mod settings;
mod slot;
mod start;
mod supervisor;
mod together;
mod way;
mod worker;

pub use fault::Troubles;
pub use pace::Pace;
pub use process::{AttemptEnd, Processor};
pub use resend::{Actor, ResendOutcome, Resender};
pub use settings::ReceiverSettings;
pub use supervisor::{Receiver, supervise};
