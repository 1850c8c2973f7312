//! Whether the database's clock goes like our own, which only counts seconds: pure. Clean-up removes what is past its time, and
//! a clock that is ahead for a minute would make it forget ids that it has promised to know (I8).

use std::time::{Duration, Instant};

/// How far the two may differ between two looks: a clock that is being put right step by step.
const TOLERANCE: Duration = Duration::from_secs(60);
/// How long a clock that has jumped must go steadily before it is believed.
const SETTLE: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(super) struct SteadyClock {
    /// The last look: the database's clock, in microseconds since 1970, and ours.
    last: Option<(i64, Instant)>,
    jumped: Option<Instant>,
}

/// What a look says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It can be believed.
    Steady,
    /// It has just jumped by so many microseconds.
    Jumped(i64),
    /// It has jumped lately.
    Settling,
}

impl SteadyClock {
    pub fn look(&mut self, micros: i64, now: Instant) -> Look {
        let went = self.last.replace((micros, now));
        let off = went.map_or(0, |(before, then)| {
            let ours = i64::try_from(now.duration_since(then).as_micros()).unwrap_or(i64::MAX);
            micros.saturating_sub(before).saturating_sub(ours)
        });
        if Duration::from_micros(off.unsigned_abs()) > TOLERANCE {
            self.jumped = Some(now);
            return Look::Jumped(off);
        }
        match self.jumped {
            Some(then) if now.duration_since(then) < SETTLE => Look::Settling,
            Some(_) | None => {
                self.jumped = None;
                Look::Steady
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_clock_that_goes_like_ours_is_believed_from_the_first_look_on() {
        let (mut clock, start) = (SteadyClock::default(), Instant::now());
        for minutes in 0..600 {
            // A second in ten minutes fast, and 59 s put right at once.
            let micros = i64::from(minutes) * 60 * SECOND + i64::from(minutes / 10) * SECOND;
            let micros = if minutes > 300 { micros - 59 * SECOND } else { micros };
            assert_eq!(clock.look(micros, start + Duration::from_secs(60) * minutes), Look::Steady, "{minutes}");
        }
    }

    #[test]
    fn one_that_jumps_is_not_believed_until_it_has_gone_steadily_for_an_hour() {
        for jump in [-61 * SECOND, 61 * SECOND, 40 * 86_400 * SECOND] {
            let (mut clock, start) = (SteadyClock::default(), Instant::now());
            let mut at = |seconds: u32, ahead: i64| {
                clock.look(i64::from(seconds) * SECOND + ahead, start + Duration::from_secs(1) * seconds)
            };
            assert_eq!(at(0, 0), Look::Steady);
            assert_eq!(at(60, jump), Look::Jumped(jump));
            assert_eq!(at(120, jump), Look::Settling);
            // Put right: another jump, and the hour begins anew.
            assert_eq!(at(180, 0), Look::Jumped(-jump));
            assert_eq!(at(3660, 0), Look::Settling);
            assert_eq!(at(3780, 0), Look::Steady);
        }
    }
}
