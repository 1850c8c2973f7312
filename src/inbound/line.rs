//! Who waits to be accepted, and who goes with whom. Pure (protocol §7).

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::oneshot;

use super::Accept;
use super::accept::Room;
use super::group::Together;
use crate::model::TxId;
use crate::store::{AcceptRequest, GROUP_CONNECTIONS};

/// Most messages that are accepted together.
const GROUP: usize = 256;
/// Most bytes of bodies and headers that are accepted together; one larger message goes alone.
const GROUP_BYTES: usize = 256 * 1024;
/// What makes a second group, see [`Line::second`]: so many,
const SECOND: f64 = 32.0;
/// this part of a large crowd,
const HALF: f64 = 0.5;
/// this part of a small one, but for one message.
const SHARE: f64 = 0.6;
/// How much of the crowd is remembered from one group to the next.
const MEMORY: f64 = 0.97;

/// A message that wants to be accepted with others.
pub(super) struct Member {
    pub(super) request: Box<AcceptRequest>,
    /// Whether its answer waits for the broker.
    pub(super) accept: Accept,
    /// Kept until it is published.
    pub(super) room: Room,
    pub(super) tell: oneshot::Sender<Together>,
}

/// Who waits, and how many groups are under way.
#[derive(Default)]
pub(super) struct Line {
    pub(super) waiting: VecDeque<Member>,
    /// Of all that wait, as [`size`] counts.
    bytes: usize,
    /// Groups whose statement has not ended.
    deciding: usize,
    /// Groups that were taken less than [`HOLD`](super::group::HOLD) ago and are not published yet, by their number, and how
    /// many of their members have no answer.
    young: BTreeMap<u64, usize>,
    /// Groups that were ever taken.
    taken: u64,
    /// The most that lately waited or were in hand.
    crowd: f64,
}

impl Line {
    pub(super) fn push(&mut self, member: Member) {
        self.bytes += size(&member.request);
        self.waiting.push_back(member);
    }

    /// `None`: it does not wait any more.
    pub(super) fn withdraw(&mut self, tx_id: TxId) -> Option<Member> {
        let place = self.waiting.iter().position(|member| member.request.envelope.tx_id == tx_id)?;
        let member = self.waiting.remove(place)?;
        self.bytes -= size(&member.request);
        Some(member)
    }

    /// Whether those who wait make a group beside the groups that are under way.
    fn next_may_go(&self) -> bool {
        let waiting = self.waiting.len();
        if waiting == 0 || self.deciding >= GROUP_CONNECTIONS {
            return false;
        }
        // Whoever comes later would not make it any larger.
        let full = waiting >= GROUP || self.bytes >= GROUP_BYTES;
        full || self.young.is_empty() || (self.young.len() == 1 && count(waiting) >= self.second())
    }

    /// How many make a second group: about half of the crowd, so that it is large and is still written while the first is
    /// published; of less than 64 a little more than half, but not more than 32.
    fn second(&self) -> f64 {
        SECOND.max(self.crowd * HALF).min(self.crowd * SHARE - 1.0)
    }

    /// A group's statement has ended.
    pub(super) fn decided(&mut self) {
        self.deciding -= 1;
    }

    /// So many members of a group have their answer: soon they may wait again, and are not to be counted twice.
    pub(super) fn answered(&mut self, group: u64, members: usize) {
        if let Some(in_hand) = self.young.get_mut(&group) {
            *in_hand = in_hand.saturating_sub(members);
        }
    }

    /// A group is published, or has taken long.
    pub(super) fn grown(&mut self, group: u64) {
        self.young.remove(&group);
    }

    fn in_hand(&self) -> usize {
        self.young.values().sum()
    }

    /// Those who go together now, and their group's number.
    pub(super) fn next_group(&mut self) -> Option<(u64, Vec<Member>)> {
        if !self.next_may_go() {
            return None;
        }
        self.crowd = count(self.waiting.len() + self.in_hand()).max(self.crowd * MEMORY);
        let many = cut(self.waiting.iter().map(|member| size(&member.request)));
        let group: Vec<Member> = self.waiting.drain(..many).collect();
        self.bytes -= group.iter().map(|member| size(&member.request)).sum::<usize>();
        self.deciding += 1;
        self.taken += 1;
        self.young.insert(self.taken, many);
        Some((self.taken, group))
    }
}

fn count(members: usize) -> f64 {
    u32::try_from(members).map_or(f64::INFINITY, f64::from)
}

/// What it adds to the statement, nearly.
fn size(request: &AcceptRequest) -> usize {
    let headers = request.envelope.headers.iter().map(|(name, value)| name.len() + value.len());
    request.envelope.body.len() + headers.sum::<usize>()
}

/// How many of those that wait, in their order, make the next group: at least one.
fn cut(sizes: impl Iterator<Item = usize>) -> usize {
    let sums = sizes.scan(0_usize, |sum, size| {
        *sum = sum.saturating_add(size);
        Some(*sum)
    });
    sums.take(GROUP).take_while(|sum| *sum <= GROUP_BYTES).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Envelope, Headers, MessageId};

    fn member(bytes: usize) -> Member {
        let (tx_id, id) = (TxId::mint(), MessageId::mint());
        let envelope = Envelope {
            tx_id,
            root_id: tx_id.into(),
            message_id: id.clone(),
            correlation_id: id,
            content_type: None,
            headers: Headers::new(),
            body: vec![0; bytes].into(),
        };
        let request = AcceptRequest { envelope, sha256: [0; 32], host: "host".into(), log: None, outgoing: Vec::new() };
        Member {
            request: Box::new(request),
            accept: Accept::Confirmed,
            room: Room::default(),
            tell: oneshot::channel().0,
        }
    }

    fn push(line: &mut Line, many: usize, bytes: usize) {
        (0..many).for_each(|_| line.push(member(bytes)));
    }

    /// How many go now.
    fn next(line: &mut Line) -> usize {
        line.next_group().map_or(0, |(_, group)| group.len())
    }

    /// A group of so many has gone, and so many wait.
    fn behind(first: usize, waiting: usize, bytes: usize) -> Line {
        let mut line = Line::default();
        push(&mut line, first, bytes);
        assert_eq!(next(&mut line), first);
        push(&mut line, waiting, bytes);
        line
    }

    #[test]
    fn whoever_comes_alone_goes_at_once() {
        let mut line = Line::default();
        assert_eq!(next(&mut line), 0);
        push(&mut line, 1, 16);
        assert_eq!((next(&mut line), next(&mut line)), (1, 0));
    }

    #[test]
    fn until_a_group_is_published_about_half_of_the_crowd_makes_a_second_one_and_there_is_no_third() {
        for (crowd, most) in [(1, 1), (3, 1), (16, 9), (40, 23), (55, 32), (64, 32), (66, 33), (250, 125)] {
            let mut line = behind(crowd, most - 1, 16);
            assert_eq!(next(&mut line), 0, "{crowd}");
            line.decided();
            assert_eq!(next(&mut line), 0, "{crowd}");
            push(&mut line, 1, 16);
            assert_eq!(next(&mut line), most, "{crowd}");
            line.decided();
            push(&mut line, 200, 16);
            assert_eq!(next(&mut line), 0, "{crowd}");
            line.grown(2);
            assert_eq!(next(&mut line), 200, "{crowd}");
        }
    }

    #[test]
    fn a_crowd_that_has_gone_is_forgotten() {
        let mut line = Line::default();
        push(&mut line, 60, 16);
        for group in [60].into_iter().chain([4; 100]) {
            assert_eq!(next(&mut line), group);
            line.decided();
            line.grown(line.taken);
            push(&mut line, 4, 16);
        }
        assert_eq!(next(&mut line), 4);
        push(&mut line, 1, 16);
        assert_eq!(next(&mut line), 0);
        push(&mut line, 1, 16);
        assert_eq!(next(&mut line), 2);
    }

    #[test]
    fn a_group_that_has_taken_long_holds_up_nobody() {
        let mut line = behind(9, 1, 16);
        assert_eq!(next(&mut line), 0);
        line.grown(1);
        assert_eq!(next(&mut line), 1);
        assert_eq!((line.deciding, line.young.len(), line.in_hand()), (2, 1, 1));
    }

    #[test]
    fn who_has_his_answer_and_waits_again_is_one_of_the_crowd_and_not_two() {
        let mut line = behind(64, 0, 16);
        line.decided();
        line.answered(1, 32);
        push(&mut line, 32, 16);
        assert_eq!((next(&mut line), line.crowd, line.in_hand()), (32, 64.0, 64));
        line.answered(1, 32);
        line.grown(1);
        // Too late to matter.
        line.answered(1, 32);
        assert_eq!(line.in_hand(), 32);
    }

    #[test]
    fn a_full_group_waits_for_no_confirm_and_no_group_goes_without_a_session() {
        let few = GROUP_BYTES / 65_536;
        for (many, bytes) in [(few, 65_536), (GROUP, 16)] {
            let mut line = behind(many, many + 1, bytes);
            assert_eq!(next(&mut line), many);
            push(&mut line, many, bytes);
            assert_eq!((next(&mut line), line.deciding), (0, GROUP_CONNECTIONS));
            line.decided();
            assert_eq!((next(&mut line), line.young.len(), line.in_hand()), (many, 3, 3 * many));
            (1..=3).for_each(|group| line.grown(group));
            assert_eq!((next(&mut line), line.waiting.len(), line.in_hand()), (0, 1, 0));
        }
    }

    #[test]
    fn the_bytes_that_wait_are_those_of_the_members_that_wait() {
        let mut line = Line::default();
        (0..GROUP_BYTES / 65_536 + 3).for_each(|_| line.push(member(65_536)));
        assert!(line.next_group().is_some());
        assert_eq!((line.bytes, line.deciding, line.young.len()), (3 * 65_536, 1, 1));
        let last = line.waiting[2].request.envelope.tx_id;
        assert!(line.withdraw(last).is_some() && line.withdraw(last).is_none());
        assert_eq!((line.bytes, line.waiting.len()), (2 * 65_536, 2));
    }

    #[test]
    fn a_group_is_all_that_wait() {
        for many in [1, 2, 17, GROUP] {
            assert_eq!(cut(vec![16; many].into_iter()), many);
        }
    }

    #[test]
    fn a_group_has_at_most_so_many_messages() {
        assert_eq!(cut(vec![0; GROUP + 1].into_iter()), GROUP);
    }

    #[test]
    fn a_group_has_at_most_so_many_bytes() {
        assert_eq!(cut([GROUP_BYTES - 1, 1, 0].into_iter()), 3);
        assert_eq!(cut([GROUP_BYTES - 1, 2, 0].into_iter()), 1);
        assert_eq!(cut([1, GROUP_BYTES, 1].into_iter()), 1);
    }

    #[test]
    fn a_message_larger_than_a_group_goes_alone() {
        assert_eq!(cut([GROUP_BYTES + 1, 1].into_iter()), 1);
        assert_eq!(cut([usize::MAX, usize::MAX].into_iter()), 1);
        assert_eq!(cut([1, GROUP_BYTES + 1].into_iter()), 1);
    }
}
