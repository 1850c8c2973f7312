//! Taking deliveries from one queue, on a channel of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Acker, Channel, Consumer};

use super::connection::{CallError, Handle, bounded, unreadable};
use super::endpoint::CALL_BOUND;
use super::tags::{Tag, Tags};
use super::wire::{Incoming, decode, queue_name};
use crate::model::HomeId;
use crate::txn::faults::{Injected, Point, reach};

/// Why a session ended. Whatever it had delivered and not acked goes back to the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// The broker cancelled the consumer: the queue was deleted, or its leader is gone. Look at the queue, then consume
    /// again.
    Cancelled,
    /// The connection or the channel is gone. Consume again when there is a connection.
    ConnectionLost { reason: Arc<str> },
    /// A message in this queue has an id, a content type or a header name that is not UTF-8, and ends every connection
    /// that it is delivered to: [`Broker::look_for_unreadable`](super::Broker::look_for_unreadable) takes it out.
    Unreadable,
    /// We cancelled or closed it.
    Closed,
}

/// What became of an ack or a requeue.
#[derive(Debug, thiserror::Error)]
pub enum AckError {
    /// The delivery's channel has ended, and its tag with it: the broker delivers the message again. Never ack that one
    /// for this one.
    #[error("the delivery's channel is gone; the broker delivers the message again")]
    ChannelGone,
    /// Not known whether the broker has it; the connection was given up, so the message may come again.
    #[error("the acknowledgement was not taken within {secs} s", secs = CALL_BOUND.as_secs())]
    TimedOut,
}

impl From<Injected> for AckError {
    fn from(_injected: Injected) -> Self {
        Self::ChannelGone
    }
}

/// A message in our hands, and the right to settle it.
#[derive(Debug)]
pub struct Delivery {
    pub incoming: Incoming,
    pub token: AckToken,
}

/// The right to settle one delivery, once. Dropped unused, the message stays with us until the session is closed; until
/// then no later one of the session is acknowledged together with others.
#[must_use = "an unsettled delivery occupies a prefetch slot and comes again when the session ends"]
#[derive(Debug)]
pub struct AckToken {
    acker: Acker,
    tag: Tag,
    /// The unsettled ones of its channel, itself among them.
    tags: Tags,
    handle: Handle,
}

impl AckToken {
    /// Tells the broker that the message is done with: to be called after the decision.
    pub async fn ack(self) -> Result<(), AckError> {
        Self::ack_all(vec![self]).await
    }

    /// The same for many messages, each after its own decision: all up to the first that is not settled and not among
    /// them in a single acknowledgement (for a quorum queue each is a command to replicate), the others one by one.
    ///
    /// # Errors
    /// The first one; the rest is acknowledged all the same.
    pub async fn ack_all(tokens: Vec<Self>) -> Result<(), AckError> {
        let mut outcome = Ok(());
        let mut decided = Vec::with_capacity(tokens.len());
        for token in tokens {
            match points().await {
                Ok(()) => decided.push(token),
                Err(injected) => outcome = outcome.and(Err(injected.into())),
            }
        }
        decided.sort_unstable_by_key(|token| token.tag);
        let (together, alone) = decided.split_at(covered(&decided));
        let alone = join_all(alone.chunks(1).map(Self::ack_up_to_last));
        let (together, alone) = tokio::join!(Self::ack_up_to_last(together), alone);
        outcome.and(together).and(alone.into_iter().collect())
    }

    /// Acknowledges these, when nothing else is unsettled up to the last of them.
    async fn ack_up_to_last(tokens: &[Self]) -> Result<(), AckError> {
        let Some(last) = tokens.last() else { return Ok(()) };
        last.settle(tokens, last.acker.ack(BasicAckOptions { multiple: tokens.len() > 1 })).await
    }

    /// Hands the message back to its queue, for anyone.
    pub async fn requeue(self) -> Result<(), AckError> {
        let call = self.acker.nack(BasicNackOptions { requeue: true, multiple: false });
        self.settle(std::slice::from_ref(&self), call).await
    }

    async fn settle(&self, tokens: &[Self], call: impl Future<Output = lapin::Result<bool>>) -> Result<(), AckError> {
        match tokio::time::timeout(CALL_BOUND, call).await {
            Ok(Ok(true)) => {
                self.tags.settled(tokens.iter().map(|token| token.tag));
                Ok(())
            }
            // `false` is how the library says that it has sent nothing.
            Ok(Ok(false)) => Err(AckError::ChannelGone),
            Ok(Err(error)) => {
                tracing::debug!(%error, "an acknowledgement failed");
                Err(AckError::ChannelGone)
            }
            Err(_) => {
                self.handle.give_up("an acknowledgement timed out");
                Err(AckError::TimedOut)
            }
        }
    }
}

/// How many of these, in the order of their tags, a single acknowledgement covers: all of one channel.
fn covered(tokens: &[AckToken]) -> usize {
    let Some(first) = tokens.first() else { return 0 };
    let of_one_channel = tokens.iter().take_while(|token| token.tags.same(&first.tags));
    let asked: Vec<Tag> = of_one_channel.map(|token| token.tag).collect();
    first.tags.together(&asked)
}

/// Where a test loses a message's acknowledgement.
async fn points() -> Result<(), Injected> {
    reach(Point::DQ3).await?;
    reach(Point::MD10).await
}

/// One consumer of one queue.
#[must_use = "a dropped session hands its messages back"]
pub struct ConsumerSession {
    channel: Channel,
    consumer: Consumer,
    handle: Handle,
    home: HomeId,
    queue: String,
    tags: Tags,
    apart: Apart,
    own_connection: bool,
    ended: Option<SessionEnd>,
}

/// Whether each session has a connection of its own: from the first message on that the library cannot read, or the first
/// queue that does not answer, so that it stops the consumer of one queue and not all of them.
#[derive(Clone, Default)]
pub(super) struct Apart(Arc<AtomicBool>);

impl Apart {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, reason: &str) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::error!(reason, "from now on each consumer has its own connection");
        }
    }
}

/// A call about one queue had no answer in time.
async fn silent(handle: &Handle, channel: &Channel, own_connection: bool, apart: &Apart, reason: &'static str) {
    if own_connection {
        handle.abandon();
    } else if handle.doubt(channel, reason).await {
        apart.set("a queue does not answer");
    }
}

/// Over which connection a session runs, and for whom it reads.
pub(super) struct Terms {
    pub(super) handle: Handle,
    /// Nobody else uses the connection.
    pub(super) own_connection: bool,
    pub(super) apart: Apart,
    pub(super) home: HomeId,
}

/// Consumes `queue`, with at most `prefetch` unsettled deliveries at a time: the library's own buffer has no bound.
pub(super) async fn consume(terms: Terms, queue: &str, prefetch: u16) -> Result<ConsumerSession, CallError> {
    let Terms { handle, own_connection, apart, home } = terms;
    let name = queue_name(queue)?;
    let channel = handle.channel().await?;
    let opened = async {
        bounded("basic.qos", channel.basic_qos(prefetch.max(1), BasicQosOptions::default())).await?;
        let options = BasicConsumeOptions::default();
        bounded("basic.consume", channel.basic_consume(name, "".into(), options, FieldTable::default())).await
    };
    match opened.await {
        Ok(consumer) => {
            let (queue, tags) = (queue.to_owned(), Tags::default());
            Ok(ConsumerSession { channel, consumer, handle, home, queue, tags, apart, own_connection, ended: None })
        }
        Err(error) => {
            if let CallError::TimedOut(_) = error {
                silent(&handle, &channel, own_connection, &apart, "starting a consumer timed out").await;
            }
            Err(error.about(queue))
        }
    }
}

impl ConsumerSession {
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The next delivery, or why there will be none. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Result<Delivery, SessionEnd> {
        if let Some(end) = &self.ended {
            return Err(end.clone());
        }
        let end = match self.consumer.next().await {
            Some(Ok(delivery)) => return Ok(self.deliver(delivery)),
            Some(Err(error)) => self.lost(&error),
            None if self.channel.status().connected() && self.handle.alive() => SessionEnd::Cancelled,
            None => SessionEnd::ConnectionLost { reason: "the channel was closed".into() },
        };
        self.ended = Some(end.clone());
        Err(end)
    }

    /// The next delivery if it is here already. When there will be none, `next` says why.
    pub fn waiting(&mut self) -> Option<Delivery> {
        self.next().now_or_never()?.ok()
    }

    fn lost(&self, error: &lapin::Error) -> SessionEnd {
        if self.own_connection {
            self.handle.hang_up();
        }
        if unreadable(error) {
            self.apart.set("a message in some queue cannot be read");
            if self.own_connection {
                return SessionEnd::Unreadable;
            }
        }
        SessionEnd::ConnectionLost { reason: error.to_string().into() }
    }

    async fn silent(&self, reason: &'static str) {
        silent(&self.handle, &self.channel, self.own_connection, &self.apart, reason).await;
    }

    fn deliver(&self, delivery: lapin::message::Delivery) -> Delivery {
        let body = Bytes::from(delivery.data);
        let incoming = decode(&delivery.properties, delivery.redelivered, body, self.home);
        let (acker, tag) = (delivery.acker, delivery.delivery_tag);
        self.tags.delivered(tag);
        Delivery { incoming, token: AckToken { acker, tag, tags: self.tags.clone(), handle: self.handle.clone() } }
    }

    /// Takes no more deliveries, but keeps the channel: tokens can still be settled. What waited unread goes back at
    /// [`close`](Self::close).
    pub async fn cancel(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(SessionEnd::Closed);
        let cancel = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
        match bounded("basic.cancel", cancel).await {
            Ok(()) => {}
            Err(CallError::TimedOut(_)) => self.silent("cancelling a consumer timed out").await,
            Err(error) => tracing::debug!(%error, "a consumer could not be cancelled"),
        }
    }

    /// Closes the channel, which hands back everything unsettled. Tokens still out become [`AckError::ChannelGone`].
    pub async fn close(self) {
        if self.channel.status().connected() {
            match bounded("channel.close", self.channel.close(200, "done".into())).await {
                Ok(()) => {}
                Err(CallError::TimedOut(_)) => self.silent("closing a consumer's channel timed out").await,
                Err(error) => tracing::debug!(%error, "a consumer's channel could not be closed"),
            }
        }
        if self.own_connection && self.handle.alive() {
            self.handle.close().await;
        }
    }
}
