//! How much a consumer is sent in advance, and how another takes its place.

use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, Fuse};
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::time::Sleep;

use super::ack::AckToken;
use super::connection::{CallError, Handle, bounded};
use super::tags::Tags;

/// The answer to a cancel comes behind all that was sent before, which may be large: longest wait for the next of it.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// Where the consumer stands: RabbitMQ binds how much it sends in advance to the consumer, so that another amount takes
/// another one.
pub(super) enum Phase {
    Consuming,
    /// It is being cancelled. What was sent to it before is read to its end.
    Ending {
        next: Bound,
        cancel: Fuse<BoxFuture<'static, lapin::Result<()>>>,
        silence: Pin<Box<Sleep>>,
    },
    /// What is held becomes less first.
    Emptying {
        prefetch: u16,
        emptied: BoxFuture<'static, ()>,
    },
    /// The next one is being started on the same channel.
    Opening(BoxFuture<'static, Result<Consumer, CallError>>),
}

/// What a consumer may be sent in advance, and how many bytes may be held unsettled when it begins.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    pub(super) prefetch: u16,
    pub(super) bytes: usize,
}

pub(super) async fn open(channel: Channel, queue: ShortString, prefetch: u16) -> Result<Consumer, CallError> {
    bounded("basic.qos", channel.basic_qos(prefetch.max(1), BasicQosOptions::default())).await?;
    let options = BasicConsumeOptions::default();
    bounded("basic.consume", channel.basic_consume(queue, "".into(), options, FieldTable::default())).await
}

/// Between two looks whether a channel is still there on which nothing is awaited.
const LOOK: Duration = Duration::from_secs(1);

/// Comes back when a channel is gone, at most a second late.
pub(super) async fn gone(channel: &Channel, handle: &Handle) {
    while channel.status().connected() && handle.alive() {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = handle.until_given_up() => {}
        }
    }
}

/// Reads what is still sent to a consumer that is being cancelled, and keeps nothing of it, until the broker says that this was
/// all: it goes back to its queue with the channel.
pub(super) async fn end_unread(channel: Channel, consumer: &mut Consumer) -> Result<(), CallError> {
    let mut end = pin!(channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()));
    loop {
        let end = bounded("basic.cancel", end.as_mut());
        tokio::select! {
            biased;
            ended = end => return ended,
            Some(_unread) = consumer.next() => {}
        }
    }
}

/// Hands back what was not kept, and waits until the rest is no more than it may be.
pub(super) async fn empty(spare: Vec<AckToken>, tags: Tags, bytes: usize) {
    for token in spare {
        if let Err(error) = token.requeue().await {
            tracing::debug!(%error, "not handed back; the broker does it when the channel ends");
        }
    }
    tags.until_at_most(bytes).await;
}
