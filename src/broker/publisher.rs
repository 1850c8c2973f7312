//! Publishing with confirms: callers queue up, a few lanes take all that waits and publish it as a group.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::endpoint::Endpoint;
use super::lane::Lane;
use super::link::{Ground, Link, LinkStatus, LinkWatch};
use super::outcome::{Confirmed, NotSent, PublishError};
use super::publishing::{Claim, Publishing, Word};
use super::way::Way;
use super::wire::{OutMessage, Parcel, encode};
use crate::lifecycle::{NeededFor, Task};
use crate::model::TxId;

/// How much a publisher may hold, and how long it waits.
#[derive(Debug, Clone, Copy)]
pub struct PublisherSettings {
    /// Channels that publish side by side. Default 3.
    pub lanes: usize,
    /// Jobs, of one message or some, that may wait for a lane. Default 4096.
    pub waiting: usize,
    /// Bytes that may wait or be under way. Default 32 MiB: 256 clients with 64 KiB each have more than 16 there when the
    /// broker is the slowest part, and beyond it whoever comes is refused. One larger message goes alone.
    pub bytes: usize,
    /// A group takes no further job once it holds so many messages. Default 256.
    pub group_messages: usize,
    /// A group takes no further job once it holds this many bytes. Default 256 KiB.
    pub group_bytes: usize,
    /// Longest wait for a group's confirms. Default 5 s.
    pub confirm_bound: Duration,
    /// Longest wait for room among `bytes`. Default 250 ms.
    pub room_bound: Duration,
}

impl Default for PublisherSettings {
    fn default() -> Self {
        Self {
            lanes: 3,
            waiting: 4096,
            bytes: 32 * 1024 * 1024,
            group_messages: 256,
            group_bytes: 256 * 1024,
            confirm_bound: Duration::from_secs(5),
            room_bound: Duration::from_millis(250),
        }
    }
}

/// Hands messages to the broker. Clones share the lanes; when the last one is gone the lanes end.
#[derive(Clone)]
pub struct Publisher {
    jobs: mpsc::Sender<Job>,
    /// For the lane with a connection of its own, which sends one at a time.
    apart: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    link: LinkWatch,
    settings: PublisherSettings,
    closing: CancellationToken,
    lanes: TaskTracker,
}

impl Publisher {
    pub(super) fn start(endpoint: Endpoint, link: LinkWatch, settings: PublisherSettings, ground: &Ground) -> Self {
        let (closing, lanes) = (CancellationToken::new(), TaskTracker::new());
        let connection = endpoint.name.clone();
        let start = |which: &str, queue: Arc<JobQueue>, way: Way, settings: PublisherSettings| {
            let task = Task::new(format!("publisher {connection} {which}"), NeededFor::Accepting);
            let mut lane = Lane::new(task.name().to_owned(), queue, way, settings, closing.clone());
            let (hard, watch) = (ground.hard.clone(), ground.watch.clone());
            ground.tasks.spawn(lanes.track_future(async move {
                let run = watch.until_done(task, &hard, &mut lane, |lane| lane.run().boxed());
                hard.run_until_cancelled(run).await
            }));
        };
        let (jobs, queue) = JobQueue::of(settings);
        for number in 1..=settings.lanes.max(1) {
            start(&number.to_string(), queue.clone(), Way::Shared(link.clone()), settings);
        }
        let alone = PublisherSettings { group_messages: 1, ..settings };
        let (apart, queue) = JobQueue::of(alone);
        start("apart", queue, Way::apart(endpoint, link.clone()), alone);
        lanes.close();
        Self { jobs, apart, room: Arc::new(Semaphore::new(settings.bytes)), link, settings, closing, lanes }
    }

    /// Publishes one message; as [`publish_all`](Self::publish_all).
    pub async fn publish(&self, message: OutMessage, bound: Duration) -> Result<Confirmed, PublishError> {
        let mut publishing = self.publish_all(vec![message], bound).await;
        let answer = publishing.some().await.pop();
        answer.map_or(Err(PublishError::NotSent(NotSent::Closed)), |(_, answer)| answer)
    }

    /// Hands messages over to be published, as far as possible on one channel; waits for room among others'. The broker's word
    /// on each is told, once, as soon as it is known, and in at most `bound`. Dropping what is answered does not take them back.
    pub async fn publish_all(&self, messages: Vec<OutMessage>, bound: Duration) -> Publishing {
        self.hand_over_all(&self.jobs, self.settings.group_messages, messages, bound).await
    }

    /// The same, each alone on a connection that is nobody else's: when the broker ends that, it is known for whom.
    pub async fn publish_apart(&self, messages: Vec<OutMessage>, bound: Duration) -> Publishing {
        self.hand_over_all(&self.apart, 1, messages, bound).await
    }

    async fn hand_over_all(
        &self,
        jobs_for: &mpsc::Sender<Job>,
        most: usize,
        messages: Vec<OutMessage>,
        bound: Duration,
    ) -> Publishing {
        let deadline = Instant::now() + bound;
        let (tell, mut publishing) = Publishing::of(messages.len(), deadline);
        let (mut jobs, mut last) = (Vec::new(), (Vec::new(), 0));
        for (at, message) in messages.into_iter().enumerate() {
            let cost = message.cost();
            match encode(message) {
                Ok(parcel) => {
                    let (parcels, bytes) = &mut last;
                    parcels.push(Place { at, cost, parcel });
                    *bytes += cost;
                    // No larger than what a lane puts together.
                    if parcels.len() >= most || *bytes >= self.settings.group_bytes {
                        jobs.push(std::mem::take(&mut last));
                    }
                }
                Err(error) => publishing.not_sent([at], &error.into()),
            }
        }
        jobs.push(last);
        let room_until = deadline.min(Instant::now() + self.settings.room_bound);
        for (parcels, cost) in jobs.into_iter().filter(|(parcels, _)| !parcels.is_empty()) {
            let (claim, places) = (Claim::default(), parcels.iter().map(|place| place.at).collect::<BTreeSet<_>>());
            let handed_over = self.room(cost, room_until).await.and_then(|room| {
                let (claim, tell) = (claim.clone(), tell.clone());
                hand_over(jobs_for, Job { parcels, cost, deadline, claim, tell, room: room.into() })
            });
            match handed_over {
                Ok(()) => publishing.wait_for(claim, places),
                Err(reason) => publishing.not_sent(places, &reason),
            }
        }
        publishing
    }

    /// Room for so many bytes.
    async fn room(&self, cost: usize, until: Instant) -> Result<OwnedSemaphorePermit, NotSent> {
        if self.closing.is_cancelled() {
            return Err(NotSent::Closed);
        }
        refusal(&self.link.current())?;
        let permits = u32::try_from(cost.min(self.settings.bytes)).unwrap_or(u32::MAX);
        let room = tokio::time::timeout_at(until, self.room.clone().acquire_many_owned(permits)).await;
        room.map_err(|_| NotSent::Full)?.map_err(|_| NotSent::Closed)
    }

    /// Whether a message would be taken now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.link.is_up()
            && !self.closing.is_cancelled()
            && self.jobs.capacity() > 0
            && self.room.available_permits() > 0
    }

    /// The publishing connection. A memory or disk alarm shows only once something was published into it.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        self.link.status()
    }

    /// Takes nothing more, publishes what waits, and ends the lanes; waits for that as long as one group may take.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        let bound = self.settings.confirm_bound + Duration::from_secs(1);
        if tokio::time::timeout(bound, self.lanes.wait()).await.is_err() {
            tracing::warn!("the publisher was closed before everything was confirmed");
        }
    }
}

fn hand_over(jobs: &mpsc::Sender<Job>, job: Job) -> Result<(), NotSent> {
    jobs.try_send(job).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => NotSent::Full,
        mpsc::error::TrySendError::Closed(_) => NotSent::Closed,
    })
}

/// Why nothing may be sent in this state.
pub(super) fn refusal(link: &Link) -> Result<(), NotSent> {
    match link {
        Link::Up(_) => Ok(()), // if it has just ended, the lane will find out
        Link::Blocked { reason, .. } => Err(NotSent::Blocked(reason.clone())),
        Link::Down { reason, .. } => Err(NotSent::Down(reason.clone())),
    }
}

/// Messages that go out together, with the room that they occupy.
pub(super) struct Job {
    pub(super) parcels: Vec<Place>,
    cost: usize,
    deadline: Instant,
    claim: Claim,
    tell: mpsc::Sender<Word>,
    room: Mutex<OwnedSemaphorePermit>,
}

/// A message, its place among what was handed over, and the bytes of room that it takes.
pub(super) struct Place {
    at: usize,
    cost: usize,
    pub(super) parcel: Parcel,
}

/// Who waits for the word on one message.
pub(super) struct Recipient<'a> {
    place: &'a Place,
    job: &'a Job,
}

impl Recipient<'_> {
    /// By what the message is recognised should it come back.
    pub(super) fn message(&self) -> (TxId, &str) {
        (self.place.parcel.tx_id, self.place.parcel.queue.as_str())
    }

    pub(super) fn tell(&self, word: Result<Confirmed, PublishError>) {
        // There is room for one word on each message.
        if let Err(unheard) = self.job.tell.try_send((self.place.at, word)) {
            tracing::debug!(?unheard, "nobody waited for this publish");
        }
    }

    /// Its room is free: nobody holds its body here any more.
    pub(super) fn leave(&self) {
        drop(self.job.room.lock().unwrap_or_else(PoisonError::into_inner).split(self.place.cost));
    }
}

impl Job {
    fn is_withdrawn(&self) -> bool {
        self.claim.is_taken()
    }

    /// Makes it ours, to be sent now: false when its caller has withdrawn it, or its time is over.
    pub(super) fn claim(&self) -> bool {
        if !self.claim.take() {
            return false;
        }
        let in_time = self.deadline > Instant::now();
        if !in_time {
            self.refuse(&NotSent::Expired);
        }
        in_time
    }

    pub(super) fn recipients(&self) -> impl Iterator<Item = Recipient<'_>> {
        self.parcels.iter().map(|place| Recipient { place, job: self })
    }

    /// None of it was sent.
    pub(super) fn refuse(&self, reason: &NotSent) {
        self.recipients().for_each(|recipient| recipient.tell(Err(PublishError::NotSent(reason.clone()))));
    }
}

/// What waits for a lane.
pub(super) struct JobQueue {
    receiver: tokio::sync::Mutex<mpsc::Receiver<Job>>,
    settings: PublisherSettings,
}

impl JobQueue {
    fn of(settings: PublisherSettings) -> (mpsc::Sender<Job>, Arc<Self>) {
        let (jobs, receiver) = mpsc::channel(settings.waiting.max(1));
        (jobs, Arc::new(Self { receiver: tokio::sync::Mutex::new(receiver), settings }))
    }

    /// Whether nothing waits.
    pub(super) async fn is_empty(&self) -> bool {
        self.receiver.lock().await.is_empty()
    }

    /// Waits for a message and takes all that waits with it, up to a group's bounds. `None`: no more will come.
    pub(super) async fn take(&self, closing: &CancellationToken) -> Option<Vec<Job>> {
        let mut receiver = self.receiver.lock().await;
        loop {
            let first = tokio::select! {
                first = receiver.recv() => first?,
                () = closing.cancelled() => { receiver.close(); receiver.recv().await? }
            };
            let (mut messages, mut bytes) = (first.parcels.len(), first.cost);
            let mut group = vec![first];
            while messages < self.settings.group_messages && bytes < self.settings.group_bytes {
                let Ok(job) = receiver.try_recv() else { break };
                messages += job.parcels.len();
                bytes += job.cost;
                group.push(job);
            }
            group.retain(|job| !job.is_withdrawn());
            if !group.is_empty() {
                return Some(group);
            }
        }
    }
}
