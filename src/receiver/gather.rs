//! Who goes with whom: deliveries that have come, and those that are about to (protocol §7).

use std::time::Duration;

use super::attempt::{Entry, entry};
use crate::broker::{Delivery, Source};
use crate::relay::SMALL;

/// A group takes no more messages beyond this.
const GROUP_BYTES: usize = 1 << 18;
/// Between two looks whether others have come: what a group of arrivals publishes is delivered one after the other, and the
/// first of them is not to go without the others.
const APART: Duration = Duration::from_millis(1);
/// Most looks; none follows one in vain.
const LOOKS: u32 = 2;
/// How much of the largest group is remembered from one to the next,
const MEMORY: f64 = 0.97;
/// and after a look in vain.
const IN_VAIN: f64 = 0.5;

/// What is gathered.
pub trait Gathered {
    /// Whether it may be with others.
    fn may_share(&self) -> bool;
    /// What it adds to a group.
    fn bytes(&self) -> usize;
}

impl Gathered for Delivery {
    /// Ours, never counted as far as anybody knows, and not so large that it takes room of its own.
    fn may_share(&self) -> bool {
        match self.incoming.source {
            Source::Own { attempts, .. } => {
                self.bytes() <= SMALL && entry(self.incoming.redelivered, attempts) != Entry::Start
            }
            Source::Foreign { .. } => false,
        }
    }

    fn bytes(&self) -> usize {
        self.incoming.body.len()
    }
}

/// Makes groups of one receiver's deliveries.
#[derive(Debug, Default)]
pub struct Gathering {
    /// The most that lately came together.
    lately: f64,
}

impl Gathering {
    /// What is here, up to so many; and the first that may not be with them. As long as fewer are here than lately came
    /// together, and more come, the others are waited for, some milliseconds at most. `waiting`: the next that is here.
    pub async fn gather<D: Gathered>(
        &mut self,
        first: D,
        mut waiting: impl FnMut() -> Option<D>,
        size: usize,
    ) -> (Vec<D>, Option<D>) {
        let mut group = Group { bytes: first.bytes(), members: vec![first] };
        let mut next = group.grow(&mut waiting, size);
        let mut memory = MEMORY;
        for _look in 0..LOOKS {
            let here = group.members.len();
            if next.is_some() || group.is_full(size) || count(here) >= self.lately {
                break;
            }
            tokio::time::sleep(APART).await;
            next = group.grow(&mut waiting, size);
            if group.members.len() == here {
                memory = IN_VAIN;
                break;
            }
        }
        self.lately = count(group.members.len()).max(self.lately * memory);
        (group.members, next)
    }
}

fn count(members: usize) -> f64 {
    u32::try_from(members).map_or(f64::INFINITY, f64::from)
}

struct Group<D> {
    members: Vec<D>,
    bytes: usize,
}

impl<D: Gathered> Group<D> {
    fn is_full(&self, size: usize) -> bool {
        self.members.len() >= size || self.bytes >= GROUP_BYTES
    }

    /// Takes what is here already; answers with the first that may not go with it.
    fn grow(&mut self, waiting: &mut impl FnMut() -> Option<D>, size: usize) -> Option<D> {
        while !self.is_full(size) {
            let next = waiting()?;
            if !next.may_share() {
                return Some(next);
            }
            self.bytes += next.bytes();
            self.members.push(next);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::time::Instant;

    use super::*;

    /// Of so many bytes, here after so many milliseconds.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Message {
        shares: bool,
        bytes: usize,
        after: u64,
    }

    impl Gathered for Message {
        fn may_share(&self) -> bool {
            self.shares
        }

        fn bytes(&self) -> usize {
            self.bytes
        }
    }

    const NOW: Message = Message { shares: true, bytes: 16, after: 0 };

    /// What becomes of these: how many made a group of at most 96, whether one was left over, how many milliseconds it took.
    async fn gathered(gathering: &mut Gathering, messages: &[Message]) -> (usize, bool, u128) {
        let began = Instant::now();
        let mut coming: VecDeque<Message> = messages.iter().copied().collect();
        let first = coming.pop_front().unwrap();
        let waiting = || {
            let here = Duration::from_millis(coming.front()?.after) <= began.elapsed();
            here.then(|| coming.pop_front()).flatten()
        };
        let (group, next) = gathering.gather(first, waiting, 96).await;
        (group.len(), next.is_some(), began.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_alone_where_all_come_alone_waits_for_nobody() {
        let mut gathering = Gathering::default();
        for _ in 0..3 {
            assert_eq!(gathered(&mut gathering, &[NOW]).await, (1, false, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_of_many_waits_for_as_many_as_came_together_before_while_others_come() {
        let mut gathering = Gathering::default();
        assert_eq!(gathered(&mut gathering, &[NOW; 40]).await, (40, false, 0));
        let spread =
            |apart: u64| -> Vec<Message> { (0..40).map(|n| Message { after: n / 15 * apart, ..NOW }).collect() };
        assert_eq!(gathered(&mut gathering, &spread(1)).await, (40, false, 2));
        assert_eq!(gathered(&mut gathering, &[NOW; 40]).await, (40, false, 0));
        assert_eq!(gathered(&mut gathering, &spread(3)).await, (15, false, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_others_in_a_full_group_or_before_one_that_goes_alone() {
        let mut gathering = Gathering::default();
        assert_eq!(gathered(&mut gathering, &[NOW; 200]).await, (96, false, 0));
        let large = Message { bytes: GROUP_BYTES, ..NOW };
        assert_eq!(gathered(&mut gathering, &[NOW, large, NOW]).await, (2, false, 0));
        let alone = Message { shares: false, ..NOW };
        assert_eq!(gathered(&mut gathering, &[NOW, NOW, alone, NOW]).await, (2, true, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_have_gone_are_forgotten_soon() {
        let mut gathering = Gathering::default();
        gathered(&mut gathering, &[NOW; 96]).await;
        let mut waits = 0;
        while gathered(&mut gathering, &[NOW]).await.2 > 0 {
            waits += 1;
        }
        assert_eq!(waits, 7);
    }
}
