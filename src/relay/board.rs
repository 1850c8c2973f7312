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
    unseen: Mutex<Unseen>,
    /// Whether the broker takes messages for it; locked only while it is, or may be, in trouble.
    health: Mutex<Health>,
    in_trouble: AtomicBool,
}

/// A queue that was not seen, or is in doubt.
#[derive(Debug)]
struct Unseen {
    since: Timestamp,
    why: Option<Arc<str>>,
}

impl Default for Unseen {
    fn default() -> Self {
        Self { since: Timestamp::now(), why: None }
    }
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

    /// Whether the queue was seen since the last doubt, or why not, and since when.
    pub fn verified(&self, destination: &Destination) -> Result<(), (String, Timestamp)> {
        let not_yet = || format!("{destination} is not verified yet");
        let Some(watched) = self.destinations.get(destination) else { return Err((not_yet(), self.began.1)) };
        if watched.verified.load(Ordering::Relaxed) {
            return Ok(());
        }
        let unseen = watched.unseen();
        Err((unseen.why.as_ref().map_or_else(not_yet, |why| why.to_string()), unseen.since))
    }

    /// The queue was seen, or why not.
    pub fn note(&self, destination: &Destination, answer: Result<(), String>) {
        let Some(watched) = self.destinations.get(destination) else { return };
        watched.set_verified(answer.is_ok());
        let mut unseen = watched.unseen();
        if let Err(text) = &answer
            && unseen.why.as_deref() != Some(text.as_str())
        {
            tracing::warn!(destination = %destination, reason = %text, "destination cannot be used");
        }
        unseen.why = answer.err().map(Into::into);
    }

    pub fn all_verified(&self) -> bool {
        self.destinations.values().all(|watched| watched.verified.load(Ordering::Relaxed))
    }

    /// The queue is not where it was.
    pub fn doubt(&self, destination: &Destination) {
        if let Some(watched) = self.destinations.get(destination) {
            watched.set_verified(false);
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
        let what = format!("{destination} takes no messages: {}", trouble.cause.reason);
        Some(Troubled { what, since: self.moment(trouble.since), refuses: trouble.refuses(now) })
    }

    /// The same moment, to be shown: always the same for the same.
    pub fn moment(&self, instant: Instant) -> Timestamp {
        let (began, shown) = self.began;
        let later = SignedDuration::try_from(instant.saturating_duration_since(began)).unwrap_or_default();
        shown + later
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
    /// Whether the queue was seen. It is in doubt since the first time that it was not.
    fn set_verified(&self, verified: bool) {
        let was = self.verified.swap(verified, Ordering::Relaxed);
        if was && !verified {
            self.unseen().since = Timestamp::now();
        }
    }

    fn unseen(&self) -> MutexGuard<'_, Unseen> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gauge(destination: &Destination, in_trouble: bool) {
    let value = if in_trouble { 1.0 } else { 0.0 };
    metrics::gauge!("posthaste_destination_in_trouble", "destination" => destination.to_string()).set(value);
}
