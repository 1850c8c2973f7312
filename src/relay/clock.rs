//! The database's clock, carried forward by this process's monotonic one between heart-beats (protocol §3, "Time").

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::TxId;

/// So much a clock may go back without anybody's being told: who waits for it waits so much longer.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Shared by everything that stamps a message. Before the first reading there is no time, and nothing is published.
#[derive(Debug, Clone, Default)]
pub struct DatabaseClock {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    reading: Option<Reading>,
    went_back: bool,
}

/// Taken at some moment between `asked` and `answered`.
#[derive(Debug, Clone, Copy)]
struct Reading {
    micros: i64,
    asked: Instant,
    answered: Instant,
}

impl DatabaseClock {
    /// Takes a reading, in microseconds since 1970, that was asked for at `asked` and is answered now.
    pub fn set(&self, micros: i64, asked: Instant) {
        self.take(Reading { micros, asked, answered: Instant::now() });
    }

    fn take(&self, reading: Reading) {
        let mut state = self.state();
        if let Some(last) = state.reading.replace(reading) {
            state.went_back |= went_back(last, reading);
        }
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn now(&self) -> Option<i64> {
        let Reading { micros, asked, .. } = self.state().reading?;
        Some(micros.saturating_add(in_micros(asked.elapsed())))
    }

    /// How long ago a row was made, by the time in its id: no more than nothing where another clock was ahead. For figures.
    #[must_use]
    pub fn since(&self, tx_id: TxId) -> Option<Duration> {
        let millis = u64::try_from(self.now()?).unwrap_or(0) / 1000;
        Some(Duration::from_millis(millis.saturating_sub(tx_id.millis())))
    }

    /// Whether it went back since this was asked last: what was written before lies further ahead than it was meant.
    #[must_use]
    pub fn went_back(&self) -> bool {
        std::mem::take(&mut self.state().went_back)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between the two at least so much time has gone by, whenever each was taken; the clock has gone less far.
fn went_back(last: Reading, next: Reading) -> bool {
    let at_least = in_micros(next.asked.saturating_duration_since(last.answered));
    next.micros.saturating_sub(last.micros).saturating_add(in_micros(TOLERANCE)) < at_least
}

fn in_micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings of a clock: what it shows, and when it was asked and answered, in seconds.
    fn goes_back(readings: &[(i64, u64, u64)]) -> Vec<bool> {
        let (clock, start) = (DatabaseClock::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let told = readings.iter().map(|&(shown, asked, answered)| {
            clock.take(Reading { micros: shown * 1_000_000, asked: at(asked), answered: at(answered) });
            clock.went_back()
        });
        told.collect()
    }

    #[test]
    fn a_clock_that_goes_or_jumps_forward_never_goes_back_however_slowly_it_answers() {
        assert_eq!(goes_back(&[(100, 0, 0), (101, 1, 1), (5000, 2, 2), (5001, 3, 3)]), [false; 4]);
        // The first was read just before its answer, the second just after it was asked for.
        assert_eq!(goes_back(&[(130, 0, 30), (131, 31, 60)]), [false; 2]);
    }

    #[test]
    fn a_clock_that_is_put_back_is_told_once_also_when_it_shows_more_than_before() {
        assert_eq!(goes_back(&[(4000, 0, 0), (3, 3, 3), (4, 4, 4)]), [false, true, false]);
        assert_eq!(goes_back(&[(100, 0, 0), (150, 3600, 3600)]), [false, true], "it stood still, or was put back");
    }

    #[test]
    fn it_is_told_until_somebody_has_asked() {
        let (clock, start) = (DatabaseClock::default(), Instant::now());
        for micros in [9_000_000_000, 1_000, 2_000] {
            clock.take(Reading { micros, asked: start, answered: start });
        }
        assert!(clock.went_back() && !clock.went_back());
    }

    #[test]
    fn the_age_of_a_row_is_told_by_the_database_s_clock_and_is_never_less_than_nothing() {
        let (clock, now) = (DatabaseClock::default(), 1_800_000_000_000_000);
        assert_eq!(clock.since(TxId::mint_at(now)), None, "there is no time yet");
        clock.set(now, Instant::now());
        let age = clock.since(TxId::mint_at(now - 5_000_000)).unwrap();
        assert!(age >= Duration::from_secs(5) && age < Duration::from_secs(3600), "{age:?}");
        assert_eq!(clock.since(TxId::mint_at(now + 3_600_000_000_000)), Some(Duration::ZERO), "a foreign clock");
    }
}
