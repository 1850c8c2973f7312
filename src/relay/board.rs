//! What is known of each destination: whether it was seen, whether it takes messages, how much is open for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::trouble::{Admission, Change, Health, News};
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
    /// Whether the broker takes messages for it; locked only while it is, or may be, in trouble.
    health: Mutex<Health>,
    in_trouble: AtomicBool,
}

/// A destination that takes no messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Troubled {
    /// For people: which destination, and why.
    pub what: String,
    pub since: Timestamp,
    /// New messages are refused.
    pub refuses: bool,
}

/// One entry per destination; written by the verifier, the sweeper and whoever publishes, read by whoever accepts.
#[derive(Debug)]
pub(super) struct Board {
    destinations: BTreeMap<Destination, Watched>,
    /// The same moment on both clocks: one measures, the other is shown.
    began: (Instant, Timestamp),
}

impl Board {
    pub fn of(destinations: impl Iterator<Item = Destination>) -> Self {
        let destinations = destinations.map(|destination| (destination, Watched::default())).collect();
        Self { destinations, began: (Instant::now(), Timestamp::now()) }
    }

    /// Whether the queue was seen since the last doubt; the text says why not.
    pub fn verified(&self, destination: &Destination) -> Result<(), String> {
        let watched = self.destinations.get(destination);
        if watched.is_some_and(|watched| watched.verified.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let trouble =
            watched.and_then(|watched| watched.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone());
        Err(trouble.map_or_else(|| format!("{destination} is not verified yet"), |text| text.to_string()))
    }

    /// The queue was seen, or why not.
    pub fn note(&self, destination: &Destination, answer: Result<(), String>) {
        let Some(watched) = self.destinations.get(destination) else { return };
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
        self.destinations.values().all(|watched| watched.verified.load(Ordering::Relaxed))
    }

    /// The queue is not where it was.
    pub fn doubt(&self, destination: &Destination) {
        if let Some(watched) = self.destinations.get(destination) {
            watched.verified.store(false, Ordering::Relaxed);
        }
    }

    /// What the broker's word on one message says of its destination. True: it takes messages again.
    pub fn hear(&self, destination: &Destination, news: News, connection: u64) -> bool {
        let Some(watched) = self.destinations.get(destination) else { return false };
        let well = match &news {
            News::Nothing => return false,
            News::Well => true,
            News::Trouble(_) => false,
        };
        if well && !watched.in_trouble.load(Ordering::Relaxed) {
            return false;
        }
        let reason = match &news {
            News::Trouble(cause) => cause.reason.to_string(),
            News::Well | News::Nothing => String::new(),
        };
        let change = {
            let mut health = watched.health();
            let change = health.hear(news, Instant::now(), connection);
            watched.in_trouble.store(!well, Ordering::Relaxed);
            change
        };
        match change {
            Some(Change::Began) => {
                tracing::warn!(destination = %destination, reason, "destination takes no messages; they wait");
            }
            Some(Change::Ended { after }) => {
                tracing::info!(destination = %destination, ?after, "destination takes messages again");
            }
            None => {}
        }
        gauge(destination, !well);
        well
    }

    /// Whether a message may go there now.
    pub fn admit(&self, destination: &Destination, connection: u64) -> Admission {
        match self.destinations.get(destination).filter(|watched| watched.in_trouble.load(Ordering::Relaxed)) {
            Some(watched) => watched.health().admit(Instant::now(), connection),
            None => Admission::All,
        }
    }

    /// The same, without taking the try; when none is left, how long until the next.
    pub fn would_admit(&self, destination: &Destination, connection: u64) -> Result<Admission, std::time::Duration> {
        match self.destinations.get(destination).filter(|watched| watched.in_trouble.load(Ordering::Relaxed)) {
            Some(watched) => watched.health().would_admit(Instant::now(), connection),
            None => Ok(Admission::All),
        }
    }

    /// The trouble that a destination is in. What is shown of it follows.
    pub fn troubled(&self, destination: &Destination, connection: u64) -> Option<Troubled> {
        let watched = self.destinations.get(destination)?;
        if !watched.in_trouble.load(Ordering::Relaxed) {
            return None;
        }
        let (health, now) = (watched.health(), Instant::now());
        let Some(trouble) = health.trouble(now, connection) else {
            gauge(destination, false);
            return None;
        };
        let (instant, timestamp) = self.began;
        let later = SignedDuration::try_from(trouble.since.saturating_duration_since(instant)).unwrap_or_default();
        let what = format!("{destination} takes no messages: {}", trouble.cause.reason);
        Some(Troubled { what, since: timestamp + later, refuses: trouble.refuses(now) })
    }

    /// Lets each figure begin at 0.
    pub fn begin(&self) {
        self.destinations.keys().for_each(|destination| gauge(destination, false));
    }

    pub fn open(&self, destination: &Destination) -> OpenCounts {
        let Some(watched) = self.destinations.get(destination) else { return OpenCounts::default() };
        OpenCounts {
            open: watched.open.load(Ordering::Relaxed),
            unpublished: watched.unpublished.load(Ordering::Relaxed),
            oldest_seconds: watched.oldest_seconds.load(Ordering::Relaxed),
        }
    }

    pub fn set_open(&self, destination: &Destination, counts: OpenCounts) {
        let Some(watched) = self.destinations.get(destination) else { return };
        watched.open.store(counts.open, Ordering::Relaxed);
        watched.unpublished.store(counts.unpublished, Ordering::Relaxed);
        watched.oldest_seconds.store(counts.oldest_seconds, Ordering::Relaxed);
    }
}

impl Watched {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gauge(destination: &Destination, in_trouble: bool) {
    let value = if in_trouble { 1.0 } else { 0.0 };
    metrics::gauge!("posthaste_destination_in_trouble", "destination" => destination.to_string()).set(value);
}
