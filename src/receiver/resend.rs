//! Resending from the error store, straight into the pipeline (F8, protocol §5).

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::way::Way;
use super::{AttemptEnd, Processor, ReceiverSettings};
use crate::model::{AdapterName, Destination, Envelope, MessageKey, Mode, SlotId, TxId};
use crate::relay::{DestinationSettings, MAX_PUBLISHES, Occupied, Published};
use crate::store::{Claimed, PUBLISH_AFTER, ResendClaim, ResendRequest, ResendWay, StoreError};

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
        let target = match self.target(slot_id) {
            Ok(target) => target,
            Err(reason) => return Ok(ResendOutcome::Refused { reason }),
        };
        // Before the claim: from then on its time runs.
        let Some(room) = self.room(slot_id, key, bound).await? else {
            let reason =
                "messages as large as this one are at work, and leave no room for it now; try again".to_owned();
            return Ok(ResendOutcome::Refused { reason });
        };
        let tx_id = self.processor.relay.mint();
        let running = self.processor.relay.run(tx_id);
        let request = ResendRequest {
            slot_id,
            key,
            tx_id,
            destination: target.destination(),
            adapter: target.adapter().as_str(),
            who: &actor.who,
            why: actor.why.as_deref(),
            watch: target.watch(),
            keep: KEEP,
            confirmed,
            way: target.way(),
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
        metrics::counter!("posthaste_resent_total", "adapter" => target.adapter().to_string()).increment(1);
        let processor = self.processor.clone();
        let work = self.processor.relay.tasks().spawn(async move {
            let outcome = target.send(&processor, *envelope, &room).await;
            drop((running, room));
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

    /// Room for a row's body, or none within the bound.
    async fn room(&self, slot_id: &SlotId, key: MessageKey, bound: Duration) -> Result<Option<Occupied>, StoreError> {
        let row = self.processor.store.stored_row(slot_id, key).await?;
        let bytes = row.and_then(|row| usize::try_from(row.size).ok()).unwrap_or(0);
        Ok(self.processor.relay.room().take_within(bytes, bound).await)
    }

    /// Who takes the messages of a slot, or why nobody does.
    fn target(&self, slot_id: &SlotId) -> Result<Target, String> {
        if let Some(receiver) = self.receivers.iter().find(|receiver| receiver.error_slot == *slot_id) {
            if !self.processor.registry.is_wanted(&receiver.adapter) {
                return Err(format!("adapter {} is stopped; start it first", receiver.adapter));
            }
            return Ok(Target::Pipeline(Box::new(receiver.clone())));
        }
        let destinations = &self.processor.relay.settings().destinations;
        match destinations.iter().find(|one| one.error_slot == *slot_id) {
            Some(destination) => {
                self.processor.relay.ready(&destination.destination).map_err(|not_taken| not_taken.what)?;
                Ok(Target::Queue(Box::new(destination.clone())))
            }
            None => Err(format!("no receiver claims slot {slot_id}; its messages can be shown, exported and deleted")),
        }
    }
}

/// Where a resent message goes.
enum Target {
    Pipeline(Box<ReceiverSettings>),
    /// A queue of others: what could not be published is published again.
    Queue(Box<DestinationSettings>),
}

impl Target {
    fn destination(&self) -> &Destination {
        match self {
            Self::Pipeline(receiver) => &receiver.destination,
            Self::Queue(queue) => &queue.destination,
        }
    }

    fn adapter(&self) -> &AdapterName {
        match self {
            Self::Pipeline(receiver) => &receiver.adapter,
            Self::Queue(queue) => &queue.adapter,
        }
    }

    fn watch(&self) -> Duration {
        match self {
            Self::Pipeline(receiver) => receiver.transaction_timeout + Duration::from_secs(10),
            Self::Queue(_) => PUBLISH_AFTER,
        }
    }

    fn way(&self) -> ResendWay {
        match self {
            Self::Pipeline(_) => ResendWay::Pipeline,
            Self::Queue(_) => ResendWay::Publish { max_attempts: MAX_PUBLISHES },
        }
    }

    async fn send(&self, processor: &Processor, envelope: Envelope, room: &Occupied) -> ResendOutcome {
        let tx_id = envelope.tx_id;
        match self {
            Self::Pipeline(receiver) => outcome(processor.attempt(receiver, &envelope, Way::Resent).await, tx_id),
            Self::Queue(queue) => {
                let message = Claimed {
                    envelope,
                    destination: queue.destination.clone(),
                    mode: Mode::Handover,
                    attempts: 0,
                    max_attempts: MAX_PUBLISHES,
                    publishes: 0,
                    suspect: false,
                };
                match processor.relay.publish_in(message, room).await {
                    Published::Confirmed => ResendOutcome::Succeeded,
                    // The journal's row brings it there, or back into the error store.
                    Published::Later => ResendOutcome::Running { tx_id },
                }
            }
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
        AttemptEnd::Settled
        | AttemptEnd::HandBack
        | AttemptEnd::Stopped
        | AttemptEnd::Deferred { .. }
        | AttemptEnd::Infrastructure { .. } => ResendOutcome::Running { tx_id },
    }
}
