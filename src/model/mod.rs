//! Words that every module shares. No I/O, no async, no clock.

mod envelope;
mod epoch;
mod ids;
mod outcome;
pub mod text;

pub use envelope::{Envelope, Headers};
pub use epoch::Epoch;
pub use ids::{AdapterName, Destination, HomeId, IdError, Incarnation, MessageId, MessageKey, RootId, SlotId, TxId};
pub use outcome::{AdapterState, JournalState, Mode, StoreType, TransactionAttribute};
