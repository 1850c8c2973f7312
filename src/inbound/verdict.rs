//! What an answer of the database means for the client: pure (protocol §4, "none after sending").

use crate::store::StoreError;

/// What follows a failed try of the accepting statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// Our own tx_id stands there: an earlier try was committed.
    Accepted,
    /// Nothing was done, and nothing will be.
    None,
    /// Execute the same statement again, with the same tx_id.
    Again,
}

/// `earlier_unknown`: a try of this request before this one had an unknown outcome.
#[must_use]
pub fn after_failure(error: &StoreError, earlier_unknown: bool) -> AfterFailure {
    match error {
        // Another session may hold the same id: it may be accepted afterwards.
        StoreError::Refused { sqlstate, .. } if matches!(sqlstate.as_str(), "55P03" | "57014" | "40P01" | "40001") => {
            AfterFailure::Again
        }
        StoreError::Refused { sqlstate, constraint, .. }
            if sqlstate == "23505" && is_own_row(constraint.as_deref()) =>
        {
            AfterFailure::Accepted
        }
        StoreError::Refused { .. } | StoreError::Unreachable(_) if !earlier_unknown => AfterFailure::None,
        StoreError::Refused { .. } | StoreError::Unreachable(_) | StoreError::Unknown(_) => AfterFailure::Again,
        StoreError::Unexpected(_) => AfterFailure::Again,
    }
}

/// Whether a failed group did nothing at all, so that each of its messages is tried alone, as if for the first time: whose
/// fault it was only its own try tells.
#[must_use]
pub fn undone(error: &StoreError) -> bool {
    match error {
        StoreError::Refused { .. } => true,
        // Nothing was sent, and nothing else would get there: each is refused.
        StoreError::Unreachable(_) => false,
        StoreError::Unknown(_) | StoreError::Unexpected(_) => false,
    }
}

/// The primary keys that hold our tx_id.
fn is_own_row(constraint: Option<&str>) -> bool {
    matches!(constraint, Some("journal_pkey" | "payload_pkey" | "lineage_pkey"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sqlstate: &str, constraint: Option<&str>) -> StoreError {
        StoreError::Refused {
            sqlstate: sqlstate.to_owned(),
            message: String::new(),
            constraint: constraint.map(str::to_owned),
        }
    }

    #[test]
    fn waiting_on_the_same_id_is_never_answered_none() {
        for sqlstate in ["55P03", "57014", "40P01", "40001"] {
            assert_eq!(after_failure(&refused(sqlstate, None), false), AfterFailure::Again, "{sqlstate}");
        }
    }

    #[test]
    fn an_error_of_a_living_session_is_none_only_when_no_earlier_try_is_unknown() {
        let full = refused("53100", None);
        assert_eq!(after_failure(&full, false), AfterFailure::None);
        assert_eq!(after_failure(&full, true), AfterFailure::Again);
        let down = StoreError::Unreachable("down".to_owned());
        assert_eq!(after_failure(&down, false), AfterFailure::None);
        assert_eq!(after_failure(&down, true), AfterFailure::Again);
    }

    #[test]
    fn a_lost_connection_is_never_answered_none() {
        for earlier in [false, true] {
            assert_eq!(after_failure(&StoreError::Unknown(String::new()), earlier), AfterFailure::Again);
        }
    }

    #[test]
    fn only_a_group_that_is_known_to_be_undone_is_tried_alone_as_if_for_the_first_time() {
        for sqlstate in ["23514", "22P05", "53100", "55P03", "57014", "40P01"] {
            assert!(undone(&refused(sqlstate, None)), "{sqlstate}");
        }
        for error in [StoreError::Unknown(String::new()), StoreError::Unexpected(String::new())] {
            assert!(!undone(&error) && after_failure(&error, false) == AfterFailure::Again, "{error}");
        }
        let unsent = StoreError::Unreachable(String::new());
        assert!(!undone(&unsent) && after_failure(&unsent, false) == AfterFailure::None);
    }

    #[test]
    fn our_own_id_standing_there_already_means_accepted() {
        assert_eq!(after_failure(&refused("23505", Some("journal_pkey")), true), AfterFailure::Accepted);
        assert_eq!(after_failure(&refused("23505", Some("ibisstore_pkey")), false), AfterFailure::None);
    }
}
