//! One publishing channel: a group goes out, its confirms and returns come in; what is certain is told at once, the rest when
//! the whole group can be judged.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connection::{CallError, Handle, bounded};
use super::end::{End, Scope, end_of};
use super::link::Link;
use super::outcome::{Answer, Confirmed, Ended, NotSent, ReturnedMessage, certain, judge};
use super::publisher::{Job, JobQueue, Place, PublisherSettings};
use super::way::Way;
use crate::lifecycle::point;
use crate::model::TxId;
use crate::txn::faults::{Point, reach};

/// Longest wait for the close of a channel whose confirms did not come: an answer shows that the connection still works.
const CLOSE_BOUND: Duration = Duration::from_millis(500);

pub(super) struct Lane {
    name: String,
    queue: Arc<JobQueue>,
    way: Way,
    settings: PublisherSettings,
    closing: CancellationToken,
    open: Option<(Handle, Channel)>,
}

impl Lane {
    pub(super) fn new(
        name: String,
        queue: Arc<JobQueue>,
        way: Way,
        settings: PublisherSettings,
        closing: CancellationToken,
    ) -> Self {
        Self { name, queue, way, settings, closing, open: None }
    }

    /// Publishes until the queue is closed and empty. Whoever waits for what a panic has ended is told that nothing is known;
    /// on the channel, whose confirms are open, nothing more is sent.
    pub(super) async fn run(&mut self) {
        self.open = None;
        while let Some(group) = self.queue.take(&self.closing).await {
            point(&self.name);
            match self.channel().await {
                Ok((handle, channel)) => self.publish(&handle, &channel, group).await,
                Err(reason) => refuse(group, &reason),
            }
            if self.way.is_apart() && self.queue.is_empty().await {
                self.open = None;
                self.way.rest().await;
            }
        }
    }

    /// The channel of the present connection, opened when there is none that can be used.
    async fn channel(&mut self) -> Result<(Handle, Channel), NotSent> {
        let handle = self.way.handle().await?;
        if let Some((of, channel)) = &self.open
            && of.same(&handle)
            && channel.status().connected()
        {
            return Ok((handle, channel.clone()));
        }
        self.open = None;
        // Under an alarm the library keeps back what opens a channel, too: no answer to it says anything of the connection.
        let opened = tokio::select! {
            opened = confirming(&handle) => opened,
            blocked = self.way.blocked() => return Err(blocked),
        };
        match opened {
            Ok(channel) => {
                self.open = Some((handle.clone(), channel.clone()));
                Ok((handle, channel))
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no channel to publish on");
                Err(NotSent::Down(error.to_string().into()))
            }
        }
    }

    async fn publish(&mut self, handle: &Handle, channel: &Channel, mut group: Vec<Job>) {
        group.retain(Job::claim);
        let mut flight = Flight::start(channel, &mut group);
        let recipients: Vec<_> = group.iter().flat_map(Job::recipients).collect();
        let mut tell = |at: usize, confirmed| {
            if let Some(recipient) = recipients.get(at) {
                // First: whoever hears it may have the next one to publish.
                recipient.leave();
                recipient.tell(Ok(confirmed));
            }
        };
        flight.land(Instant::now() + self.settings.confirm_bound, &mut tell).await;
        let mut settled = flight.is_over();
        // What a connection of its own keeps back goes with it.
        let blocked = self.way.is_blocked() && !self.way.is_apart();
        if !settled && !blocked {
            settled = flight.give_up(handle, channel, &mut tell).await;
            self.open = None;
            if !settled {
                self.way.abandon();
            }
        }
        let sent: Vec<_> = recipients.iter().map(|recipient| recipient.message()).collect();
        let end = flight.end.as_ref().map(|end| Ended { end, alone: self.was_alone(&sent, end.scope) });
        let verdicts = judge(&sent, &flight.answers, &flight.returned, settled, end);
        for ((recipient, verdict), told) in recipients.iter().zip(verdicts).zip(&flight.told) {
            if !told {
                recipient.tell(verdict);
            }
        }
        if blocked && !flight.is_over() {
            self.hold(handle, channel, flight).await;
        }
    }

    /// Whether nothing else was under way on what has ended.
    fn was_alone(&self, sent: &[(TxId, &str)], scope: Scope) -> bool {
        sent.len() == 1
            && match scope {
                Scope::Channel => true,
                Scope::Connection => self.way.is_apart(),
            }
    }

    /// Under an alarm the library keeps back what it was given, and would send a channel's close before its publishes:
    /// the channel is kept, and nothing else is sent on it, until the alarm is over.
    async fn hold(&mut self, handle: &Handle, channel: &Channel, mut flight: Flight<'_>) {
        let supervised = self.way.until(|link| !matches!(link, Link::Blocked { .. })).await;
        // Everybody has had his word.
        flight.land(Instant::now() + self.settings.confirm_bound, |_, _| ()).await;
        if !flight.is_over() && supervised {
            let _settled = flight.give_up(handle, channel, |_, _| ()).await;
            self.open = None;
        }
    }
}

async fn confirming(handle: &Handle) -> Result<Channel, CallError> {
    let channel = handle.channel().await?;
    match bounded("confirm.select", channel.confirm_select(ConfirmSelectOptions::default())).await {
        Ok(()) => Ok(channel),
        Err(error) => {
            if let CallError::TimedOut(_) = error {
                handle.give_up("confirm.select timed out");
            }
            Err(error)
        }
    }
}

fn refuse(group: Vec<Job>, reason: &NotSent) {
    for job in group.into_iter().filter(Job::claim) {
        job.refuse(reason);
    }
}

/// What the broker said to a publish.
#[derive(Debug)]
struct Said {
    answer: Answer,
    /// It came with the answer, be it this one's or another's.
    returned: Option<ReturnedMessage>,
    /// Why the channel ended, when that was the answer.
    end: Option<End>,
}
/// One publish until its answer.
type Publish<'a> = BoxFuture<'a, Said>;

/// The publishes of one group, and what was answered to them.
struct Flight<'a> {
    /// In the order in which they are sent; `None`: answered.
    publishes: Vec<Option<Publish<'a>>>,
    /// Publishes without an answer.
    open: usize,
    /// All before it are answered.
    front: usize,
    answers: Vec<Answer>,
    returned: Vec<ReturnedMessage>,
    /// Why the channel ended: the first reason that was given.
    end: Option<End>,
    /// Who was told that his message is confirmed.
    told: Vec<bool>,
    /// Publishes that the library has written to the socket.
    written: Arc<AtomicUsize>,
}

impl<'a> Flight<'a> {
    fn start(channel: &'a Channel, group: &mut [Job]) -> Self {
        let written = Arc::new(AtomicUsize::new(0));
        let parcels = group.iter_mut().flat_map(|job| &mut job.parcels);
        let publishes: Vec<_> = parcels
            .map(|Place { parcel, .. }| {
                // Whatever is answered holds no body any more.
                let (queue, body) = (parcel.queue.clone(), std::mem::take(&mut parcel.body));
                let properties = std::mem::take(&mut parcel.properties);
                let written = written.clone();
                let options = BasicPublishOptions { mandatory: true, immediate: false };
                let publish = async move {
                    let confirm =
                        channel.basic_publish(ShortString::default(), queue, options, &body, properties).await?;
                    drop(body);
                    written.fetch_add(1, Ordering::Relaxed);
                    // A test that waits here keeps back a return that the confirm may carry: not for unroutable messages.
                    reach(Point::IN4).await.map_err(std::io::Error::other)?;
                    confirm.await
                };
                Some(publish.map(read).boxed())
            })
            .collect();
        Self::of(publishes, written)
    }

    fn of(publishes: Vec<Option<Publish<'a>>>, written: Arc<AtomicUsize>) -> Self {
        let many = publishes.len();
        let (answers, told) = (vec![Answer::Open; many], vec![false; many]);
        Self { publishes, open: many, front: 0, answers, returned: Vec::new(), end: None, told, written }
    }

    fn is_over(&self) -> bool {
        self.open == 0
    }

    /// Takes in what the broker says, until everything is answered or the deadline is over. `tell`: of what is certainly
    /// confirmed, in the order of sending, as soon as all that was sent before it is answered.
    async fn land(&mut self, deadline: Instant, mut tell: impl FnMut(usize, Confirmed)) {
        let mut begun = false;
        let all = poll_fn(|cx| {
            if !begun {
                begun = true;
                self.read_from(self.front, cx);
            }
            self.advance(cx, &mut tell);
            if self.is_over() { Poll::Ready(()) } else { Poll::Pending }
        });
        let _in_time = tokio::time::timeout_at(deadline, all).await;
    }

    /// Only the front is polled each time, and everything behind it once the front has moved.
    fn advance(&mut self, cx: &mut Context<'_>, tell: &mut impl FnMut(usize, Confirmed)) {
        loop {
            let from = self.front;
            while self.front < self.publishes.len() && self.read(self.front, cx) {
                self.front += 1;
            }
            if self.front == from {
                return;
            }
            // What was answered before these were is read now, and with it a return that belongs to one of them.
            self.read_from(self.front, cx);
            let answers = self.answers.iter().zip(&mut self.told).enumerate();
            for (at, (answer, told)) in answers.take(self.front).skip(from) {
                if let Some(confirmed) = certain(*answer, &self.returned) {
                    *told = true;
                    tell(at, confirmed);
                }
            }
        }
    }

    fn read_from(&mut self, first: usize, cx: &mut Context<'_>) {
        for at in first..self.publishes.len() {
            let _answered = self.read(at, cx);
        }
    }

    /// Whether it has its answer.
    fn read(&mut self, at: usize, cx: &mut Context<'_>) -> bool {
        let Some(place) = self.publishes.get_mut(at) else { return true };
        let Some(publish) = place else { return true };
        let Poll::Ready(Said { answer, returned, end }) = publish.poll_unpin(cx) else { return false };
        *place = None;
        self.open -= 1;
        self.returned.extend(returned);
        self.end = self.end.take().or(end);
        if let Some(slot) = self.answers.get_mut(at) {
            *slot = answer;
        }
        true
    }

    /// Gives up what has no answer. Closing the channel makes the broker's earlier words arrive first. Without an answer even to
    /// that, it is the channel that hangs (RabbitMQ closes none while a quorum queue has its messages and does not answer), or
    /// the connection: another channel tells. True: everything the broker said has been read.
    async fn give_up(&mut self, handle: &Handle, channel: &Channel, mut tell: impl FnMut(usize, Confirmed)) -> bool {
        // Those that were not asked lately may have been written long ago.
        poll_fn(|cx| {
            self.read_from(0, cx);
            self.advance(cx, &mut tell);
            Poll::Ready(())
        })
        .await;
        if self.written.load(Ordering::Relaxed) < self.answers.len() {
            handle.give_up("the broker does not read");
            return false;
        }
        let close = tokio::time::timeout(CLOSE_BOUND, channel.close(200, "no confirm in time".into()));
        let (closed, answers) = tokio::join!(close, handle.answers(CLOSE_BOUND));
        if !matches!(closed, Ok(Ok(()))) {
            if !answers {
                handle.give_up("the broker does not answer");
            }
            return false;
        }
        self.land(Instant::now() + CLOSE_BOUND, tell).await;
        self.is_over()
    }
}

fn read(result: lapin::Result<Confirmation>) -> Said {
    let (answer, returned, end) = match result {
        Ok(Confirmation::Ack(returned)) => (Answer::Acked, returned, None),
        Ok(Confirmation::Nack(returned)) => (Answer::Nacked, returned, None),
        Ok(Confirmation::NotRequested) => (Answer::Failed, None, None),
        Err(error) => (Answer::Failed, None, end_of(&error)),
    };
    let returned = returned.map(|message| ReturnedMessage {
        tx_id: message
            .delivery
            .properties
            .message_id()
            .as_ref()
            .and_then(|id| Uuid::try_parse(id.as_str()).ok())
            .map(TxId),
        queue: message.delivery.routing_key.to_string(),
        reason: format!("{} {}", message.reply_code, message.reply_text),
    });
    Said { answer, returned, end }
}

#[cfg(test)]
mod tests;
