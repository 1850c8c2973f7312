//! Publishing with confirms: callers queue up, a few lanes take all that waits and publish it as a group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lane::Lane;
use super::link::{Ground, Link, LinkStatus, LinkWatch};
use super::outcome::{Confirmed, Doubt, NotSent, PublishError};
use super::wire::{OutMessage, Parcel, encode};

/// How much a publisher may hold, and how long it waits.
#[derive(Debug, Clone, Copy)]
pub struct PublisherSettings {
    /// Channels that publish side by side. Default 3.
    pub lanes: usize,
    /// Jobs, of one message or some, that may wait for a lane. Default 4096.
    pub waiting: usize,
    /// Bytes that may wait or be under way. Default 16 MiB; one larger message goes alone.
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
            bytes: 16 * 1024 * 1024,
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
    room: Arc<Semaphore>,
    link: LinkWatch,
    settings: PublisherSettings,
    closing: CancellationToken,
    lanes: TaskTracker,
}

impl Publisher {
    pub(super) fn start(link: LinkWatch, settings: PublisherSettings, ground: &Ground) -> Self {
        let (jobs, receiver) = mpsc::channel(settings.waiting.max(1));
        let queue = Arc::new(JobQueue { receiver: Mutex::new(receiver), settings });
        let (closing, lanes) = (CancellationToken::new(), TaskTracker::new());
        for _ in 0..settings.lanes.max(1) {
            let lane = Lane::new(queue.clone(), link.clone(), settings, closing.clone());
            let hard = ground.hard.clone();
            ground.tasks.spawn(lanes.track_future(async move { hard.run_until_cancelled(lane.run()).await }));
        }
        lanes.close();
        Self { jobs, room: Arc::new(Semaphore::new(settings.bytes)), link, settings, closing, lanes }
    }

    /// Publishes one message; as [`publish_all`](Self::publish_all).
    pub async fn publish(&self, message: OutMessage, bound: Duration) -> Result<Confirmed, PublishError> {
        let mut answers = self.publish_all(vec![message], bound).await;
        answers.pop().unwrap_or(Err(PublishError::NotSent(NotSent::Closed)))
    }

    /// Publishes messages, as far as possible on one channel, and waits, at most `bound`, for the broker's word on each; one
    /// answer each, in their order. Dropping the future does not take them back.
    pub async fn publish_all(
        &self,
        messages: Vec<OutMessage>,
        bound: Duration,
    ) -> Vec<Result<Confirmed, PublishError>> {
        let deadline = Instant::now() + bound;
        let (mut unfit, mut jobs, mut last) = (Vec::new(), Vec::new(), (Vec::new(), 0));
        for (at, message) in messages.into_iter().enumerate() {
            let cost = message.cost();
            match encode(message) {
                Ok(parcel) => {
                    let (parcels, bytes) = &mut last;
                    parcels.push(parcel);
                    *bytes += cost;
                    // No larger than what a lane puts together.
                    if parcels.len() >= self.settings.group_messages || *bytes >= self.settings.group_bytes {
                        jobs.push(std::mem::take(&mut last));
                    }
                }
                Err(error) => unfit.push((at, error)),
            }
        }
        jobs.push(last);
        let sent = jobs.into_iter().filter(|(parcels, _)| !parcels.is_empty());
        let sent = join_all(sent.map(|(parcels, cost)| self.send(parcels, cost, deadline))).await;
        let mut answers: Answers = sent.into_iter().flatten().collect();
        for (at, error) in unfit {
            answers.insert(at, Err(PublishError::NotSent(error.into())));
        }
        answers
    }

    async fn send(&self, parcels: Vec<Parcel>, cost: usize, deadline: Instant) -> Answers {
        let many = parcels.len();
        let sent = self.try_to_send(parcels, cost, deadline).await;
        sent.unwrap_or_else(|error| (0..many).map(|_| Err(error.clone())).collect())
    }

    async fn try_to_send(&self, parcels: Vec<Parcel>, cost: usize, deadline: Instant) -> Result<Answers, PublishError> {
        let (job, claim, answer) = self.prepare(parcels, cost, deadline).await.map_err(PublishError::NotSent)?;
        self.jobs.try_send(job).map_err(|error| {
            PublishError::NotSent(match error {
                mpsc::error::TrySendError::Full(_) => NotSent::Full,
                mpsc::error::TrySendError::Closed(_) => NotSent::Closed,
            })
        })?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(_)) if claim.take() => Err(PublishError::NotSent(NotSent::Closed)),
            Ok(Err(_)) => Err(PublishError::Unknown(Doubt::Lost)),
            Err(_) if claim.take() => Err(PublishError::NotSent(NotSent::Expired)),
            Err(_) => Err(PublishError::Unknown(Doubt::NoConfirm)),
        }
    }

    async fn prepare(
        &self,
        parcels: Vec<Parcel>,
        cost: usize,
        deadline: Instant,
    ) -> Result<(Job, Claim, oneshot::Receiver<Answers>), NotSent> {
        if self.closing.is_cancelled() {
            return Err(NotSent::Closed);
        }
        refusal(&self.link.current())?;
        let permits = u32::try_from(cost.min(self.settings.bytes)).unwrap_or(u32::MAX);
        let until = deadline.min(Instant::now() + self.settings.room_bound);
        let room = tokio::time::timeout_at(until, self.room.clone().acquire_many_owned(permits)).await;
        let room = room.map_err(|_| NotSent::Full)?.map_err(|_| NotSent::Closed)?;
        let claim = Claim::default();
        let (reply, answer) = oneshot::channel();
        let job = Job { parcels, cost, deadline, claim: claim.clone(), reply: Some(reply), _room: room };
        Ok((job, claim, answer))
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

/// Why nothing may be sent in this state.
pub(super) fn refusal(link: &Link) -> Result<(), NotSent> {
    match link {
        Link::Up(_) => Ok(()), // if it has just ended, the lane will find out
        Link::Blocked { reason, .. } => Err(NotSent::Blocked(reason.clone())),
        Link::Down { reason, .. } => Err(NotSent::Down(reason.clone())),
    }
}

/// One for each message of a job.
type Answers = Vec<Result<Confirmed, PublishError>>;

/// Settles whether a message is sent or withdrawn: whoever takes it first.
#[derive(Clone, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// Messages that go out together, with the room that they occupy.
pub(super) struct Job {
    pub(super) parcels: Vec<Parcel>,
    cost: usize,
    deadline: Instant,
    claim: Claim,
    reply: Option<oneshot::Sender<Answers>>,
    _room: OwnedSemaphorePermit,
}

impl Job {
    fn is_withdrawn(&self) -> bool {
        self.claim.0.load(Ordering::Acquire)
    }

    /// Makes it ours, to be sent now: false when its caller has withdrawn it, or its time is over.
    pub(super) fn claim(&mut self) -> bool {
        if !self.claim.take() {
            return false;
        }
        let in_time = self.deadline > Instant::now();
        if !in_time {
            self.refuse(&NotSent::Expired);
        }
        in_time
    }

    /// None of it was sent.
    pub(super) fn refuse(&mut self, reason: &NotSent) {
        self.answer(self.parcels.iter().map(|_| Err(PublishError::NotSent(reason.clone()))).collect());
    }

    pub(super) fn answer(&mut self, answers: Answers) {
        if let Some(reply) = self.reply.take()
            && let Err(unheard) = reply.send(answers)
        {
            tracing::debug!(?unheard, "nobody waited for these publishes");
        }
    }
}

/// What waits for a lane.
pub(super) struct JobQueue {
    receiver: Mutex<mpsc::Receiver<Job>>,
    settings: PublisherSettings,
}

impl JobQueue {
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
