//! How far a client is behind, who makes room when connections are full, and what counts as one address. Pure.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// What a client is to send of a body, and to take of an answer: bytes a second, on average.
pub(super) const PACE: u64 = 512;
/// After so long without a newcomer who found connections full, and with room, that is over.
const CALM: Duration = Duration::from_secs(5);

/// What a connection is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Nothing of a next request has come.
    Idle,
    /// A request's head is coming.
    Head,
    /// More of a body is waited for.
    Body,
    /// It is our turn.
    Deciding,
    /// An answer is on its way.
    Answer,
}

/// A connection at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub phase: Phase,
    /// Grows when a head, a request, an answer or a pause between requests begins. From 1.
    pub stage: u64,
    /// That the client has sent or taken so far.
    pub bytes: u64,
}

/// What is known of a connection since the last look at it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    pub stage: u64,
    bytes: u64,
    /// The time in this stage that no byte has paid for, at [`PACE`]: how long it has stood still, or been too slow.
    pub behind: Duration,
}

impl Standing {
    /// `passed`: since the last look. Time in which it is our turn does not count.
    pub fn look(&mut self, seen: Seen, passed: Duration) {
        let moved = seen.bytes.saturating_sub(self.bytes);
        self.bytes = seen.bytes;
        if seen.stage != self.stage {
            (self.stage, self.behind) = (seen.stage, Duration::ZERO);
            return;
        }
        let waited = if seen.phase == Phase::Deciding { Duration::ZERO } else { passed };
        let paid = Duration::from_micros(moved.saturating_mul(1_000_000 / PACE));
        self.behind = (self.behind + waited).saturating_sub(paid);
    }

    /// Whether it is to be cut off. Heads and pauses between requests have a time-out of their own.
    pub fn is_too_slow(&self, phase: Phase, bound: Duration) -> bool {
        matches!(phase, Phase::Body | Phase::Answer) && self.behind >= bound
    }
}

/// A connection that may have to make room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub id: u64,
    /// Open connections of its address.
    pub of_address: usize,
    pub phase: Phase,
    pub behind: Duration,
}

/// Who makes room for a newcomer: of the address with most connections one between requests, else the one that is furthest
/// behind. Nobody whose message is being decided upon, and nobody who has moved since the last look.
pub(super) fn slowest(candidates: impl IntoIterator<Item = Candidate>) -> Option<u64> {
    let still = candidates.into_iter().filter(|one| one.phase != Phase::Deciding && !one.behind.is_zero());
    let slowest = still.max_by_key(|one| (one.of_address, one.phase == Phase::Idle, one.behind, Reverse(one.id)));
    slowest.map(|one| one.id)
}

/// What counts as one address: an IPv4 address however it is written, and a /64 of IPv6, which a single host may have.
pub(super) fn address_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// Whether somebody was told that connections are full, so that it is told once, and its end once.
#[derive(Debug, Default)]
pub(super) struct Fullness {
    /// How long no newcomer found them full; `None`: nothing was told.
    calm: Option<Duration>,
}

impl Fullness {
    /// A newcomer finds them full. Answers whether that is news.
    pub fn is_full(&mut self) -> bool {
        self.calm.replace(Duration::ZERO).is_none()
    }

    /// Answers whether it is over now.
    pub fn is_over(&mut self, passed: Duration, room: bool) -> bool {
        let Some(calm) = &mut self.calm else { return false };
        *calm = if room { *calm + passed } else { Duration::ZERO };
        self.calm.take_if(|calm| *calm >= CALM).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seen(phase: Phase, stage: u64, bytes: u64) -> Seen {
        Seen { phase, stage, bytes }
    }

    /// How far behind is who shows this at looks a second apart.
    fn behind(looks: impl IntoIterator<Item = Seen>) -> Duration {
        let mut standing = Standing::default();
        looks.into_iter().for_each(|seen| standing.look(seen, SECOND));
        standing.behind
    }

    #[test]
    fn who_stands_still_is_behind_by_the_time_since_and_a_first_look_only_begins() {
        for phase in [Phase::Idle, Phase::Head, Phase::Body, Phase::Answer] {
            assert_eq!(behind([seen(phase, 1, 0)]), Duration::ZERO);
            assert_eq!(behind([seen(phase, 1, 7); 4]), 3 * SECOND);
        }
    }

    #[test]
    fn a_byte_a_second_holds_nothing_up_and_the_pace_is_enough() {
        let sending = |pace: u64| behind((0..=60).map(|second| seen(Phase::Body, 3, second * pace)));
        assert!(sending(1) > 59 * SECOND, "{:?}", sending(1));
        assert!(sending(PACE / 2) > 29 * SECOND, "{:?}", sending(PACE / 2));
        assert!(sending(PACE) < SECOND / 10, "{:?}", sending(PACE));
        assert_eq!(sending(PACE * 100), Duration::ZERO);
    }

    #[test]
    fn what_was_fast_once_pays_for_no_pause_afterwards() {
        let fast = (0..10).map(|second| seen(Phase::Answer, 3, second << 20));
        assert_eq!(behind(fast.chain([seen(Phase::Answer, 3, 9 << 20); 5])), 5 * SECOND);
    }

    #[test]
    fn a_new_stage_begins_anew_and_our_own_time_does_not_count() {
        assert_eq!(behind([seen(Phase::Idle, 1, 0), seen(Phase::Idle, 1, 0), seen(Phase::Head, 2, 1)]), Duration::ZERO);
        assert_eq!(behind([seen(Phase::Deciding, 3, 0); 60]), Duration::ZERO);
        let turns = [seen(Phase::Body, 3, 0), seen(Phase::Body, 3, 0), seen(Phase::Deciding, 3, 1)];
        assert!(behind(turns) > SECOND * 9 / 10, "a byte does not make up for a second");
    }

    #[test]
    fn bodies_and_answers_have_this_bound_and_nothing_else() {
        let standing = Standing { behind: 10 * SECOND, ..Standing::default() };
        for (phase, cut) in [
            (Phase::Idle, false),
            (Phase::Head, false),
            (Phase::Body, true),
            (Phase::Deciding, false),
            (Phase::Answer, true),
        ] {
            assert_eq!(standing.is_too_slow(phase, 10 * SECOND), cut, "{phase:?}");
            assert!(!standing.is_too_slow(phase, 11 * SECOND));
        }
    }

    /// Number, connections of the address, phase, seconds behind.
    fn chosen(all: &[(u64, usize, Phase, u64)]) -> Option<u64> {
        let candidate = |&(id, of_address, phase, seconds)| Candidate {
            id,
            of_address,
            phase,
            behind: Duration::from_secs(seconds),
        };
        // Whatever the order.
        let (forth, back) = (slowest(all.iter().map(candidate)), slowest(all.iter().rev().map(candidate)));
        assert_eq!(forth, back);
        forth
    }

    #[test]
    fn the_busiest_address_makes_room_however_slow_others_are() {
        assert_eq!(chosen(&[(1, 1, Phase::Idle, 500), (2, 2, Phase::Body, 1), (3, 2, Phase::Body, 2)]), Some(3));
        assert_eq!(chosen(&[(1, 1, Phase::Answer, 500), (2, 2, Phase::Head, 1), (3, 2, Phase::Answer, 1)]), Some(2));
    }

    #[test]
    fn of_an_address_a_pause_between_requests_goes_first_then_who_is_furthest_behind() {
        assert_eq!(chosen(&[(1, 3, Phase::Body, 500), (2, 3, Phase::Idle, 1), (3, 3, Phase::Idle, 2)]), Some(3));
        assert_eq!(chosen(&[(1, 3, Phase::Body, 5), (2, 3, Phase::Answer, 7), (3, 3, Phase::Head, 6)]), Some(2));
        assert_eq!(chosen(&[(2, 2, Phase::Body, 5), (1, 2, Phase::Body, 5)]), Some(1), "then the oldest");
    }

    #[test]
    fn whose_message_is_being_decided_upon_stays_and_so_does_who_moves() {
        assert_eq!(chosen(&[(1, 9, Phase::Deciding, 500), (2, 1, Phase::Answer, 1)]), Some(2));
        assert_eq!(chosen(&[(1, 9, Phase::Body, 0), (2, 1, Phase::Body, 1)]), Some(2));
        assert_eq!(chosen(&[(1, 9, Phase::Deciding, 500), (2, 9, Phase::Idle, 0)]), None);
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn ipv4_is_one_address_however_it_is_written_and_ipv6_counts_by_64_bits() {
        let of = |text: &str| address_of(text.parse().unwrap()).to_string();
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("2001:db8:1:3:3:4:5:6"), "2001:db8:1:3::");
    }

    #[test]
    fn that_connections_are_full_is_told_once_and_so_is_its_end() {
        let mut full = Fullness::default();
        assert!(!full.is_over(CALM, true), "nothing was told");
        assert!(full.is_full() && !full.is_full());
        assert!(!full.is_over(CALM, false), "nobody came, and there is no room");
        assert!(!full.is_over(CALM / 2, true) && !full.is_full() && !full.is_over(CALM / 2, true), "one more came");
        assert!(full.is_over(CALM / 2, true) && !full.is_over(CALM, true));
        assert!(full.is_full(), "it is news again");
    }
}
