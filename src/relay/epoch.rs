//! When the home's epoch is raised: by whichever instance first sees it stand still for a minute.

use std::time::{Duration, Instant};

use crate::model::Epoch;

/// So long it stands still.
const EVERY: Duration = Duration::from_secs(60);
/// Before the first raise of a process. An old copy that has just started is not to be the first to raise what it shares with
/// the original: who comes second is told.
const FIRST: Duration = Duration::from_secs(90);
/// After so long a broker that was never reached holds nothing up any more.
const UNREACHED: Duration = Duration::from_secs(10);

/// What one process sees of the epoch. By its own clock: nobody else's matters.
#[derive(Debug, Default)]
pub(super) struct EpochWatch {
    began: Option<Instant>,
    seen: Option<(Epoch, Instant, Duration)>,
    raised: Option<Epoch>,
}

impl EpochWatch {
    /// The database holds this epoch now. Answers whether we have raised it to this.
    pub(super) fn see(&mut self, epoch: Epoch, now: Instant) -> bool {
        self.began.get_or_insert(now);
        match self.seen {
            Some((seen, _, _)) if seen == epoch => {}
            Some(_) => self.seen = Some((epoch, now, EVERY)),
            None => self.seen = Some((epoch, now, FIRST)),
        }
        self.raised == Some(epoch)
    }

    /// What is to be raised now.
    pub(super) fn due(&self, now: Instant) -> Option<Epoch> {
        let (epoch, since, pause) = self.seen?;
        (now.duration_since(since) >= pause).then_some(epoch)
    }

    pub(super) fn raised(&mut self, epoch: Epoch, now: Instant) {
        self.raised = Some(epoch);
        self.seen = Some((epoch, now, EVERY));
    }

    /// Whether it is time to go on without a broker that was not compared.
    pub(super) fn waited_enough(&self, now: Instant) -> bool {
        self.began.is_some_and(|began| now.duration_since(began) >= UNREACHED)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::HomeId;

    fn epoch(number: u64) -> Epoch {
        Epoch { home: HomeId(Uuid::nil()), number, token: Uuid::from_u128(number.into()) }
    }

    #[test]
    fn an_epoch_that_stands_still_for_a_minute_is_raised_by_who_sees_it_first() {
        let (mut watch, start) = (EpochWatch::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(watch.due(at(1000)), None, "nothing was seen");
        watch.see(epoch(7), at(0));
        watch.see(epoch(7), at(89));
        assert_eq!((watch.due(at(89)), watch.due(at(90))), (None, Some(epoch(7))), "later than others after a start");
        // Another was faster.
        assert!(!watch.see(epoch(8), at(90)));
        assert_eq!((watch.due(at(149)), watch.due(at(150))), (None, Some(epoch(8))));
        watch.raised(epoch(9), at(150));
        assert!(watch.see(epoch(9), at(151)), "it was us");
        assert_eq!((watch.due(at(209)), watch.due(at(210))), (None, Some(epoch(9))));
        // The same number by another hand.
        let other = Epoch { token: Uuid::nil(), ..epoch(9) };
        assert!(!watch.see(other, at(211)));
    }
}
