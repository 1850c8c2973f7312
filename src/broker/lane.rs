//! One publishing channel: a group goes out, its confirms and returns come in, and only then is anything decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connection::{CallError, Handle, bounded};
use super::link::{Link, LinkWatch};
use super::outcome::{Answer, NotSent, ReturnedMessage, judge};
use super::publisher::{Job, JobQueue, PublisherSettings, refusal};
use crate::model::TxId;
use crate::txn::faults::{Point, reach};

/// Longest wait for the close of a channel whose confirms did not come: an answer shows that the connection still works.
const CLOSE_BOUND: Duration = Duration::from_millis(500);

pub(super) struct Lane {
    queue: Arc<JobQueue>,
    link: LinkWatch,
    settings: PublisherSettings,
    closing: CancellationToken,
    open: Option<(Handle, Channel)>,
}

impl Lane {
    pub(super) fn new(
        queue: Arc<JobQueue>,
        link: LinkWatch,
        settings: PublisherSettings,
        closing: CancellationToken,
    ) -> Self {
        Self { queue, link, settings, closing, open: None }
    }

    /// Publishes until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        while let Some(group) = self.queue.take(&self.closing).await {
            match self.channel().await {
                Ok((handle, channel)) => self.publish(&handle, &channel, group).await,
                Err(reason) => refuse(group, &reason),
            }
        }
    }

    /// The channel of the present connection, opened when there is none that can be used.
    async fn channel(&mut self) -> Result<(Handle, Channel), NotSent> {
        let link = self.link.current();
        refusal(&link)?;
        let Link::Up(handle) = link else { return Err(NotSent::Closed) };
        if let Some((of, channel)) = &self.open
            && of.same(&handle)
            && channel.status().connected()
        {
            return Ok((handle, channel.clone()));
        }
        self.open = None;
        match confirming(&handle).await {
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
        group.retain_mut(Job::claim);
        let mut flight = Flight::start(channel, &mut group);
        flight.land(Instant::now() + self.settings.confirm_bound).await;
        let mut settled = flight.is_over();
        let blocked = matches!(self.link.current(), Link::Blocked { .. });
        if !settled && !blocked {
            settled = flight.give_up(handle, channel).await;
            self.open = None;
        }
        let parcels = group.iter().flat_map(|job| &job.parcels);
        let sent: Vec<_> = parcels.map(|parcel| (parcel.tx_id, parcel.queue.as_str())).collect();
        let mut verdicts = judge(&sent, &flight.answers, &flight.returned, settled).into_iter();
        for job in &mut group {
            job.answer(verdicts.by_ref().take(job.parcels.len()).collect());
        }
        if blocked && !flight.is_over() {
            self.hold(handle, channel, flight).await;
        }
    }

    /// Under an alarm the library keeps back what it was given, and would send a channel's close before its publishes:
    /// the channel is kept, and nothing else is sent on it, until the alarm is over.
    async fn hold(&mut self, handle: &Handle, channel: &Channel, mut flight: Flight<'_>) {
        let unblocked = self.link.until(|link| !matches!(link, Link::Blocked { .. }));
        let supervised = unblocked.await;
        flight.land(Instant::now() + self.settings.confirm_bound).await;
        if !flight.is_over() && supervised {
            let _settled = flight.give_up(handle, channel).await;
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
    for mut job in group.into_iter().filter_map(|mut job| job.claim().then_some(job)) {
        job.refuse(reason);
    }
}

/// The publishes of one group that have no answer yet, and what was answered to the others.
struct Flight<'a> {
    open: FuturesUnordered<BoxFuture<'a, (usize, lapin::Result<Confirmation>)>>,
    answers: Vec<Answer>,
    returned: Vec<ReturnedMessage>,
    /// Publishes that the library has written to the socket.
    written: Arc<AtomicUsize>,
}

impl<'a> Flight<'a> {
    fn start(channel: &'a Channel, group: &mut [Job]) -> Self {
        let written = Arc::new(AtomicUsize::new(0));
        let parcels = group.iter_mut().flat_map(|job| &mut job.parcels);
        let open: FuturesUnordered<_> = parcels
            .enumerate()
            .map(|(at, parcel)| {
                let (queue, body) = (parcel.queue.clone(), parcel.body.clone());
                let properties = std::mem::take(&mut parcel.properties);
                let written = written.clone();
                let options = BasicPublishOptions { mandatory: true, immediate: false };
                let publish = async move {
                    let confirm =
                        channel.basic_publish(ShortString::default(), queue, options, &body, properties).await?;
                    written.fetch_add(1, Ordering::Relaxed);
                    reach(Point::IN4).await.map_err(std::io::Error::other)?;
                    confirm.await
                };
                publish.map(move |result| (at, result)).boxed()
            })
            .collect();
        Self { answers: vec![Answer::Open; open.len()], open, returned: Vec::new(), written }
    }

    fn is_over(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes in what the broker says, until everything is answered or the deadline is over.
    async fn land(&mut self, deadline: Instant) {
        let all = async {
            while let Some((at, result)) = self.open.next().await {
                let (answer, returned) = read(result);
                self.returned.extend(returned);
                if let Some(slot) = self.answers.get_mut(at) {
                    *slot = answer;
                }
            }
        };
        let _in_time = tokio::time::timeout_at(deadline, all).await;
    }

    /// Gives up what has no answer. Closing the channel makes the broker's earlier words arrive first; without an answer
    /// even to that, the whole connection is given up. True: everything the broker said has been read.
    async fn give_up(&mut self, handle: &Handle, channel: &Channel) -> bool {
        if self.written.load(Ordering::Relaxed) < self.answers.len() {
            handle.give_up("the broker does not read");
            return false;
        }
        let close = channel.close(200, "no confirm in time".into());
        if !matches!(tokio::time::timeout(CLOSE_BOUND, close).await, Ok(Ok(()))) {
            handle.give_up("the broker does not answer");
            return false;
        }
        self.land(Instant::now() + CLOSE_BOUND).await;
        self.is_over()
    }
}

fn read(result: lapin::Result<Confirmation>) -> (Answer, Option<ReturnedMessage>) {
    let (answer, returned) = match result {
        Ok(Confirmation::Ack(returned)) => (Answer::Acked, returned),
        Ok(Confirmation::Nack(returned)) => (Answer::Nacked, returned),
        Ok(Confirmation::NotRequested) | Err(_) => (Answer::Failed, None),
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
    (answer, returned)
}
