//! Whether messages should share transactions: a pure function of how long they took lately.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Up to this in a group, nothing is gained side by side.
const FAST: Duration = Duration::from_millis(1);
/// Above this alone, a group is not even tried. What is less may be the crowd's doing and not the message's.
const HOPELESS: Duration = Duration::from_millis(500);
/// One long wait says little about the messages after it.
const MOST_TOLD: Duration = Duration::from_secs(1);
/// Messages in a group that is a try: of as many as there are threads, nothing would be gained where every round trip
/// takes long. What smaller groups take is spread over as many: it says little of what large ones would.
const TRIED: usize = 16;
/// A try shall take no longer, as far as one can tell: a group is given up after 3 s.
const LONGEST_TRY: Duration = Duration::from_secs(2);
/// A new figure counts for one part of so many.
const INERTIA: u32 = 8;
/// Between two tries of a group where groups were slow: at first, and at most.
const FIRST_PATIENCE: u32 = 16;
const MOST_PATIENCE: u32 = 1024;
/// After a failure in a group, so many transactions have savepoints.
const CAREFUL: u32 = 8;

/// A way for groups: there are few, so that groups get big.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Free,
    /// It will be free soon.
    Busy,
    /// It was waited for in vain: what is in it takes long.
    Stalled,
}

/// What to do with a message that may be grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It has a transaction of its own, now.
    Alone,
    /// It leads a group.
    Group,
    /// It leads a small one, which tells whether groups are worth it.
    Try,
    /// A lane is waited for: meanwhile others arrive.
    Wait,
}

/// How a receiver's messages went lately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lately {
    /// A moving average of a message's part of what a group's transaction took; `None` before the first.
    pub together: Option<Duration>,
    /// The same of transactions of their own, with others beside them.
    pub alone: Option<Duration>,
    /// Messages that went alone since the last group.
    pub since: u32,
    /// How many that shall be before the next try.
    pub patience: u32,
}

/// Slow messages go side by side, fast ones together. What is slow depends on the machine: a group of messages that take
/// `together` each is as good as `threads` of them side by side that take `threads` times as long.
#[must_use]
pub fn turn(lately: Lately, lane: Lane, threads: u32) -> Turn {
    let better = lately.better_together(threads);
    match lane {
        Lane::Stalled => Turn::Alone,
        Lane::Free if better => Turn::Group,
        Lane::Busy if better => Turn::Wait,
        Lane::Free if lately.since >= lately.patience && lately.alone.is_none_or(|alone| alone <= HOPELESS) => {
            Turn::Try
        }
        Lane::Free | Lane::Busy => Turn::Alone,
    }
}

impl Lately {
    fn better_together(self, threads: u32) -> bool {
        let Some(together) = self.together else { return false };
        together <= FAST || self.alone.is_some_and(|alone| together * threads <= alone)
    }

    /// After messages in a group that took `each`.
    #[must_use]
    pub fn grouped(self, each: Duration, threads: u32) -> Self {
        // A try stands for itself: what was slow may have become fast.
        let before = self.together.filter(|_| self.better_together(threads));
        let now = Self { together: Some(average(before, each)), since: 0, ..self };
        let patience = if now.better_together(threads) { 0 } else { self.more_patience() };
        Self { patience, ..now }
    }

    /// After a group that came to nothing: nobody knows how long it would have taken.
    #[must_use]
    pub fn grouped_in_vain(self) -> Self {
        Self { together: None, since: 0, patience: self.more_patience(), ..self }
    }

    fn more_patience(self) -> u32 {
        (self.patience * 2).clamp(FIRST_PATIENCE, MOST_PATIENCE)
    }

    /// After a message that took so long alone.
    #[must_use]
    pub fn single(self, took: Duration) -> Self {
        Self { alone: Some(average(self.alone, took)), since: self.since.saturating_add(1), ..self }
    }
}

fn average(before: Option<Duration>, each: Duration) -> Duration {
    let each = each.min(MOST_TOLD);
    before.map_or(each, |before| (before * (INERTIA - 1) + each) / INERTIA)
}

/// A receiver's memory of it.
#[derive(Debug)]
pub struct Pace {
    threads: u32,
    /// With the number of groups that shall still have savepoints.
    lately: Mutex<(Lately, u32)>,
}

impl Default for Pace {
    /// Of one thread.
    fn default() -> Self {
        Self::new(1)
    }
}

impl Pace {
    /// `threads`: as many go side by side.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads: u32::try_from(threads.max(1)).unwrap_or(u32::MAX), lately: Mutex::default() }
    }

    /// What to do with the next message.
    #[must_use]
    pub fn turn(&self, lane: Lane) -> Turn {
        turn(self.lately(), lane, self.threads)
    }

    fn lately(&self) -> Lately {
        self.with(|(lately, _)| *lately)
    }

    /// The transaction of so many messages took so long.
    pub fn grouped(&self, transaction: Duration, messages: usize) {
        let messages = u32::try_from(messages.max(TRIED)).unwrap_or(u32::MAX);
        self.with(|(lately, _)| *lately = lately.grouped(transaction / messages, self.threads));
    }

    /// A group came to nothing, and none of its messages is known to be at fault.
    pub fn grouped_in_vain(&self) {
        self.with(|(lately, _)| *lately = lately.grouped_in_vain());
    }

    /// How many messages a try has at most.
    #[must_use]
    pub fn tried(&self) -> usize {
        let alone = self.lately().alone.unwrap_or_default().max(Duration::from_millis(1));
        usize::try_from(LONGEST_TRY.as_millis() / alone.as_millis()).unwrap_or(TRIED).min(TRIED)
    }

    /// The transaction of one message took so long.
    pub fn single(&self, transaction: Duration) {
        self.with(|(lately, _)| *lately = lately.single(transaction));
    }

    /// One of a group failed.
    pub fn failed(&self) {
        self.with(|(_, careful)| *careful = CAREFUL);
    }

    /// Whether the next group had better have savepoints; asked once for each.
    #[must_use]
    pub fn careful(&self) -> bool {
        self.with(|(_, careful)| {
            let now = *careful > 0;
            *careful = careful.saturating_sub(1);
            now
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut (Lately, u32)) -> T) -> T {
        act(&mut self.lately.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(300);
    const LONG: Duration = Duration::from_millis(200);
    const THREADS: u32 = 8;

    fn quick() -> Lately {
        Lately::default().grouped(QUICK, THREADS)
    }

    /// Messages that take as long wherever they are.
    fn slow() -> Lately {
        Lately::default().single(LONG).grouped(LONG, THREADS)
    }

    #[test]
    fn fast_messages_go_together_and_wait_for_a_lane() {
        assert_eq!(turn(quick(), Lane::Free, THREADS), Turn::Group);
        assert_eq!(turn(quick(), Lane::Busy, THREADS), Turn::Wait);
    }

    #[test]
    fn slow_messages_never_wait_for_each_other() {
        for lane in [Lane::Free, Lane::Busy, Lane::Stalled] {
            assert_eq!(turn(slow(), lane, THREADS), Turn::Alone);
        }
    }

    #[test]
    fn messages_that_a_crowd_makes_slow_go_together_when_that_is_as_fast_as_side_by_side() {
        let crowded = |each| Lately::default().single(Duration::from_millis(60)).grouped(each, THREADS);
        assert_eq!(turn(crowded(Duration::from_millis(7)), Lane::Free, THREADS), Turn::Group);
        assert_eq!(turn(crowded(Duration::from_millis(8)), Lane::Free, THREADS), Turn::Alone);
        assert_eq!(turn(crowded(Duration::from_millis(8)), Lane::Free, 1), Turn::Group);
    }

    #[test]
    fn small_groups_at_low_load_are_not_taken_for_slow_ones() {
        let pace = Pace::new(8);
        pace.single(QUICK * 10);
        for _ in 0..100 {
            pace.grouped(QUICK * 12, 2);
        }
        assert_eq!(pace.turn(Lane::Free), Turn::Group);
        pace.grouped(LONG * 2, 2);
        assert_eq!(pace.turn(Lane::Free), Turn::Alone);
    }

    #[test]
    fn a_group_that_stalls_holds_up_nobody() {
        assert_eq!(turn(quick(), Lane::Stalled, THREADS), Turn::Alone);
    }

    #[test]
    fn nothing_is_known_before_a_small_group_was_tried() {
        assert_eq!(turn(Lately::default(), Lane::Free, THREADS), Turn::Try);
        assert_eq!(turn(Lately::default(), Lane::Busy, THREADS), Turn::Alone);
    }

    #[test]
    fn fast_messages_that_become_slow_leave_their_groups_soon() {
        let mut lately = quick().single(QUICK);
        let mut groups = 0;
        while turn(lately, Lane::Free, THREADS) == Turn::Group {
            lately = lately.grouped(Duration::from_millis(50), THREADS);
            groups += 1;
        }
        assert!(groups <= 2, "{groups}");
    }

    #[test]
    fn what_was_given_up_half_way_leaves_its_groups_at_once_and_until_a_try_is_fast() {
        let pace = Pace::new(8);
        pace.grouped(QUICK * 64, 64);
        pace.grouped_in_vain();
        for _ in 0..FIRST_PATIENCE {
            assert_eq!(pace.turn(Lane::Free), Turn::Alone);
            pace.single(LONG);
        }
        assert_eq!(pace.turn(Lane::Free), Turn::Try);
    }

    #[test]
    fn what_a_crowd_makes_slow_is_tried_together_again_and_what_is_hopeless_is_not() {
        for (took, tried) in [(Duration::from_millis(20), true), (HOPELESS * 2, false)] {
            let mut lately = slow();
            for _ in 0..100 {
                lately = lately.single(took);
            }
            assert_eq!(turn(lately, Lane::Free, THREADS) == Turn::Try, tried, "{took:?}");
        }
    }

    #[test]
    fn tries_become_rare_while_they_stay_slow_and_one_that_is_fast_ends_them() {
        let mut lately = slow();
        let patience: Vec<u32> = (0..8)
            .map(|_| {
                lately = lately.grouped(LONG, THREADS);
                lately.patience
            })
            .collect();
        assert_eq!(patience, [32, 64, 128, 256, 512, 1024, 1024, 1024]);
        lately = lately.grouped(QUICK, THREADS);
        assert_eq!((turn(lately, Lane::Free, THREADS), lately.patience), (Turn::Group, 0));
    }

    #[test]
    fn a_try_takes_two_seconds_at_most() {
        for (each, tried) in [(1, TRIED), (125, TRIED), (200, 10), (500, 4)] {
            let pace = Pace::new(8);
            pace.single(Duration::from_millis(each));
            assert_eq!(pace.tried(), tried, "{each} ms");
        }
    }

    #[test]
    fn one_long_wait_counts_as_a_second_at_most() {
        assert_eq!(Lately::default().single(Duration::from_secs(60)).alone, Some(MOST_TOLD));
    }

    #[test]
    fn after_a_failure_the_next_few_groups_have_savepoints() {
        let pace = Pace::new(8);
        assert!(!pace.careful());
        pace.failed();
        assert!((0..CAREFUL).all(|_| pace.careful()));
        assert!(!pace.careful());
    }
}
