//! What lately became of an adapter's messages, where a server was at fault and not they: since when and why they fail, when
//! that is tried out, and when nobody knows any more. Pure: moments come from outside.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Without news for so long nobody knows any more: longer than two tries take that have no answer.
const FORGOTTEN: Duration = Duration::from_secs(45);
/// Between two tries, at first and at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);

/// Messages fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// The server's own words at the latest failure.
    pub reason: String,
    /// Of the first failure.
    pub since: Timestamp,
    began: Instant,
    /// The latest news.
    last: Instant,
    next_try: Instant,
    /// Of the body that failed last, in bytes.
    size: usize,
}

/// How messages go, as far as is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recent(Option<Failing>);

impl Recent {
    /// A message of this size has failed.
    pub fn failed(&mut self, reason: String, size: usize, (now, shown): (Instant, Timestamp)) {
        let (began, since) = self.failing(now).map_or((now, shown), |failing| (failing.began, failing.since));
        let next_try = now + pause(now.saturating_duration_since(began));
        self.0 = Some(Failing { reason, since, began, last: now, next_try, size });
    }

    /// One went through. Answers how long they had failed, if they had.
    pub fn well(&mut self, now: Instant) -> Option<Duration> {
        self.0.take().map(|failing| now.saturating_duration_since(failing.began))
    }

    /// The failure, unless nothing was heard of it for long.
    #[must_use]
    pub fn failing(&self, now: Instant) -> Option<&Failing> {
        self.0.as_ref().filter(|failing| now.saturating_duration_since(failing.last) < FORGOTTEN)
    }

    /// Whether it is to be tried out now, and with how many bytes. Whoever is answered so tries.
    pub fn take_try(&mut self, now: Instant) -> Option<usize> {
        self.failing(now)?;
        let failing = self.0.as_mut().filter(|failing| failing.next_try <= now)?;
        failing.next_try = now + pause(now.saturating_duration_since(failing.began));
        Some(failing.size)
    }

    /// A try has failed as messages do.
    pub fn still(&mut self, now: Instant) {
        if let Some(failing) = &mut self.0 {
            failing.last = now;
        }
    }
}

/// Between two tries: the longer messages fail, the longer.
fn pause(lasted: Duration) -> Duration {
    (lasted / 8).clamp(FIRST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments() -> impl Fn(u64) -> (Instant, Timestamp) {
        let (start, shown) = (Instant::now(), Timestamp::UNIX_EPOCH);
        move |seconds| {
            let later = Duration::from_secs(seconds);
            (start + later, shown + later)
        }
    }

    #[test]
    fn messages_fail_since_the_first_of_them_for_the_latest_reason_until_one_goes_through() {
        let (mut recent, at) = (Recent::default(), moments());
        assert_eq!(recent.failing(at(0).0), None);
        recent.failed("full".to_owned(), 1, at(1));
        recent.failed("read only".to_owned(), 2, at(30));
        let failing = recent.failing(at(31).0).unwrap();
        assert_eq!((failing.reason.as_str(), failing.since), ("read only", at(1).1));
        assert_eq!(recent.well(at(33).0), Some(Duration::from_secs(32)));
        assert_eq!(recent.failing(at(33).0), None);
        assert_eq!(recent.well(at(33).0), None);
        recent.failed("full".to_owned(), 1, at(40));
        assert_eq!(recent.failing(at(41).0).unwrap().since, at(40).1, "another trouble");
    }

    #[test]
    fn without_traffic_it_is_tried_out_now_and_then_with_what_failed_last() {
        let (mut recent, at) = (Recent::default(), moments());
        assert_eq!(recent.take_try(at(0).0), None);
        recent.failed("full".to_owned(), 7, at(0));
        assert_eq!(recent.take_try(at(0).0), None, "not at once");
        let mut tries = Vec::new();
        for second in 0..600 {
            if let Some(size) = recent.take_try(at(second).0) {
                assert_eq!(size, 7);
                recent.still(at(second).0);
                tries.push(second);
            }
        }
        assert_eq!(tries[..3], [1, 2, 3]);
        let pauses: Vec<u64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.is_sorted() && pauses.last() == Some(&LONGEST.as_secs()), "{pauses:?}");
        assert_eq!(recent.failing(at(600).0).unwrap().since, at(0).1, "as long as tries fail");
    }

    #[test]
    fn without_news_it_is_forgotten_and_not_tried_any_more() {
        let (mut recent, at) = (Recent::default(), moments());
        recent.failed("full".to_owned(), 1, at(0));
        assert!(recent.failing(at(44).0).is_some());
        assert_eq!(recent.failing(at(45).0), None);
        assert_eq!(recent.take_try(at(45).0), None);
        recent.failed("full".to_owned(), 1, at(50));
        assert_eq!(recent.failing(at(51).0).unwrap().since, at(50).1);
    }
}
