//! Dequeuing: from a delivery to a committed attempt, a retry or the error store (protocol §5).

mod aside;
mod at_work;
pub mod attempt;
pub mod fault;
mod gather;
mod group;
mod group_across;
mod intake;
mod lanes;
mod left;
mod pace;
mod prefetch;
mod process;
mod replay;
mod resend;
mod settings;
mod share;
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
pub use share::InAdvance;
pub use supervisor::{Receiver, supervise};
