//! The database's clock, carried forward by this process's monotonic one between heart-beats (protocol §3, "Time").

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Shared by everything that stamps a message. Before the first reading there is no time, and nothing is published.
#[derive(Debug, Clone, Default)]
pub struct DatabaseClock {
    reading: Arc<Mutex<Option<(i64, Instant)>>>,
}

impl DatabaseClock {
    /// Takes a reading, in microseconds since 1970, that was asked for at `asked`.
    pub fn set(&self, micros: i64, asked: Instant) {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = Some((micros, asked));
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn now(&self) -> Option<i64> {
        let (micros, asked) = (*self.reading.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(micros.saturating_add(i64::try_from(asked.elapsed().as_micros()).unwrap_or(i64::MAX)))
    }
}
