use std::collections::{BTreeSet, VecDeque};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;

fn delivered(tags: impl IntoIterator<Item = Tag>) -> Tags {
    let all = Tags::default();
    for tag in tags {
        all.delivered(tag, 10);
    }
    all
}

#[test]
fn all_that_is_unsettled_goes_together() {
    let tags = delivered(1..=5);
    assert_eq!(tags.together(&[1, 2, 3, 4, 5]), 5);
    assert_eq!(tags.together(&[1, 2]), 2);
    assert_eq!(tags.together(&[]), 0);
}

#[test]
fn what_others_hold_ends_it() {
    let tags = delivered(1..=5);
    assert_eq!(tags.together(&[1, 2, 4, 5]), 2);
    assert_eq!(tags.together(&[2, 3]), 0);
    tags.settled([1]);
    assert_eq!(tags.together(&[2, 3]), 2);
}

#[test]
fn what_is_settled_among_them_does_not_matter() {
    let tags = delivered(1..=5);
    tags.settled([2, 4]);
    assert_eq!(tags.together(&[1, 3, 5]), 3);
}

#[test]
fn a_delivery_that_nobody_saw_is_never_covered() {
    let tags = delivered([1, 2, 4, 5]);
    assert_eq!(tags.together(&[1, 2, 4, 5]), 2);
    assert_eq!(delivered([3]).together(&[3]), 0);
}

#[test]
fn bytes_are_those_of_what_is_not_settled() {
    let tags = delivered([1, 2, 4]);
    assert_eq!(tags.bytes(), 30);
    assert_eq!(tags.until_at_most(29).now_or_never(), None);
    tags.settled([2, 2, 9]);
    assert_eq!(tags.bytes(), 20);
    assert_eq!(tags.until_at_most(20).now_or_never(), Some(()));
}

#[tokio::test]
async fn who_waits_for_bytes_to_be_settled_is_woken() {
    let tags = delivered(1..=3);
    let settle = async {
        for tag in 1..=3 {
            tokio::task::yield_now().await;
            tags.settled([tag]);
        }
    };
    tokio::join!(tags.until_at_most(0), settle);
}

/// What the client has begun and the broker may not have seen.
struct Frame {
    tag: Tag,
    multiple: bool,
    /// What whoever sent it wants to be settled.
    meant: Vec<Tag>,
}

/// A channel with both its ends.
#[derive(Default)]
struct Channel {
    tags: Tags,
    /// The broker's end.
    latest: Tag,
    unsettled: BTreeSet<Tag>,
    /// Read by the client and taken by nobody.
    buffered: VecDeque<Tag>,
    held: Vec<Tag>,
    begun: Vec<Frame>,
    /// Written, and who sent them does not know yet.
    written: Vec<Vec<Tag>>,
}

#[derive(Debug, Clone)]
enum Act {
    Deliver,
    /// The library loses one that it has read.
    Lose,
    Take,
    /// These of those in hand, by their places.
    Ack(BTreeSet<usize>),
    Requeue(usize),
    /// A token is dropped.
    Keep(usize),
    /// Frames of different callers are written in any order.
    Write(usize),
    Learn(usize),
    /// The caller goes away before it learns that its frame was written.
    Abandon(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let place = 0..40_usize;
    prop_oneof![
        12 => Just(Act::Deliver),
        12 => Just(Act::Take),
        4 => proptest::collection::btree_set(place.clone(), 1..20).prop_map(Act::Ack),
        2 => place.clone().prop_map(Act::Requeue),
        5 => place.clone().prop_map(Act::Write),
        5 => place.clone().prop_map(Act::Learn),
        // Rarely: each ends what can be covered for good.
        1 => prop_oneof![
            9 => Just(Act::Take),
            1 => Just(Act::Lose),
            1 => place.clone().prop_map(Act::Keep),
            1 => place.prop_map(Act::Abandon),
        ],
    ]
}

fn one<T>(from: &mut Vec<T>, place: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(place % from.len()))
}

impl Channel {
    fn act(&mut self, act: Act) {
        match act {
            Act::Deliver => {
                self.latest += 1;
                self.unsettled.insert(self.latest);
                self.buffered.push_back(self.latest);
            }
            Act::Lose => drop(self.buffered.pop_front()),
            Act::Take => {
                if let Some(tag) = self.buffered.pop_front() {
                    self.tags.delivered(tag, 1);
                    self.held.push(tag);
                }
            }
            Act::Ack(places) => {
                let (asked, held) = self.held.iter().enumerate().partition(|(place, _)| places.contains(place));
                let values = |chosen: Vec<(usize, &Tag)>| chosen.into_iter().map(|(_, tag)| *tag).collect::<Vec<_>>();
                let (mut asked, held) = (values(asked), values(held));
                self.held = held;
                asked.sort_unstable();
                let alone = asked.split_off(self.tags.together(&asked));
                if let Some(tag) = asked.last() {
                    self.begun.push(Frame { tag: *tag, multiple: true, meant: asked });
                }
                self.begun.extend(alone.into_iter().map(single));
            }
            Act::Requeue(place) => self.begun.extend(one(&mut self.held, place).map(single)),
            Act::Keep(place) => drop(one(&mut self.held, place)),
            Act::Write(place) => {
                if let Some(frame) = one(&mut self.begun, place) {
                    self.receive(&frame);
                    self.written.push(frame.meant);
                }
            }
            Act::Learn(place) => self.tags.settled(one(&mut self.written, place).into_iter().flatten()),
            Act::Abandon(place) => drop(one(&mut self.written, place)),
        }
    }

    /// What RabbitMQ does with it.
    fn receive(&mut self, frame: &Frame) {
        assert!(self.unsettled.contains(&frame.tag), "unknown delivery tag {}", frame.tag);
        let covered: Vec<Tag> = match frame.multiple {
            true => self.unsettled.range(..=frame.tag).copied().collect(),
            false => vec![frame.tag],
        };
        assert_eq!(covered, frame.meant);
        self.unsettled.retain(|tag| !covered.contains(tag));
    }
}

fn single(tag: Tag) -> Frame {
    Frame { tag, multiple: false, meant: vec![tag] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_order_each_acknowledgement_is_known_and_covers_what_was_meant(
        acts in proptest::collection::vec(act(), 0..200),
    ) {
        let mut channel = Channel::default();
        for act in acts {
            channel.act(act);
        }
        while !channel.begun.is_empty() {
            channel.act(Act::Write(0));
        }
    }
}
