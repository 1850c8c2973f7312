//! What became of each adapter's messages lately, and how long they took: for whoever looks from outside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::recent::{Failing, Recent};
use crate::model::{AdapterName, Latencies};

/// Of one adapter.
#[derive(Debug)]
pub struct Outcomes {
    adapter: AdapterName,
    /// How long messages took that went through.
    pub took: Latencies,
    recent: Mutex<Recent>,
    /// Whether messages fail, or may: `recent` is locked only then.
    failing: AtomicBool,
}

impl Outcomes {
    fn of(adapter: AdapterName) -> Self {
        Self { adapter, took: Latencies::default(), recent: Mutex::default(), failing: AtomicBool::new(false) }
    }

    /// A message went through. `took`: `None` where that is not known.
    pub fn done(&self, took: Option<Duration>) {
        if let Some(took) = took {
            self.took.note(took);
        }
        self.well();
    }

    /// Messages go through.
    pub fn well(&self) {
        if !self.failing.load(Ordering::Relaxed) {
            return;
        }
        let after = {
            let mut recent = self.lock();
            self.failing.store(false, Ordering::Relaxed);
            recent.well(Instant::now())
        };
        if let Some(after) = after {
            tracing::info!(adapter = %self.adapter, ?after, "an adapter's messages go through again");
        }
    }

    /// A message has failed by a server's fault. `size`: of its body, in bytes.
    pub fn failed(&self, reason: String, size: usize) {
        let mut recent = self.lock();
        recent.failed(reason, size, (Instant::now(), Timestamp::now()));
        self.failing.store(true, Ordering::Relaxed);
    }

    /// A try has failed as messages do.
    pub fn still_failing(&self) {
        self.lock().still(Instant::now());
    }

    /// Whether to try out now whether messages still fail, and with how many bytes. Whoever is answered so tries.
    pub fn take_try(&self) -> Option<usize> {
        self.failing.load(Ordering::Relaxed).then(|| self.lock().take_try(Instant::now()))?
    }

    /// Why messages fail, and since when.
    #[must_use]
    pub fn failing(&self) -> Option<Failing> {
        self.failing.load(Ordering::Relaxed).then(|| self.lock().failing(Instant::now()).cloned())?
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nobody's: nobody sees them.
impl Default for Outcomes {
    fn default() -> Self {
        Self::of(AdapterName::new(""))
    }
}

/// Of all adapters. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AllOutcomes(Arc<BTreeMap<AdapterName, Arc<Outcomes>>>);

impl AllOutcomes {
    #[must_use]
    pub fn new(adapters: impl Iterator<Item = AdapterName>) -> Self {
        Self(Arc::new(adapters.map(|name| (name.clone(), Arc::new(Outcomes::of(name)))).collect()))
    }

    /// Of one that is not among them: nobody sees them.
    #[must_use]
    pub fn of(&self, adapter: &AdapterName) -> Arc<Outcomes> {
        self.0.get(adapter).cloned().unwrap_or_else(|| Arc::new(Outcomes::of(adapter.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_has_its_own_outcomes_and_whoever_asks_sees_the_same() {
        let [one, other] = ["one", "other"].map(AdapterName::new);
        let all = AllOutcomes::new([one.clone(), other.clone()].into_iter());
        all.of(&one).failed("no space".to_owned(), 3);
        assert_eq!(all.of(&one).failing().unwrap().reason, "no space");
        assert_eq!(all.of(&other).failing(), None);
        all.of(&other).done(None);
        assert!(all.of(&one).failing().is_some(), "another's success says nothing");
        all.of(&one).done(Some(Duration::ZERO));
        assert_eq!(all.of(&one).failing(), None);
        assert_eq!((all.of(&one).took.counted().all, all.of(&other).took.counted().all), (1, 0));
    }
}
