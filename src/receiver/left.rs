//! Why a receiver leaves its session.

use super::worker::DeliveryEnd;
use crate::broker::SessionEnd;

/// Why a session was left.
pub(super) enum Left {
    Unwanted,
    Stopping,
    /// The broker ended it.
    Lost(String),
    /// A message in the queue ends every session that it is delivered to.
    Unreadable,
    /// The database is at fault.
    Database(String),
}

impl Left {
    /// Whether a message's end is that of its session.
    pub(super) fn after(end: DeliveryEnd) -> Result<(), Self> {
        match end {
            DeliveryEnd::Settled => Ok(()),
            DeliveryEnd::Infrastructure { reason } => Err(Self::Database(reason)),
        }
    }

    pub(super) fn panicked(reason: &str) -> Self {
        Self::Lost(format!("a message's task has panicked: {reason}"))
    }
}

impl From<SessionEnd> for Left {
    fn from(end: SessionEnd) -> Self {
        match end {
            SessionEnd::Unreadable => Self::Unreadable,
            SessionEnd::Closed => Self::Lost("the session was closed".to_owned()),
            SessionEnd::Cancelled => Self::Lost("the broker cancelled the consumer".to_owned()),
            SessionEnd::ConnectionLost { reason } => Self::Lost(reason.to_string()),
        }
    }
}

pub(super) fn unreadable(queue: &str, why: &str) -> String {
    format!(
        "queue {queue} holds a message whose properties no consumer of this kind can read, and it could not be set aside: \
         {why}"
    )
}

pub(super) fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_cause(cause)),
        None => error.to_string(),
    }
}
