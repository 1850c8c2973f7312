//! Who seems dead: a pure observer of heart-beat counters (protocol §6, "Hint").

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::Incarnation;

/// Watches counters on one monotonic clock. A break in reaching the database starts every watch anew: otherwise an
/// outage would have everyone fence everyone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseObserver {
    me: Incarnation,
    lease: Duration,
    /// Two looks further apart than this are a break.
    longest_gap: Duration,
    last_look: Option<Instant>,
    watched: BTreeMap<Incarnation, (i64, Instant)>,
}

impl LeaseObserver {
    #[must_use]
    pub fn new(me: Incarnation, lease: Duration) -> Self {
        Self { me, lease, longest_gap: lease / 2, last_look: None, watched: BTreeMap::new() }
    }

    /// The database could not be reached.
    pub fn lost_sight(&mut self) {
        self.last_look = None;
        self.watched.clear();
    }

    /// Takes a look at the LIVE instances and answers whose counter has stood still for a whole lease, with the counter.
    #[must_use]
    pub fn look(&mut self, now: Instant, live: &[(Incarnation, i64)]) -> Vec<(Incarnation, i64)> {
        if self.last_look.is_some_and(|last| now.saturating_duration_since(last) > self.longest_gap) {
            self.watched.clear();
        }
        self.last_look = Some(now);
        self.watched.retain(|incarnation, _| live.iter().any(|(other, _)| other == incarnation));
        let mut dead = Vec::new();
        for &(incarnation, heartbeat) in live {
            if incarnation == self.me {
                continue;
            }
            let seen = self.watched.entry(incarnation).or_insert((heartbeat, now));
            if seen.0 != heartbeat {
                *seen = (heartbeat, now);
            } else if now.saturating_duration_since(seen.1) >= self.lease {
                dead.push((incarnation, heartbeat));
            }
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observer() -> (LeaseObserver, Incarnation, Instant) {
        (LeaseObserver::new(Incarnation::mint(), Duration::from_secs(5)), Incarnation::mint(), Instant::now())
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_counter_that_stands_still_for_a_whole_lease_is_dead() {
        let (mut observer, other, start) = observer();
        for second in 0..5 {
            assert!(observer.look(after(start, second), &[(other, 7)]).is_empty(), "second {second}");
        }
        assert_eq!(observer.look(after(start, 5), &[(other, 7)]), vec![(other, 7)]);
    }

    #[test]
    fn a_counter_that_moves_is_alive() {
        let (mut observer, other, start) = observer();
        for second in 0..20 {
            let counter = i64::try_from(second / 4).unwrap();
            assert!(observer.look(after(start, second), &[(other, counter)]).is_empty());
        }
    }

    #[test]
    fn an_outage_of_the_database_condemns_nobody() {
        let (mut observer, other, start) = observer();
        for second in 0..4 {
            assert!(observer.look(after(start, second), &[(other, 7)]).is_empty());
        }
        observer.lost_sight();
        assert!(observer.look(after(start, 30), &[(other, 7)]).is_empty());
    }

    #[test]
    fn an_observer_that_was_stopped_itself_condemns_nobody() {
        let (mut observer, other, start) = observer();
        assert!(observer.look(start, &[(other, 7)]).is_empty());
        assert!(observer.look(after(start, 60), &[(other, 7)]).is_empty());
    }

    #[test]
    fn nobody_condemns_himself() {
        let me = Incarnation::mint();
        let mut observer = LeaseObserver::new(me, Duration::from_secs(5));
        let start = Instant::now();
        for second in 0..20 {
            assert!(observer.look(after(start, second), &[(me, 7)]).is_empty());
        }
    }
}
