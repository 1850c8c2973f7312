//! How many deliveries a receiver asks for in advance: few until bodies have proved small, and few again when they prove large
//! (ADR 22); pure.

/// What a delivery costs beside its body, in bytes.
const OVERHEAD: usize = 4096;
/// A new size counts for one part of so many.
const INERTIA: usize = 16;
/// At most so many times as many at once.
const STRIDE: usize = 16;

/// How much a receiver asks for, and how large bodies lately were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    /// As many as it could use.
    full: usize,
    now: usize,
    /// A moving average of what a delivery costs, in bytes; `None` before the first.
    typical: Option<usize>,
    /// Deliveries since it was changed last.
    seen: usize,
}

impl Prefetch {
    /// One at first: how large the first is nobody knows. `full`: the most.
    #[must_use]
    pub fn new(full: usize) -> Self {
        Self { full: full.max(1), now: 1, typical: None, seen: 0 }
    }

    /// Deliveries that are asked for in advance.
    #[must_use]
    pub fn now(&self) -> usize {
        self.now
    }

    /// What that many cost, in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.now.saturating_mul(self.typical.unwrap_or(0))
    }

    /// A delivery of so many bytes has come.
    pub fn saw(&mut self, bytes: usize) {
        let cost = bytes.saturating_add(OVERHEAD);
        let part = |typical: usize| cost.abs_diff(typical).div_ceil(INERTIA);
        self.typical = Some(match self.typical {
            None => cost,
            Some(typical) if cost > typical => typical.saturating_add(part(typical)),
            Some(typical) => typical.saturating_sub(part(typical)),
        });
        self.seen = self.seen.saturating_add(1);
    }

    /// More was there than may be held, a body of so many bytes among it.
    pub fn overflowed(&mut self, bytes: usize) {
        let typical = self.typical.unwrap_or(0).max(bytes.saturating_add(OVERHEAD));
        *self = Self { now: 1, typical: Some(typical), seen: 0, full: self.full };
    }

    /// How many it asks for from now on, with room for so many bytes, if that shall be another number: half as many more or
    /// above, once as many as before have come, or at most half as many.
    #[must_use]
    pub fn change(&mut self, room: usize) -> Option<usize> {
        let fits = (room / self.typical?.max(1)).clamp(1, self.full);
        let half_as_many_more = fits >= self.now.saturating_add(self.now.div_ceil(2));
        let more = self.seen >= self.now && (half_as_many_more || fits == self.full && self.now < self.full);
        if !more && fits > self.now / 2 {
            return None;
        }
        let next = fits.min(self.now.saturating_mul(STRIDE));
        (next != self.now).then(|| {
            (self.now, self.seen) = (next, 0);
            next
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const ROOM: usize = 32 * MIB;

    /// What it asks for after each of these.
    fn asks(prefetch: &mut Prefetch, bodies: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let after = |bytes| {
            prefetch.saw(bytes);
            let _changed = prefetch.change(ROOM);
            prefetch.now()
        };
        bodies.into_iter().map(after).collect()
    }

    fn grown() -> Prefetch {
        let mut prefetch = Prefetch::new(192);
        asks(&mut prefetch, [100; 17]);
        assert_eq!(prefetch.now(), 192);
        prefetch
    }

    #[test]
    fn small_bodies_are_asked_for_in_full_after_seventeen_of_them() {
        let mut prefetch = Prefetch::new(192);
        assert_eq!(prefetch.now(), 1);
        assert_eq!(asks(&mut prefetch, [100]), [16]);
        assert_eq!(asks(&mut prefetch, [100; 15]), [16; 15]);
        assert_eq!(asks(&mut prefetch, [100]), [192]);
        assert_eq!(asks(&mut prefetch, [100; 1000]), [192; 1000]);
    }

    #[test]
    fn a_receiver_of_few_threads_asks_for_no_more_than_it_can_use() {
        assert_eq!(asks(&mut Prefetch::new(2), [100; 3]), [2; 3]);
        assert_eq!(asks(&mut Prefetch::new(1), [100; 3]), [1; 3]);
        assert_eq!(Prefetch::new(0), Prefetch::new(1));
    }

    #[test]
    fn large_bodies_are_asked_for_as_far_as_they_fit() {
        for (bytes, most) in [(MIB, 31), (10 * MIB, 3), (60 * MIB, 1), (usize::MAX, 1)] {
            let mut prefetch = Prefetch::new(192);
            assert!(asks(&mut prefetch, [bytes; 300]).iter().all(|now| *now <= most), "{bytes}");
            assert_eq!(prefetch.now(), most, "{bytes}");
        }
    }

    #[test]
    fn when_bodies_grow_fewer_are_asked_for_soon_and_more_again_when_they_are_small() {
        let mut prefetch = grown();
        let after = asks(&mut prefetch, [60 * MIB; 40]);
        let first = after.iter().position(|now| *now == 1).unwrap();
        assert!(first < 12, "{after:?}");
        let after = asks(&mut prefetch, [100; 300]);
        assert!(after.contains(&192), "{after:?}");
    }

    #[test]
    fn what_varies_a_little_changes_nothing() {
        let mut prefetch = Prefetch::new(192);
        asks(&mut prefetch, (0..300).map(|n| MIB + n * 1000));
        let now = prefetch.now();
        let bodies = (0..1000).map(|n| if n % 3 == 0 { MIB / 2 } else { 3 * MIB / 2 });
        assert!(asks(&mut prefetch, bodies).iter().all(|other| *other == now));
        assert!(asks(&mut grown(), (0..1000).map(|n| n * 100)).iter().all(|now| *now == 192));
    }

    #[test]
    fn after_more_than_may_be_held_one_is_asked_for() {
        let mut prefetch = grown();
        prefetch.overflowed(20 * MIB);
        assert_eq!((prefetch.now(), prefetch.change(ROOM)), (1, None));
        assert_eq!(asks(&mut prefetch, [20 * MIB; 50]), [1; 50]);
    }

    #[test]
    fn with_less_room_fewer_are_asked_for() {
        let mut prefetch = Prefetch::new(192);
        asks(&mut prefetch, [MIB; 300]);
        assert_eq!(prefetch.change(4 * MIB), Some(3));
        assert_eq!(prefetch.cost(), 3 * (MIB + OVERHEAD));
    }
}
