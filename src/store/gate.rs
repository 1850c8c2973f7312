//! Whether the home database has lately left somebody without an answer: then nothing new is sent there to be accepted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::StoreError;

/// Shut by an answer that did not come, opened by a write that was begun later and went through. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    shut: AtomicU64,
    /// So many of those are past.
    past: AtomicU64,
    /// When it was shut last while it was open.
    since: Mutex<Option<Timestamp>>,
}

/// A moment, to be kept from before a write until its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(u64);

impl Gate {
    pub fn shut(&self) {
        let mut since = self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_none() || self.is_open() {
            *since = Some(Timestamp::now());
        }
        self.0.shut.fetch_add(1, Ordering::AcqRel);
    }

    fn is_open(&self) -> bool {
        self.0.shut.load(Ordering::Acquire) <= self.0.past.load(Ordering::Acquire)
    }

    /// Since when it is shut, if it is.
    #[must_use]
    pub fn shut_since(&self) -> Option<Timestamp> {
        let since = *self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.filter(|_| !self.is_open())
    }

    /// To be taken before the write is sent that may open it.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment(self.0.shut.load(Ordering::Acquire))
    }

    /// A synchronous write went through that was begun at this moment.
    pub fn open(&self, begun: Moment) {
        self.0.past.fetch_max(begun.0, Ordering::AcqRel);
    }

    /// Why nothing is sent there now.
    pub fn pass(&self) -> Result<(), StoreError> {
        if !self.is_open() {
            return Err(StoreError::Unreachable("it has lately left a write without an answer".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_did_not_come_shuts_it_and_a_later_write_opens_it() {
        let gate = Gate::default();
        assert!(gate.pass().is_ok());
        let before = gate.moment();
        gate.shut();
        assert!(gate.pass().is_err());
        gate.open(before);
        assert!(gate.pass().is_err(), "that write was begun before");
        gate.open(gate.moment());
        assert!(gate.pass().is_ok());
        gate.open(before);
        assert!(gate.pass().is_ok());
    }

    #[test]
    fn it_is_shut_since_the_first_answer_that_did_not_come_and_since_a_later_one_when_it_was_open_meanwhile() {
        let gate = Gate::default();
        assert_eq!(gate.shut_since(), None);
        let before = gate.moment();
        gate.shut();
        let first = gate.shut_since().unwrap();
        gate.shut();
        gate.open(before);
        assert_eq!(gate.shut_since(), Some(first));
        gate.open(gate.moment());
        assert_eq!(gate.shut_since(), None);
        gate.shut();
        assert!(gate.shut_since().unwrap() >= first);
    }
}
