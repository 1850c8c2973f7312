//! How long something took, counted in buckets: a few instructions each time, and never more memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: from a millisecond to two hours.
const BOUNDS: [u64; 18] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    7_200_000_000,
];

/// A histogram of durations. Counting waits for nobody.
#[derive(Debug, Default)]
pub struct Latencies {
    /// One per bound, and one for what took longer than all of them.
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// What was counted until now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// How many took no longer than each bound.
    pub within: Vec<(Duration, u64)>,
    pub all: u64,
    /// All of them together.
    pub sum: Duration,
}

impl Latencies {
    /// Counts one.
    pub fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    #[must_use]
    pub fn counted(&self) -> Counted {
        let mut all = 0;
        let mut sums = self.counts.iter().map(|count| {
            all += count.load(Ordering::Relaxed);
            all
        });
        let within = BOUNDS.iter().zip(&mut sums).map(|(bound, sum)| (Duration::from_micros(*bound), sum)).collect();
        let all = sums.next().unwrap_or_default();
        Counted { within, all, sum: Duration::from_micros(self.micros.load(Ordering::Relaxed)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_in_its_bucket_and_in_all_larger_ones() {
        let latencies = Latencies::default();
        for micros in [0, 1_000, 1_001, 40_000, 7_200_000_000, 7_200_000_001] {
            latencies.note(Duration::from_micros(micros));
        }
        let Counted { within, all, sum } = latencies.counted();
        let of = |millis| within.iter().find(|(bound, _)| *bound == Duration::from_millis(millis)).unwrap().1;
        assert_eq!((of(1), of(2500), of(25), of(50), of(7_200_000)), (2, 4, 3, 4, 5));
        assert_eq!((all, sum), (6, Duration::from_micros(14_400_042_002)));
        assert!(within.is_sorted());
    }

    #[test]
    fn what_took_longer_than_can_be_told_is_counted_all_the_same() {
        let latencies = Latencies::default();
        latencies.note(Duration::MAX);
        assert_eq!(latencies.counted().all, 1);
    }
}
