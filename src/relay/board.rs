//! What is known of each destination: whether it was seen, what is wrong with it, how much is open for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Destination;

/// Open rows of one destination, as last counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenCounts {
    pub open: u64,
    pub unpublished: u64,
    pub oldest_seconds: u64,
}

#[derive(Debug, Default)]
struct Watched {
    verified: AtomicBool,
    open: AtomicU64,
    unpublished: AtomicU64,
    oldest_seconds: AtomicU64,
    trouble: Mutex<Option<Arc<str>>>,
}

/// One entry per destination; written by the verifier and the sweeper, read by whoever accepts.
#[derive(Debug)]
pub(super) struct Board(BTreeMap<Destination, Watched>);

impl Board {
    pub fn of(destinations: impl Iterator<Item = Destination>) -> Self {
        Self(destinations.map(|destination| (destination, Watched::default())).collect())
    }

    /// Whether the queue was seen since the last doubt; the text says why not.
    pub fn verified(&self, destination: &Destination) -> Result<(), String> {
        let watched = self.0.get(destination);
        if watched.is_some_and(|watched| watched.verified.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let trouble =
            watched.and_then(|watched| watched.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone());
        Err(trouble.map_or_else(|| format!("{destination} is not verified yet"), |text| text.to_string()))
    }

    /// The queue was seen, or why not.
    pub fn note(&self, destination: &Destination, answer: Result<(), String>) {
        let Some(watched) = self.0.get(destination) else { return };
        watched.verified.store(answer.is_ok(), Ordering::Relaxed);
        let mut trouble = watched.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(text) = &answer
            && trouble.as_deref() != Some(text.as_str())
        {
            tracing::warn!(destination = %destination, reason = %text, "destination cannot be used");
        }
        *trouble = answer.err().map(Into::into);
    }

    pub fn all_verified(&self) -> bool {
        self.0.values().all(|watched| watched.verified.load(Ordering::Relaxed))
    }

    /// Something is not where it was.
    pub fn doubt_all(&self) {
        for watched in self.0.values() {
            watched.verified.store(false, Ordering::Relaxed);
        }
    }

    pub fn open(&self, destination: &Destination) -> OpenCounts {
        let Some(watched) = self.0.get(destination) else { return OpenCounts::default() };
        OpenCounts {
            open: watched.open.load(Ordering::Relaxed),
            unpublished: watched.unpublished.load(Ordering::Relaxed),
            oldest_seconds: watched.oldest_seconds.load(Ordering::Relaxed),
        }
    }

    pub fn set_open(&self, destination: &Destination, counts: OpenCounts) {
        let Some(watched) = self.0.get(destination) else { return };
        watched.open.store(counts.open, Ordering::Relaxed);
        watched.unpublished.store(counts.unpublished, Ordering::Relaxed);
        watched.oldest_seconds.store(counts.oldest_seconds, Ordering::Relaxed);
    }
}
