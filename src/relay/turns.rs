//! Whose turn it is where there is no room for the bytes of all: nobody overtakes who was refused before; pure.

use std::time::{Duration, Instant};

use crate::model::TxId;

/// So many keep their turn; the others come in the order in which they are due.
const MOST: usize = 64;
/// Who does not come again for so long is gone: it is settled, or another instance has taken it.
const GONE: Duration = Duration::from_secs(2);

/// Who found no room, in the order in which they were first refused, and when they came last.
#[derive(Debug, Default)]
pub(super) struct Turns(Vec<(TxId, Instant)>);

impl Turns {
    /// Puts those who have come in the order of their turns, and behind them the others as they were.
    pub fn order(&mut self, come: &mut [(TxId, usize)], now: Instant) {
        for (tx_id, seen) in &mut self.0 {
            if come.iter().any(|(one, _)| one == tx_id) {
                *seen = now;
            }
        }
        self.0.retain(|(_, seen)| now.saturating_duration_since(*seen) < GONE);
        come.sort_by_key(|(tx_id, _)| self.0.iter().position(|(one, _)| one == tx_id).unwrap_or(MOST));
    }

    /// Whether nobody waits who was refused before it.
    pub fn is_next(&self, tx_id: TxId) -> bool {
        self.0.first().is_none_or(|(first, _)| *first == tx_id)
    }

    /// Whether it was refused before.
    pub fn has(&self, tx_id: TxId) -> bool {
        self.0.iter().any(|(one, _)| *one == tx_id)
    }

    /// It found no room. Whether it has a turn now.
    pub fn refused(&mut self, tx_id: TxId, now: Instant) -> bool {
        let had = self.has(tx_id);
        if !had && self.0.len() < MOST {
            self.0.push((tx_id, now));
            return true;
        }
        had
    }

    /// It has found room.
    pub fn placed(&mut self, tx_id: TxId) {
        self.0.retain(|(one, _)| *one != tx_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids<const N: usize>() -> [TxId; N] {
        std::array::from_fn(|_| TxId::mint())
    }

    fn order(turns: &mut Turns, come: &[TxId], now: Instant) -> Vec<TxId> {
        let mut come: Vec<_> = come.iter().map(|one| (*one, 0)).collect();
        turns.order(&mut come, now);
        come.into_iter().map(|(one, _)| one).collect()
    }

    #[test]
    fn who_was_refused_first_goes_first_and_the_others_as_they_are_due() {
        let ([first, second, new, newer], now, mut turns) = (ids(), Instant::now(), Turns::default());
        assert!(turns.is_next(new) && turns.refused(first, now) && turns.refused(second, now));
        assert_eq!(order(&mut turns, &[new, second, newer, first], now), [first, second, new, newer]);
        assert!(turns.is_next(first) && !turns.is_next(second) && !turns.is_next(new));
        turns.placed(first);
        assert!(turns.is_next(second) && !turns.is_next(new) && !turns.has(first));
        turns.placed(second);
        assert!(turns.is_next(new));
    }

    #[test]
    fn who_does_not_come_again_keeps_nobody_waiting_but_who_comes_late_keeps_its_turn() {
        let ([first, second, new], now, mut turns) = (ids(), Instant::now(), Turns::default());
        assert!(turns.refused(first, now) && turns.refused(second, now));
        assert_eq!(order(&mut turns, &[new], now + GONE / 2), [new]);
        assert!(!turns.is_next(new));
        assert_eq!(order(&mut turns, &[new, second], now + 2 * GONE), [second, new]);
        assert!(turns.is_next(second) && !turns.has(first));
    }

    #[test]
    fn so_many_have_turns_and_no_more() {
        let (now, mut turns) = (Instant::now(), Turns::default());
        let first = TxId::mint();
        assert!(turns.refused(first, now));
        let had = (0..2 * MOST).filter(|_| turns.refused(TxId::mint(), now)).count();
        assert_eq!(had, MOST - 1);
        assert!(turns.refused(first, now), "it keeps its own");
    }
}
