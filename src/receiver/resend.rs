//! Resending from the error store, straight into the pipeline (F8, protocol §5).

use std::time::Duration;

use serde::Serialize;

use crate::model::{MessageKey, SlotId, TxId};
use crate::store::{Store, StoreError};

/// Who asks, and why; both go on record.
#[derive(Debug, Clone)]
pub struct Actor {
    pub who: String,
    pub why: Option<String>,
}

/// The truth about one resend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum ResendOutcome {
    /// Processed; the row is gone.
    Succeeded,
    /// Processed and failed; exactly one row stands where it stood, with the same messagekey.
    Failed { step: Option<String>, reason: String },
    /// Still at work after the bound; its trace tells the end.
    Running { tx_id: TxId },
    /// Somebody else has claimed it.
    Claimed { who: String, since: jiff::Timestamp },
    /// No such row.
    NotFound,
    /// Nothing was done: the slot belongs to no receiver, its adapter is stopped, or a confirmation is needed.
    Refused { reason: String },
}

/// Resends from the error store, one claim at a time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Resender {
    store: Store,
}

impl Resender {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Resends one row of an error slot and waits for the truth, at most `bound`; `confirmed` says that the operator
    /// knows the message was probably processed already.
    pub async fn resend(
        &self,
        slot: &SlotId,
        key: MessageKey,
        actor: &Actor,
        confirmed: bool,
        bound: Duration,
    ) -> Result<ResendOutcome, StoreError> {
        let _placeholder = (&self.store, slot, key, actor, confirmed, bound);
        Ok(ResendOutcome::Refused { reason: "this version cannot resend yet".to_owned() })
    }
}
