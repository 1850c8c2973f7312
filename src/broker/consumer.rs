//! Taking deliveries from one queue, on a channel of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::pending;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery as Raw;
use lapin::options::BasicCancelOptions;
use lapin::types::ShortString;
use lapin::{Channel, Consumer};
use tokio::time::{Instant, sleep};

use super::ack::{AckToken, Delivery};
use super::advance::{Bound, Phase, SILENCE, empty, end_unread, gone, open};
use super::apart::{Apart, silent};
use super::connection::{CallError, Handle, bounded, unreadable};
use super::tags::{Held, Tags};
use super::wire::{decode, queue_name};
use crate::model::HomeId;

const CANNOT_BE_READ: &str = "a message in some queue cannot be read";

/// Why a session ended. Whatever it had delivered and not acked goes back to the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// The broker cancelled the consumer: the queue was deleted, or its leader is gone. Look at the queue, then consume
    /// again.
    Cancelled,
    /// The connection or the channel is gone. Consume again when there is a connection.
    ConnectionLost { reason: Arc<str> },
    /// A message in this queue cannot be read, since its texts are not UTF-8, say, and ends every connection that it is
    /// delivered to: [`Broker::look_for_unreadable`](super::Broker::look_for_unreadable) takes it out.
    Unreadable,
    /// We cancelled or closed it.
    Closed,
}

/// One consumer of one queue.
#[must_use = "a dropped session hands its messages back"]
pub struct ConsumerSession {
    channel: Channel,
    consumer: Consumer,
    phase: Phase,
    handle: Handle,
    home: HomeId,
    queue: ShortString,
    tags: Tags,
    /// Taken in, and not handed out.
    arrived: VecDeque<Delivery>,
    /// Bytes that may be held unsettled: of what comes beyond, the tokens alone are kept until it is handed back.
    most: usize,
    spare: Vec<AckToken>,
    /// The largest body that was not kept, since it was asked for.
    overflow: Option<usize>,
    apart: Apart,
    own_connection: bool,
    ended: Option<SessionEnd>,
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
    match open(channel.clone(), name.clone(), prefetch).await {
        Ok(consumer) => Ok(ConsumerSession {
            channel,
            consumer,
            phase: Phase::Consuming,
            handle,
            home,
            queue: name,
            tags: Tags::default(),
            arrived: VecDeque::new(),
            most: usize::MAX,
            spare: Vec::new(),
            overflow: None,
            apart,
            own_connection,
            ended: None,
        }),
        Err(error) => {
            if let CallError::TimedOut(_) = error {
                silent(&handle, &channel, own_connection, &apart, "starting a consumer timed out").await;
            }
            if error.unreadable() {
                apart.set(CANNOT_BE_READ);
            }
            Err(error.about(queue))
        }
    }
}

impl ConsumerSession {
    #[must_use]
    pub fn queue(&self) -> &str {
        self.queue.as_str()
    }

    /// Bytes of bodies that all sessions which share `held` may hold unsettled together, and each one message in any case. Of
    /// what comes beyond nothing is kept: it goes back to its queue, and once all is settled one message is asked for. Default:
    /// no bound. To be said before the first delivery.
    pub fn hold_at_most(&mut self, bytes: usize, held: Held) {
        self.most = bytes;
        self.tags = Tags::sharing(held);
    }

    /// Whether no other consumer is about to take the place of the present one.
    pub fn is_steady(&self) -> bool {
        matches!(self.phase, Phase::Consuming)
    }

    /// Whether there is no consumer until less is held.
    pub fn waits_for_less(&self) -> bool {
        matches!(self.phase, Phase::Emptying { .. })
    }

    /// Has another consumer take the place of the present one, with at most `prefetch` unsettled deliveries: once no more than
    /// `bytes` of what was delivered before are unsettled. What the queue sends at that very moment it sends again, marked as
    /// redelivered: nothing, when all that was asked for is here and unsettled. Goes on as [`next`](Self::next) and the others are
    /// called.
    pub fn consume_anew(&mut self, prefetch: u16, bytes: usize) {
        match &mut self.phase {
            Phase::Consuming => {
                let (channel, tag) = (self.channel.clone(), self.consumer.tag());
                let cancel = async move { channel.basic_cancel(tag, BasicCancelOptions::default()).await };
                let silence = Box::pin(sleep(SILENCE));
                self.phase = Phase::Ending { next: Bound { prefetch, bytes }, cancel: cancel.boxed().fuse(), silence };
            }
            Phase::Ending { next, .. } => *next = Bound { prefetch, bytes },
            Phase::Emptying { .. } | Phase::Opening(_) => {}
        }
    }

    /// The largest body that was not kept, if any was since this was asked.
    pub fn overflow(&mut self) -> Option<usize> {
        self.overflow.take()
    }

    /// The next delivery, or why there will be none. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Result<Delivery, SessionEnd> {
        loop {
            if let Some(delivery) = self.arrived.pop_front() {
                return Ok(delivery);
            }
            self.arrive().await?;
        }
    }

    /// Takes in what comes, to be handed out later, and never ends: so that what is too much is not kept while nothing else is
    /// taken. May be dropped without loss.
    pub async fn take_in(&mut self) {
        while self.arrive().await.is_ok() {}
        pending().await
    }

    /// Waits for a delivery and takes it in, or puts it aside.
    async fn arrive(&mut self) -> Result<(), SessionEnd> {
        if let Some(end) = &self.ended {
            return Err(end.clone());
        }
        match self.receive().await {
            Ok(delivery) => {
                self.keep(delivery);
                Ok(())
            }
            Err(end) => {
                self.ended = Some(end.clone());
                Err(end)
            }
        }
    }

    async fn receive(&mut self) -> Result<Raw, SessionEnd> {
        loop {
            match &mut self.phase {
                Phase::Consuming => {
                    return match self.consumer.next().await {
                        Some(Ok(delivery)) => Ok(delivery),
                        Some(Err(error)) => Err(self.lost(unreadable(&error), &error)),
                        None if self.is_open() => Err(SessionEnd::Cancelled),
                        None => Err(closed()),
                    };
                }
                Phase::Ending { next, cancel, silence } => {
                    let next = *next;
                    let read = tokio::select! {
                        biased;
                        // What comes of it is told by the end of what was sent.
                        _cancelled = cancel => continue,
                        read = self.consumer.next() => read,
                        () = silence.as_mut() => {
                            let end = SessionEnd::ConnectionLost { reason: "no answer to basic.cancel".into() };
                            return Err(self.ended_by_silence(end, "cancelling a consumer timed out").await);
                        }
                    };
                    match read {
                        Some(Ok(delivery)) => {
                            silence.as_mut().reset(Instant::now() + SILENCE);
                            return Ok(delivery);
                        }
                        Some(Err(error)) => return Err(self.lost(unreadable(&error), &error)),
                        None if self.is_open() => {
                            let (prefetch, spare) = (next.prefetch, std::mem::take(&mut self.spare));
                            let emptied = empty(spare, self.tags.clone(), next.bytes).boxed();
                            self.phase = Phase::Emptying { prefetch, emptied };
                        }
                        None => return Err(closed()),
                    }
                }
                Phase::Emptying { prefetch, emptied } => {
                    // What is not settled then never is, and no consumer is there that would be told.
                    tokio::select! {
                        biased;
                        () = emptied => {}
                        () = gone(&self.channel, &self.handle) => return Err(closed()),
                    }
                    self.phase = Phase::Opening(open(self.channel.clone(), self.queue.clone(), *prefetch).boxed());
                }
                Phase::Opening(opened) => match opened.await {
                    Ok(consumer) => {
                        self.consumer = consumer;
                        self.phase = Phase::Consuming;
                    }
                    Err(error) => {
                        let end = self.lost(error.unreadable(), &error);
                        if let CallError::TimedOut(_) = error {
                            return Err(self.ended_by_silence(end, "starting a consumer timed out").await);
                        }
                        return Err(end);
                    }
                },
            }
        }
    }

    fn is_open(&self) -> bool {
        self.channel.status().connected() && self.handle.alive()
    }

    /// The next delivery if it is here already. When there will be none, `next` says why.
    pub fn waiting(&mut self) -> Option<Delivery> {
        self.next().now_or_never()?.ok()
    }

    fn lost(&self, unreadable: bool, error: &impl ToString) -> SessionEnd {
        if self.own_connection && !self.is_open() {
            self.handle.hang_up();
        }
        if unreadable {
            self.apart.set(CANNOT_BE_READ);
            if self.own_connection {
                return SessionEnd::Unreadable;
            }
        }
        SessionEnd::ConnectionLost { reason: error.to_string().into() }
    }

    async fn silent(&mut self, reason: &'static str) {
        silent(&self.handle, &self.channel, self.own_connection, &self.apart, reason).await;
    }

    /// Whoever drops this in the midst finds the session ended all the same: what was awaited is not awaited again.
    async fn ended_by_silence(&mut self, end: SessionEnd, reason: &'static str) -> SessionEnd {
        self.ended = Some(end.clone());
        self.silent(reason).await;
        end
    }

    fn keep(&mut self, delivery: Raw) {
        let Raw { data, acker, delivery_tag: tag, properties, redelivered, .. } = delivery;
        let bytes = data.len();
        let token = AckToken { acker, tag, tags: self.tags.clone(), handle: self.handle.clone() };
        if self.tags.bytes() > 0 && self.tags.bytes_of_all().saturating_add(bytes) > self.most {
            self.tags.delivered(tag, 0);
            self.spare.push(token);
            self.overflow = self.overflow.max(Some(bytes));
            // Only when nothing is held the next one is kept for sure, however large.
            return self.consume_anew(1, 0);
        }
        self.tags.delivered(tag, bytes);
        let incoming = decode(&properties, redelivered, Bytes::from(data), self.home);
        self.arrived.push_back(Delivery { incoming, token });
    }

    /// Takes no more deliveries, but keeps the channel: tokens can still be settled. What waited unread goes back at
    /// [`close`](Self::close), and takes no room until then.
    pub async fn cancel(&mut self) {
        self.arrived.clear();
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(SessionEnd::Closed);
        match &mut self.phase {
            Phase::Consuming | Phase::Ending { .. } => {}
            Phase::Emptying { .. } => return,
            Phase::Opening(opened) => match opened.await {
                Ok(consumer) => self.consumer = consumer,
                Err(_) => return,
            },
        }
        match end_unread(self.channel.clone(), &mut self.consumer).await {
            Ok(()) => {}
            Err(CallError::TimedOut(_)) => self.silent("cancelling a consumer timed out").await,
            Err(error) => tracing::debug!(%error, "a consumer could not be cancelled"),
        }
    }

    /// Closes the channel, which hands back everything unsettled. Tokens still out become [`AckError::ChannelGone`](super::AckError::ChannelGone).
    pub async fn close(mut self) {
        if self.channel.status().connected() {
            match bounded("channel.close", self.channel.close(200, "done".into())).await {
                Ok(()) => {}
                Err(CallError::TimedOut(_)) => self.silent("closing a consumer's channel timed out").await,
                Err(error) => tracing::debug!(%error, "a consumer's channel could not be closed"),
            }
        }
        if self.own_connection {
            self.handle.leave().await;
        }
    }
}

fn closed() -> SessionEnd {
    SessionEnd::ConnectionLost { reason: "the channel was closed".into() }
}
