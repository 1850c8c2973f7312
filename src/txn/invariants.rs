//! What must hold of a transaction over several databases, in every state (protocol §2, I6): pure.

use super::branches::Branches;
use super::protocol::Outcome;

/// One transaction as an all-seeing observer finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Observed {
    /// The home's transaction is committed, and with it the journal row's DONE.
    pub home_committed: bool,
    /// Branches whose work is committed.
    pub committed: Branches,
    /// Branches whose work is gone.
    pub rolled_back: Branches,
    /// What the decision log holds.
    pub decision: Option<Outcome>,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Broken {
    #[error("one database has the work and another has lost it (I6)")]
    Torn,
    #[error("a branch is committed and the home is not (I5)")]
    Phantom,
    #[error("a branch is rolled back although the home is committed (I1)")]
    Lost,
    #[error("the decision log says otherwise than the home's transaction")]
    Misrecorded,
}

/// Judges any state, also in the middle of things: atomic outcome, not simultaneous visibility.
#[must_use]
pub fn broken(seen: &Observed) -> Option<Broken> {
    if !seen.committed.is_empty() && !seen.rolled_back.is_empty() {
        return Some(Broken::Torn);
    }
    if !seen.committed.is_empty() && !seen.home_committed {
        return Some(Broken::Phantom);
    }
    if seen.home_committed && !seen.rolled_back.is_empty() {
        return Some(Broken::Lost);
    }
    match (seen.decision, seen.home_committed) {
        (Some(Outcome::Commit), false) | (Some(Outcome::Abort), true) => Some(Broken::Misrecorded),
        (Some(Outcome::Commit), true) | (Some(Outcome::Abort), false) | (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_break_a_transaction_is_seen() {
        let (one, none) = (Branches::NONE.with(0), Branches::NONE);
        let seen = Observed::default();
        let both = Observed { home_committed: true, committed: one, rolled_back: Branches::NONE.with(1), ..seen };
        assert_eq!(broken(&both), Some(Broken::Torn));
        assert_eq!(broken(&Observed { committed: one, ..seen }), Some(Broken::Phantom));
        assert_eq!(broken(&Observed { home_committed: true, rolled_back: one, ..seen }), Some(Broken::Lost));
        assert_eq!(broken(&Observed { decision: Some(Outcome::Commit), ..seen }), Some(Broken::Misrecorded));
        let whole =
            Observed { home_committed: true, committed: one, rolled_back: none, decision: Some(Outcome::Commit) };
        assert_eq!(broken(&whole), None);
        assert_eq!(broken(&Observed { rolled_back: one, ..seen }), None);
    }
}
