//! Words that every module shares. No I/O, no async, no clock.

mod envelope;
mod epoch;
mod ids;
mod latencies;
mod outcome;
mod seldom;
pub mod text;

pub use envelope::{Envelope, Headers};
pub use epoch::Epoch;
pub use ids::{AdapterName, Destination, HomeId, IdError, Incarnation, MessageId, MessageKey, RootId, SlotId, TxId};
pub use latencies::{Counted, Latencies};
pub use outcome::{AdapterState, JournalState, Mode, StoreType, TransactionAttribute};
pub use seldom::Seldom;
