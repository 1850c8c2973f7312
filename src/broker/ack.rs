//! Settling deliveries: each once, on its own channel, after its decision.

use futures_util::future::join_all;
use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};

use super::connection::Handle;
use super::endpoint::CALL_BOUND;
use super::tags::{Tag, Tags};
use super::wire::Incoming;
use crate::txn::faults::{Injected, Point, reach};

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
    pub(super) acker: Acker,
    pub(super) tag: Tag,
    /// The unsettled ones of its channel, itself among them.
    pub(super) tags: Tags,
    pub(super) handle: Handle,
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
