//! What a client is told. Anybody may ask: what the database or the broker says of the installation goes to the log alone.

use jiff::Timestamp;

use super::InboundSettings;
use crate::model::MessageId;
use crate::pipeline::{FailureKind, StepFailure};
use crate::store::StoreError;

/// The truth about one POST. Reasons are public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// Accepted before, durably; `conflict`: with another body.
    Duplicate {
        conflict: bool,
    },
    /// Nothing was done and nothing will be (I2).
    Refused {
        reason: String,
    },
    /// A step failed and everything was rolled back (I2); `data`: by the message's own fault.
    Failed {
        step: String,
        reason: String,
        data: bool,
    },
    /// The same id tells, repeated (I3).
    Unknown {
        reason: String,
    },
}

impl Answer {
    /// A step of the adapter's pipeline did not do it. `None`: a plan that the session had kept may be to blame.
    pub(super) fn failed_by(failure: StepFailure, inbound: &InboundSettings, message_id: &MessageId) -> Option<Self> {
        let StepFailure { step, chain, reason, public, kind } = failure;
        let (step, adapter) = (format!("{chain} > {step}"), &inbound.adapter);
        let warn = || tracing::warn!(%adapter, message.id = %message_id, step, reason, "a message was refused");
        Some(match kind {
            FailureKind::StalePlan => return None,
            // The same message may well pass a moment later.
            FailureKind::Infrastructure(_) => {
                warn();
                Self::Refused { reason: format!("{step}: {public}") }
            }
            FailureKind::Step => {
                warn();
                Self::Failed { step, reason: public, data: false }
            }
            // The client's own data is no trouble of ours.
            FailureKind::Permanent => {
                tracing::info!(%adapter, message.id = %message_id, step, reason, "a message was refused: its data");
                Self::Failed { step, reason: public, data: true }
            }
        })
    }

    /// The database did not do it.
    pub(super) fn refused_by(error: &StoreError, message_id: &MessageId) -> Self {
        tracing::warn!(message.id = %message_id, %error, "a message was refused");
        Self::Refused { reason: error.public() }
    }

    /// The database may have done it.
    pub(super) fn unknown_after(error: &StoreError, message_id: &MessageId) -> Self {
        tracing::warn!(message.id = %message_id, %error, "not known whether it was accepted");
        Self::Unknown { reason: error.public() }
    }
}

/// Why a message would not be taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady {
    /// With what the broker says, which may name users and virtual hosts.
    pub reason: String,
    pub public: String,
    /// What the trouble is with: the same as long as it lasts, whatever the reason says.
    pub about: String,
    /// Where that is known.
    pub since: Option<Timestamp>,
}

impl NotReady {
    /// In words of our own.
    pub(super) fn own(about: impl Into<String>, reason: String) -> Self {
        Self { public: reason.clone(), reason, about: about.into(), since: None }
    }
}
