//! Whether messages should share transactions: a pure function of how long they took lately.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Above this in a group, messages are better off side by side.
const SLOW: Duration = Duration::from_millis(5);
/// Above this alone, a group is not even tried. What is less may be the crowd's doing and not the message's.
const HOPELESS: Duration = Duration::from_millis(50);
/// One long wait says little about the messages after it.
const MOST_TOLD: Duration = Duration::from_millis(100);
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
    /// A moving average of what a message's steps took in a group; `None` before the first.
    pub together: Option<Duration>,
    /// The same alone, with others beside it.
    pub alone: Duration,
    /// Messages that went alone since the last group.
    pub since: u32,
    /// How many that shall be before the next try.
    pub patience: u32,
}

/// Slow messages go side by side, fast ones together.
#[must_use]
pub fn turn(lately: Lately, lane: Lane) -> Turn {
    let fast = lately.together.is_some_and(|each| each <= SLOW);
    match lane {
        Lane::Stalled => Turn::Alone,
        Lane::Free | Lane::Busy if lately.alone > HOPELESS => Turn::Alone,
        Lane::Free if fast => Turn::Group,
        Lane::Busy if fast => Turn::Wait,
        Lane::Free if lately.since >= lately.patience => Turn::Try,
        Lane::Free | Lane::Busy => Turn::Alone,
    }
}

impl Lately {
    /// After messages in a group that took `each`.
    #[must_use]
    pub fn grouped(self, each: Duration) -> Self {
        let together = average(self.together.unwrap_or(each), each);
        let slow = together > SLOW;
        let patience = if slow { (self.patience * 2).clamp(FIRST_PATIENCE, MOST_PATIENCE) } else { 0 };
        Self { together: Some(together), since: 0, patience, ..self }
    }

    /// After a message that took so long alone.
    #[must_use]
    pub fn single(self, took: Duration) -> Self {
        Self { alone: average(self.alone, took), since: self.since.saturating_add(1), ..self }
    }
}

fn average(before: Duration, each: Duration) -> Duration {
    (before * (INERTIA - 1) + each.min(MOST_TOLD)) / INERTIA
}

/// A receiver's memory of it.
#[derive(Debug, Default)]
pub struct Pace(Mutex<(Lately, u32)>);

impl Pace {
    #[must_use]
    pub fn lately(&self) -> Lately {
        self.with(|(lately, _)| *lately)
    }

    /// The steps of so many messages took so long, in one transaction.
    pub fn grouped(&self, steps: Duration, messages: usize) {
        let messages = u32::try_from(messages.max(1)).unwrap_or(u32::MAX);
        self.with(|(lately, _)| *lately = lately.grouped(steps / messages));
    }

    /// A message's steps took so long in a transaction of its own.
    pub fn single(&self, steps: Duration) {
        self.with(|(lately, _)| *lately = lately.single(steps));
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
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_micros(300);
    const LONG: Duration = Duration::from_millis(200);

    fn fast() -> Lately {
        Lately::default().grouped(FAST)
    }

    fn slow() -> Lately {
        Lately::default().grouped(LONG)
    }

    #[test]
    fn fast_messages_go_together_and_wait_for_a_lane() {
        assert_eq!(turn(fast(), Lane::Free), Turn::Group);
        assert_eq!(turn(fast(), Lane::Busy), Turn::Wait);
    }

    #[test]
    fn slow_messages_never_wait_for_each_other() {
        for lane in [Lane::Free, Lane::Busy, Lane::Stalled] {
            assert_eq!(turn(slow(), lane), Turn::Alone);
        }
    }

    #[test]
    fn a_group_that_stalls_holds_up_nobody() {
        assert_eq!(turn(fast(), Lane::Stalled), Turn::Alone);
    }

    #[test]
    fn nothing_is_known_before_a_small_group_was_tried() {
        assert_eq!(turn(Lately::default(), Lane::Free), Turn::Try);
        assert_eq!(turn(Lately::default(), Lane::Busy), Turn::Alone);
    }

    #[test]
    fn fast_messages_that_become_slow_leave_their_groups_soon() {
        let mut lately = fast();
        let mut groups = 0;
        while turn(lately, Lane::Free) == Turn::Group {
            lately = lately.grouped(Duration::from_millis(50));
            groups += 1;
        }
        assert!(groups <= 2, "{groups}");
    }

    #[test]
    fn what_a_crowd_makes_slow_is_tried_together_again_and_what_is_hopeless_is_not() {
        for (took, tried) in [(Duration::from_millis(20), true), (LONG, false)] {
            let mut lately = slow();
            for _ in 0..100 {
                lately = lately.single(took);
            }
            assert_eq!(turn(lately, Lane::Free) == Turn::Try, tried, "{took:?}");
        }
    }

    #[test]
    fn tries_become_rare_while_they_stay_slow_and_one_that_is_fast_ends_them() {
        let mut lately = slow();
        let patience: Vec<u32> = (0..8)
            .map(|_| {
                lately = lately.grouped(Duration::from_millis(20));
                lately.patience
            })
            .collect();
        assert_eq!(patience, [32, 64, 128, 256, 512, 1024, 1024, 1024]);
        for _ in 0..40 {
            lately = lately.grouped(FAST);
        }
        assert_eq!((turn(lately, Lane::Free), lately.patience), (Turn::Group, 0));
    }

    #[test]
    fn one_long_wait_counts_as_a_tenth_of_a_second_at_most() {
        let lately = Lately::default().single(Duration::from_secs(60));
        assert_eq!(lately.alone, MOST_TOLD / INERTIA);
    }

    #[test]
    fn after_a_failure_the_next_few_groups_have_savepoints() {
        let pace = Pace::default();
        assert!(!pace.careful());
        pace.failed();
        assert!((0..CAREFUL).all(|_| pace.careful()));
        assert!(!pace.careful());
    }
}
