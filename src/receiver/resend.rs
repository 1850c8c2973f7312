//! Resending from the error store, straight into the pipeline (F8, protocol §5).

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{AttemptEnd, Processor, ReceiverSettings};
use crate::model::{MessageKey, SlotId, TxId};
use crate::store::{ResendClaim, ResendRequest, StoreError};

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

/// Parked messages older than this were probably done: their resend asks for a confirmation (T_keep).
const KEEP: Duration = Duration::from_secs(7 * 86_400);

/// Resends from the error store, one claim at a time. Cheap to clone.
#[derive(Clone)]
pub struct Resender {
    processor: Processor,
    receivers: Arc<Vec<ReceiverSettings>>,
}

impl Resender {
    #[must_use]
    pub fn new(processor: Processor, receivers: Vec<ReceiverSettings>) -> Self {
        Self { processor, receivers: Arc::new(receivers) }
    }

    /// Claims the row and takes its message through the pipeline, in a transaction. Waits at most `bound` for the end;
    /// the work goes on by itself. `confirmed`: the operator knows that an old parked message was probably done.
    ///
    /// # Errors
    /// The claim failed. With `Unknown` it may have succeeded: its row in the store, or its trace, tells.
    pub async fn resend(
        &self,
        slot_id: &SlotId,
        key: MessageKey,
        actor: &Actor,
        confirmed: bool,
        bound: Duration,
    ) -> Result<ResendOutcome, StoreError> {
        let Some(settings) = self.receivers.iter().find(|receiver| receiver.error_slot == *slot_id) else {
            let reason = format!("no receiver claims slot {slot_id}; its messages can be shown, exported and deleted");
            return Ok(ResendOutcome::Refused { reason });
        };
        if !self.processor.registry.is_wanted(&settings.adapter) {
            let reason = format!("adapter {} is stopped; start it first", settings.adapter);
            return Ok(ResendOutcome::Refused { reason });
        }
        let tx_id = self.processor.relay.mint();
        let running = self.processor.relay.run(tx_id);
        let request = ResendRequest {
            slot_id,
            key,
            tx_id,
            destination: &settings.destination,
            adapter: settings.adapter.as_str(),
            who: &actor.who,
            why: actor.why.as_deref(),
            watch: settings.transaction_timeout + Duration::from_secs(10),
            keep: KEEP,
            confirmed,
        };
        let envelope = match self.processor.store.claim_resend(&request).await? {
            ResendClaim::Claimed(envelope) => envelope,
            ResendClaim::Taken { who, since } => return Ok(ResendOutcome::Claimed { who, since }),
            ResendClaim::NotFound => return Ok(ResendOutcome::NotFound),
            ResendClaim::NeedsConfirmation => {
                let reason = "expired, probably done: confirm that it shall be processed all the same".to_owned();
                return Ok(ResendOutcome::Refused { reason });
            }
        };
        metrics::counter!("posthaste_resent_total", "adapter" => settings.adapter.to_string()).increment(1);
        let (processor, settings) = (self.processor.clone(), settings.clone());
        let work = self.processor.relay.tasks().spawn(async move {
            let end = processor.attempt(&settings, &envelope, 1, true).await;
            drop(running);
            let outcome = outcome(end, tx_id);
            if let Err(error) = processor.store.note_resend_outcome(tx_id, outcome.word()).await {
                tracing::debug!(%error, "the end of a resend was not noted beside its request");
            }
            processor.relay.wake();
            outcome
        });
        match tokio::time::timeout(bound, work).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) | Err(_) => Ok(ResendOutcome::Running { tx_id }),
        }
    }
}

impl ResendOutcome {
    const fn word(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Running { .. } | Self::Claimed { .. } | Self::NotFound | Self::Refused { .. } => "running",
        }
    }
}

/// The row of a resend that was interrupted brings it back: by then nobody waits for it here.
fn outcome(end: AttemptEnd, tx_id: TxId) -> ResendOutcome {
    match end {
        AttemptEnd::Done => ResendOutcome::Succeeded,
        AttemptEnd::Failed { step, reason, .. } => ResendOutcome::Failed { step, reason },
        AttemptEnd::Settled | AttemptEnd::HandBack | AttemptEnd::Infrastructure { .. } => {
            ResendOutcome::Running { tx_id }
        }
    }
}
