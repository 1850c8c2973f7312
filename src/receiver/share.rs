//! What all receivers of a process may ask for in advance, together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::broker::Held;

/// Bytes of bodies.
const BYTES: usize = 32 << 20;

/// One for a process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct InAdvance(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    receivers: AtomicUsize,
    bytes: AtomicUsize,
    held: Held,
}

/// One receiver's part, until it is dropped.
#[derive(Debug)]
pub struct Share {
    all: InAdvance,
    mine: usize,
}

impl InAdvance {
    /// A receiver that has asked for nothing.
    #[must_use]
    pub fn join(&self) -> Share {
        self.0.receivers.fetch_add(1, Ordering::Relaxed);
        Share { all: self.clone(), mine: 0 }
    }
}

impl Share {
    /// Bytes that this receiver may ask for: what others leave, and an equal part in any case.
    #[must_use]
    pub fn room(&self) -> usize {
        let Asked { receivers, bytes, .. } = &*self.all.0;
        let others = bytes.load(Ordering::Relaxed).saturating_sub(self.mine);
        BYTES.saturating_sub(others).max(BYTES / receivers.load(Ordering::Relaxed).max(1))
    }

    /// What all receivers hold, asked for or not.
    #[must_use]
    pub fn held(&self) -> Held {
        self.all.0.held.clone()
    }

    /// It asks for so many from now on.
    pub fn ask(&mut self, bytes: usize) {
        let Asked { bytes: all, .. } = &*self.all.0;
        all.fetch_add(bytes, Ordering::Relaxed);
        all.fetch_sub(self.mine, Ordering::Relaxed);
        self.mine = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.ask(0);
        self.all.0.receivers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_may_ask_for_all_and_who_comes_later_for_an_equal_part() {
        let all = InAdvance::default();
        let mut first = all.join();
        assert_eq!(first.room(), BYTES);
        first.ask(BYTES);
        assert_eq!(first.room(), BYTES);
        let mut second = all.join();
        assert_eq!(second.room(), BYTES / 2);
        second.ask(BYTES / 2);
        // The first notices with its next delivery.
        assert_eq!(first.room(), BYTES / 2);
        drop(second);
        assert_eq!(first.room(), BYTES);
    }

    #[test]
    fn receivers_of_small_messages_leave_nearly_all() {
        let all = InAdvance::default();
        let mut small: Vec<Share> = (0..7).map(|_| all.join()).collect();
        small.iter_mut().for_each(|share| share.ask(1000));
        assert_eq!(all.join().room(), BYTES - 7000);
    }
}
