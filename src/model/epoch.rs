//! How far a home has come: a number that its database holds, and that each broker is shown.

use uuid::Uuid;

use super::HomeId;

/// An epoch as one database holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    pub home: HomeId,
    pub number: u64,
    /// Fresh with each raise: two databases that were raised to the same number are told apart by it.
    pub token: Uuid,
}
