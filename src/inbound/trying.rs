//! What the database lately said to messages that were to be accepted; and whether it would take one now, without leaving one.

use super::accept::{Acceptor, log_entry};
use super::answer::Answer;
use super::{InboundSettings, Path};
use crate::model::{Envelope, Headers, MessageId};
use crate::store::{Plans, StoreError};

/// Largest body of a try, in bytes: enough that a table must grow for it.
const LARGEST: usize = 16 * 1024;

impl Acceptor {
    /// The database did not do it.
    pub(super) fn refused_by(&self, error: &StoreError, inbound: &InboundSettings, envelope: &Envelope) -> Answer {
        self.note_error(error, inbound, envelope);
        Answer::refused_by(error, &envelope.message_id)
    }

    /// The database may have done it.
    pub(super) fn unknown_after(&self, error: &StoreError, inbound: &InboundSettings, envelope: &Envelope) -> Answer {
        self.note_error(error, inbound, envelope);
        Answer::unknown_after(error, &envelope.message_id)
    }

    fn note_error(&self, error: &StoreError, inbound: &InboundSettings, envelope: &Envelope) {
        if error.concerns_every_message() {
            self.note_failure(inbound, envelope, error.to_string());
        }
    }

    pub(super) fn note_failure(&self, inbound: &InboundSettings, envelope: &Envelope, reason: String) {
        self.outcomes.of(&inbound.adapter).failed(reason, envelope.body.len());
    }

    /// Whether the database would take a message of this adapter now, with a body of so many bytes. The same statements are
    /// sent, but for the steps of a pipeline, and are rolled back.
    ///
    /// # Errors
    /// It would not.
    pub async fn try_out(&self, inbound: &InboundSettings, path: &Path, size: usize) -> Result<(), StoreError> {
        let envelope = self.sample(size.min(LARGEST));
        match path {
            Path::Enqueue(senders) => self.store.would_accept(&self.request(inbound, senders, envelope)).await,
            Path::Transaction(_) => {
                let transaction = self.store.begin_submit(Plans::Kept).await?;
                let inserted = match log_entry(inbound, &envelope) {
                    Some(entry) => transaction.insert_log(&self.store, &entry, &envelope, &self.host).await,
                    None => Ok(true),
                };
                transaction.roll_back(&self.store).await;
                inserted.map(drop)
            }
        }
    }

    /// A message that nobody sent. Its body is by chance, so that no table can make it smaller.
    fn sample(&self, size: usize) -> Envelope {
        let (tx_id, id) = (self.relay.mint(), MessageId::mint());
        let body: Vec<u8> =
            std::iter::repeat_with(uuid::Uuid::new_v4).flat_map(uuid::Uuid::into_bytes).take(size).collect();
        Envelope {
            tx_id,
            root_id: tx_id.into(),
            message_id: id.clone(),
            correlation_id: id,
            content_type: None,
            headers: Headers::new(),
            body: body.into(),
        }
    }
}
