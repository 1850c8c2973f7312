//! One delivery's way: whose it is, its attempt, and its acknowledgement after the decision.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::ReceiverSettings;
use super::attempt::{Entry, entry};
use super::process::{AttemptEnd, HAND_BACK_AFTER, Processor, ended};
use super::slot::{Line, Slot};
use super::start::Started;
use crate::broker::{AckToken, Delivery, Incoming, Source};
use crate::lifecycle::caught;
use crate::model::{Envelope, Headers, MessageId, RootId, TxId};
use crate::relay::{Direct, Occupied, SMALL, Shared};
use crate::txn::faults::{Point, reach};

/// Works for one receiver.
pub struct Worker {
    pub settings: ReceiverSettings,
    pub processor: Processor,
    pub shared: Shared,
    /// Who is to be tried alone.
    pub line: Arc<Line>,
    /// Groups are acknowledged in the order of their transactions: one that overtakes another is acknowledged one by one.
    pub settling: Mutex<()>,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryEnd {
    /// Acknowledged, or to be redelivered because the acknowledgement did not arrive; both are fine.
    Settled,
    /// The database is at fault, or may be: nothing was acknowledged but what is to be retried.
    Infrastructure { reason: String },
}

impl Worker {
    /// Takes a delivery to its end. Nothing is acknowledged before its decision is known.
    pub async fn deliver(&self, delivery: Delivery, slot: &mut Slot) -> DeliveryEnd {
        let Delivery { incoming, token } = delivery;
        match incoming.source.clone() {
            Source::Own { tx_id, root_id, attempts, published_at } => {
                if let Some(published_at) = published_at {
                    self.shared.saw(&self.settings.destination, published_at);
                }
                let entry = entry(incoming.redelivered, attempts);
                let envelope = own_envelope(incoming, tx_id, root_id);
                let end = self.enter(&envelope, entry, slot).await;
                self.settle(token, end).await
            }
            Source::Foreign { message_id } => self.adopt(incoming, message_id, token, slot).await,
        }
    }

    /// A row that is processed without a broker. Whoever adopted it has tried it already, uncounted, and may have died of
    /// it.
    pub async fn direct(&self, direct: Direct, slot: &mut Slot) -> DeliveryEnd {
        let Direct { message, .. } = &direct;
        let end = self.enter(&message.envelope, entry(true, message.attempts), slot).await;
        of_no_delivery(end, DeliveryEnd::Settled)
    }

    async fn enter(&self, envelope: &Envelope, entry: Entry, slot: &mut Slot) -> AttemptEnd {
        let Some(_running) = self.processor.relay.run(envelope.tx_id) else { return AttemptEnd::HandBack };
        let end = caught(self.attempt(envelope, entry, slot)).await;
        end.unwrap_or_else(|reason| after_panic(envelope.tx_id, &reason))
    }

    async fn attempt(&self, envelope: &Envelope, entry: Entry, slot: &mut Slot) -> AttemptEnd {
        // Before anything is noted: from then on its time runs. Who waits in line takes room when it is his turn.
        let room = match entry {
            Entry::First | Entry::Noted => match self.room(envelope, slot).await {
                Some(room) => room,
                None => return AttemptEnd::Stopped,
            },
            Entry::Start => Occupied::default(),
        };
        match entry {
            Entry::First => self.processor.first(&self.settings, envelope).await,
            Entry::Noted => match self.processor.note(&self.settings, envelope.tx_id).await {
                Ok(true) => match reach(Point::DQ8).await {
                    Ok(()) => self.processor.first(&self.settings, envelope).await,
                    Err(_injected) => AttemptEnd::HandBack,
                },
                Ok(false) => {
                    drop(room);
                    self.start(envelope, slot).await
                }
                Err(error) => ended(&error),
            },
            Entry::Start => self.start(envelope, slot).await,
        }
    }

    /// Among others if that may be; otherwise it waits for its turn, and holds up nobody.
    pub(super) async fn start(&self, envelope: &Envelope, slot: &mut Slot) -> AttemptEnd {
        let Some(room) = self.room(envelope, slot).await else { return AttemptEnd::Stopped };
        match self.processor.start_and_try(&self.settings, envelope, false).await {
            Started::Ended(end) => return end,
            Started::Alone => slot.leave(),
        }
        drop(room);
        let Some(_place) = self.line.place() else { return AttemptEnd::HandBack };
        let Some(_turn) = slot.turn(&self.line).await else { return AttemptEnd::Stopped };
        let Some(_room) = self.room(envelope, slot).await else { return AttemptEnd::Stopped };
        match self.processor.start_and_try(&self.settings, envelope, true).await {
            Started::Ended(end) => end,
            Started::Alone => AttemptEnd::HandBack,
        }
    }

    /// Large bodies are at work as far as there is room. Whoever has some waits for nobody who waits for it.
    async fn room(&self, envelope: &Envelope, slot: &Slot) -> Option<Occupied> {
        slot.room(self.processor.relay.room(), envelope.body.len()).await
    }

    /// Somebody else's message becomes ours in one statement; then it is acknowledged, and processed like any other.
    async fn adopt(
        &self,
        incoming: Incoming,
        foreign_id: Option<String>,
        token: AckToken,
        slot: &mut Slot,
    ) -> DeliveryEnd {
        let tx_id = self.processor.relay.mint();
        let message_id = incoming.message_id.clone().unwrap_or_else(MessageId::mint);
        let envelope = Envelope {
            tx_id,
            root_id: tx_id.into(),
            correlation_id: incoming.correlation_id.clone().unwrap_or_else(|| message_id.clone()),
            message_id,
            content_type: incoming.content_type.filter(|text| storable(text)),
            headers: storable_headers(incoming.headers),
            body: incoming.body,
        };
        if foreign_id.is_none() {
            metrics::counter!("posthaste_adopted_without_id_total").increment(1);
        }
        let max_attempts = self.settings.max_attempts();
        let destination = &self.settings.destination;
        // Long ids are told apart by what fits; two that share 255 characters are not one message's.
        let foreign_id = foreign_id.filter(|id| id.len() <= 255 && !id.contains('\0'));
        let Some(room) = self.room(&envelope, slot).await else { return DeliveryEnd::Settled };
        let adopted = self.processor.store.adopt(&envelope, foreign_id.as_deref(), destination, max_attempts).await;
        drop(room);
        match adopted {
            Ok(true) => {
                metrics::counter!("posthaste_adopted_total").increment(1);
                if envelope.body.len() > SMALL && foreign_id.is_some() {
                    // The next large one comes when this one is done with. Not without an id: should this process die of it, the
                    // delivery comes again, and would be another message each time.
                    let end = self.enter(&envelope, Entry::First, slot).await;
                    return of_no_delivery(end, self.settle(token, AttemptEnd::Settled).await);
                }
                let acked = self.settle(token, AttemptEnd::Settled).await;
                of_no_delivery(self.enter(&envelope, Entry::First, slot).await, acked)
            }
            Ok(false) => self.settle(token, AttemptEnd::Settled).await,
            Err(error) if error.is_infrastructure() => DeliveryEnd::Infrastructure { reason: error.to_string() },
            Err(error) => {
                tracing::error!(%error, "a message of others could not be adopted; it stays in the queue");
                self.settle(token, AttemptEnd::HandBack).await
            }
        }
    }

    pub(super) async fn settle(&self, token: AckToken, end: AttemptEnd) -> DeliveryEnd {
        self.settle_all(vec![(token, end)]).await
    }

    /// Settles each as its attempt ended: all that are to be acknowledged in as few words as possible.
    pub(super) async fn settle_all(&self, ended: Vec<(AckToken, AttemptEnd)>) -> DeliveryEnd {
        let mut decided = Vec::with_capacity(ended.len());
        let mut lost = None;
        for (token, end) in ended {
            match end {
                AttemptEnd::Done | AttemptEnd::Failed { .. } | AttemptEnd::Settled => decided.push(token),
                AttemptEnd::HandBack => {
                    self.processor.relay.tasks().spawn(hand_back(token, HAND_BACK_AFTER));
                }
                // Its row brings it back, behind others; the session ends all the same.
                AttemptEnd::Deferred { reason } => {
                    decided.push(token);
                    lost.get_or_insert(DeliveryEnd::Infrastructure { reason });
                }
                // Whatever is not settled goes back to the queue with its channel.
                AttemptEnd::Stopped => drop(token),
                // The session ends, and what is not settled comes again.
                AttemptEnd::Infrastructure { reason, .. } => {
                    lost.get_or_insert(DeliveryEnd::Infrastructure { reason });
                }
            }
        }
        if let Err(error) = AckToken::ack_all(decided).await {
            tracing::debug!(%error, "acknowledgement lost; the journal knows the redelivery");
        }
        lost.unwrap_or(DeliveryEnd::Settled)
    }
}

/// It comes again as a suspect, whose start counts before anything is done: as after a crash (I7).
pub(super) fn after_panic(tx_id: TxId, reason: &str) -> AttemptEnd {
    tracing::error!(%tx_id, reason, "an attempt has panicked, a fault of this program; the message goes back");
    AttemptEnd::HandBack
}

/// How the attempt at a message ended that has no delivery to be settled: whatever is left to do, its row brings it back.
fn of_no_delivery(end: AttemptEnd, settled: DeliveryEnd) -> DeliveryEnd {
    match end {
        AttemptEnd::Infrastructure { reason, .. } | AttemptEnd::Deferred { reason } => {
            DeliveryEnd::Infrastructure { reason }
        }
        AttemptEnd::Done
        | AttemptEnd::Failed { .. }
        | AttemptEnd::Settled
        | AttemptEnd::HandBack
        | AttemptEnd::Stopped => settled,
    }
}

async fn hand_back(token: AckToken, pause: Duration) {
    tokio::time::sleep(pause).await;
    if let Err(error) = token.requeue().await {
        tracing::debug!(%error, "not handed back; the broker does it when the channel ends");
    }
}

pub(super) fn own_envelope(incoming: Incoming, tx_id: TxId, root_id: Option<RootId>) -> Envelope {
    // Our own messages always carry their id; one that lost it is parked or dropped under its tx_id.
    let message_id = incoming
        .message_id
        .unwrap_or_else(|| MessageId::parse(&tx_id.to_string()).unwrap_or_else(|_error| MessageId::mint()));
    Envelope {
        tx_id,
        root_id: root_id.unwrap_or_else(|| tx_id.into()),
        correlation_id: incoming.correlation_id.unwrap_or_else(|| message_id.clone()),
        message_id,
        content_type: incoming.content_type.filter(|text| storable(text)),
        headers: storable_headers(incoming.headers),
        body: incoming.body,
    }
}

/// PostgreSQL's text and jsonb hold no NUL: a message that could not be stored would come back for ever.
pub(super) fn storable(text: &str) -> bool {
    !text.contains('\0')
}

pub(super) fn storable_headers(mut headers: Headers) -> Headers {
    headers.retain(|name, value| storable(name) && storable(value));
    headers
}
