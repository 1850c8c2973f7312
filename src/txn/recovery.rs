//! What becomes of a prepared transaction that somebody left behind: pure (protocol §6, "Recovery").

use super::protocol::Outcome;

/// Whose it is, as the home database shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// This very incarnation; `running`: its coordinator is at work on it.
    Me { running: bool },
    /// Another incarnation, which has not been fenced.
    Live,
    /// The same, and it has left this one for longer than T_recover: it may not reach that database.
    Overdue,
    /// It can decide nothing any more.
    Fenced,
    /// Of this home, and without a row: it may not have said so yet, or its row was removed.
    Unknown,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Move {
    /// Its owner does what is needed, or is fenced first.
    Leave,
    /// Enter its incarnation as FENCED, and look again.
    Fence,
    /// Write ABORT into the decision log unless something stands there, and look again.
    Tombstone,
    /// COMMIT PREPARED or ROLLBACK PREPARED.
    Finish(Outcome),
}

/// Decides about one gid. `decision`: what the decision log held, read **after** `owner` was: a decision that was in
/// flight when its owner was fenced is then seen, and none can follow.
#[must_use]
pub const fn next(owner: Owner, decision: Option<Outcome>) -> Move {
    match (owner, decision) {
        (Owner::Me { running: true } | Owner::Live, _) | (Owner::Overdue, None) => Move::Leave,
        // What stands in the log is final, whoever finishes it.
        (Owner::Overdue, Some(outcome)) => Move::Finish(outcome),
        (Owner::Unknown, _) => Move::Fence,
        (Owner::Fenced | Owner::Me { running: false }, Some(outcome)) => Move::Finish(outcome),
        // Presumed abort.
        (Owner::Fenced, None) => Move::Finish(Outcome::Abort),
        // Its COMMIT may still be on its way: only a row in the log keeps it out.
        (Owner::Me { running: false }, None) => Move::Tombstone,
    }
}

/// Whether a COMMIT may leave the decision log: nobody is at work on it, and every database that it names was asked
/// after it was written and remembers its branch as committed.
#[must_use]
pub const fn forgettable(owner: Owner, all_committed: bool) -> bool {
    match owner {
        Owner::Me { running: true } | Owner::Live | Owner::Overdue => false,
        // A COMMIT without an instance: it was there once, and its row went with time.
        Owner::Me { running: false } | Owner::Fenced | Owner::Unknown => all_committed,
    }
}

/// What an operator asks for by hand, measured against the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByHand {
    /// Nothing speaks against it.
    Agrees,
    /// It tears the transaction apart: only by force.
    Contradicts,
    /// Its coordinator is alive and decides by itself: only by force.
    InHand,
}

/// Judges `txn resolve`.
#[must_use]
pub fn by_hand(owner: Owner, decision: Option<Outcome>, wanted: Outcome) -> ByHand {
    match (owner, decision) {
        (_, Some(outcome)) if outcome == wanted => ByHand::Agrees,
        (_, Some(_)) => ByHand::Contradicts,
        (Owner::Me { .. } | Owner::Live | Owner::Overdue, None) => ByHand::InHand,
        (Owner::Fenced | Owner::Unknown, None) if wanted == Outcome::Abort => ByHand::Agrees,
        (Owner::Fenced | Owner::Unknown, None) => ByHand::Contradicts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNERS: [Owner; 6] = [
        Owner::Me { running: true },
        Owner::Me { running: false },
        Owner::Live,
        Owner::Overdue,
        Owner::Fenced,
        Owner::Unknown,
    ];
    const DECISIONS: [Option<Outcome>; 3] = [None, Some(Outcome::Commit), Some(Outcome::Abort)];

    #[test]
    fn nothing_is_finished_against_the_log_nor_for_somebody_who_may_still_decide() {
        for owner in OWNERS {
            for decision in DECISIONS {
                if let Move::Finish(outcome) = next(owner, decision) {
                    assert_eq!(outcome, decision.unwrap_or(Outcome::Abort));
                    let may = matches!(owner, Owner::Fenced | Owner::Overdue | Owner::Me { running: false });
                    assert!(may, "{owner:?}");
                    assert!(decision.is_some() || owner == Owner::Fenced, "{owner:?} may have a COMMIT on its way");
                }
            }
        }
    }

    #[test]
    fn a_decision_stays_while_anybody_may_need_it() {
        for owner in OWNERS {
            assert!(!forgettable(owner, false));
            let over = matches!(owner, Owner::Fenced | Owner::Unknown | Owner::Me { running: false });
            assert_eq!(forgettable(owner, true), over);
        }
    }

    #[test]
    fn by_hand_only_what_the_log_would_do_goes_without_force() {
        assert_eq!(by_hand(Owner::Fenced, None, Outcome::Abort), ByHand::Agrees);
        assert_eq!(by_hand(Owner::Fenced, None, Outcome::Commit), ByHand::Contradicts);
        assert_eq!(by_hand(Owner::Live, None, Outcome::Abort), ByHand::InHand);
        for owner in OWNERS {
            assert_eq!(by_hand(owner, Some(Outcome::Commit), Outcome::Commit), ByHand::Agrees);
            assert_eq!(by_hand(owner, Some(Outcome::Commit), Outcome::Abort), ByHand::Contradicts);
        }
    }
}
