//! One receiver's life: wanted, connecting, consuming, stopping; again after every interruption.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::gather::{Gathered, Gathering};
use super::intake::{Intake, Learnt};
use super::lanes::Lanes;
use super::left::{Left, unreadable, with_cause};
use super::prefetch::Prefetch;
use super::slot::{Hand, Line};
use super::worker::Worker;
use super::{Pace, Processor, ReceiverSettings};
use crate::broker::{CallError, ConsumerSession, TopologyError};
use crate::lifecycle::{Lifecycle, NeededFor, Task, point};
use crate::model::{AdapterState, HomeId, Seldom};
use crate::pipeline::Wanted;
use crate::relay::{Direct, Shared};

/// How long a stop of one adapter waits for what is in hand.
const DRAIN: Duration = Duration::from_secs(20);
/// Between two looks at a queue that holds an unreadable message which could not be set aside.
const UNREADABLE: Duration = Duration::from_secs(10);
/// Before the next session after the database ended one: at first, and at most, when it ends one after the other.
const FIRST_PATIENCE: Duration = Duration::from_millis(200);
const LONGEST_PATIENCE: Duration = Duration::from_secs(5);
/// A session that lasted so long was no vain try, nor was one in which a message succeeded.
const NOT_IN_VAIN: Duration = Duration::from_secs(10);
/// Between two tries to begin.
const AGAIN: Duration = Duration::from_millis(500);
const BEING_SET_ASIDE: &str = "a message that cannot be read is being set aside";

/// A receiver with what it works with.
pub struct Receiver {
    name: String,
    worker: Arc<Worker>,
    wanted: watch::Receiver<Wanted>,
    permits: Arc<Semaphore>,
    lanes: Lanes,
    learnt: Arc<Mutex<Learnt>>,
    /// Grows with each session that the database ends soon.
    patience: Duration,
    /// How many messages had succeeded when the database ended a session last.
    successes: u64,
    /// Why it does not consume: what was told.
    told: Seldom,
    /// Nothing was found when something unreadable was looked for last: another instance may have been faster.
    in_vain: bool,
    lifecycle: Lifecycle,
}

/// Why there is no session.
struct NotBegun {
    state: AdapterState,
    reason: String,
    /// By the broker, in its own words.
    refused: bool,
}

/// Runs a receiver until the stop.
pub async fn supervise(settings: ReceiverSettings, processor: Processor, shared: Shared, lifecycle: Lifecycle) {
    let Some(wanted) = processor.registry.wanted(&settings.adapter) else { return };
    let permits = Arc::new(Semaphore::new(settings.num_threads.max(1)));
    let pace = Arc::new(Pace::new(settings.num_threads));
    let (lanes, processor) = (Lanes::new(pace.clone()), Processor { pace, troubles: Arc::default(), ..processor });
    let learnt = Learnt { prefetch: Prefetch::new(settings.prefetch()), share: processor.in_advance.join() };
    let line = Arc::new(Line::new(learnt.prefetch.now()));
    let learnt = Arc::new(Mutex::new(learnt));
    let worker = Worker { settings, processor, shared, line, settling: tokio::sync::Mutex::default() };
    let task = Task::new(format!("receiver {}", worker.settings.adapter), NeededFor::Processing);
    let (name, watch, soft) = (task.name().to_owned(), lifecycle.watch.clone(), lifecycle.soft.clone());
    let patience = FIRST_PATIENCE;
    let told = Seldom::default();
    let mut receiver = Receiver {
        name,
        worker: worker.into(),
        wanted,
        permits,
        lanes,
        learnt,
        patience,
        successes: 0,
        told,
        in_vain: false,
        lifecycle,
    };
    // What is at work goes on with its permits, and what was delivered and not begun goes back to the queue.
    watch.until_stopped(task, &soft, &mut receiver, |receiver| receiver.begin_anew().boxed()).await;
}

impl Receiver {
    async fn begin_anew(&mut self) {
        self.worker.processor.relay.stop_serving(&self.worker.settings.destination);
        self.report(AdapterState::Starting, None);
        self.live().await;
    }

    async fn live(&mut self) {
        let soft = self.lifecycle.soft.clone();
        while !soft.is_cancelled() {
            if *self.wanted.borrow_and_update() == Wanted::Stopped {
                self.report(AdapterState::Stopped, None);
                tokio::select! {
                    _changed = self.wanted.changed() => {}
                    () = soft.cancelled() => {}
                }
                continue;
            }
            match self.begin().await {
                Ok(session) => self.consume_until_interrupted(session).await,
                Err(NotBegun { state, reason, refused }) => {
                    if refused {
                        self.tell(&reason);
                    }
                    self.report(state, Some(reason));
                    self.pause(AGAIN).await;
                }
            }
        }
        self.report(AdapterState::Stopped, None);
    }

    /// Everything that must be there before the first delivery.
    async fn begin(&self) -> Result<ConsumerSession, NotBegun> {
        let settings = &self.worker.settings;
        let starting = |reason: String| NotBegun { state: AdapterState::Starting, reason, refused: false };
        let home: HomeId = self
            .worker
            .processor
            .store
            .home()
            .ok_or_else(|| starting("the home database was not reached yet".to_owned()))?;
        if let Some(trouble) = self.worker.shared.trouble() {
            return Err(starting(format!("waiting for the home database: {trouble}")));
        }
        for database in &settings.databases {
            if let Err(error) = self.worker.processor.store.databases.target(database) {
                return Err(starting(error.to_string()));
            }
        }
        let relay = &self.worker.processor.relay;
        let broker = relay
            .broker(&settings.connection)
            .ok_or_else(|| format!("connection {} is not configured", settings.connection))
            .map_err(|reason| NotBegun { state: AdapterState::Error, ..starting(reason) })?;
        if let Err(error) = broker.ensure_queue(&settings.queue).await {
            let refused = error.by_broker();
            let state = match error {
                TopologyError::Missing { .. } => AdapterState::Error,
                TopologyError::UnknownVersion { .. } | TopologyError::Call { .. } => AdapterState::Starting,
            };
            return Err(NotBegun { state, reason: with_cause(&error), refused });
        }
        let prefetch = Learnt::now(&self.learnt);
        let refused = |error: CallError| NotBegun { refused: error.by_broker(), ..starting(with_cause(&error)) };
        broker.consume(&settings.queue, prefetch, home).await.map_err(refused)
    }

    async fn consume_until_interrupted(&mut self, session: ConsumerSession) {
        let destination = self.worker.settings.destination.clone();
        let relay = self.worker.processor.relay.clone();
        let directs = relay.serve(&destination);
        self.report(AdapterState::Started, None);
        let began = Instant::now();
        let mut intake = Intake::new(session, self.learnt.clone(), self.worker.line.clone());
        let left = self.consume(&mut intake, directs).await;
        relay.stop_serving(&destination);
        match &left {
            Left::Unwanted | Left::Stopping => self.report(AdapterState::Stopping, None),
            Left::Lost(reason) => {
                self.tell(reason);
                self.report(AdapterState::Starting, Some(reason.clone()));
            }
            Left::Unreadable => self.report(AdapterState::Starting, Some(BEING_SET_ASIDE.to_owned())),
            Left::Database(reason) => {
                tracing::warn!(adapter = %self.worker.settings.adapter, %reason, "not consuming: the database is at fault");
                self.worker.processor.outcomes.failed(reason.clone(), 0);
                self.report(AdapterState::Starting, Some(reason.clone()));
            }
        }
        intake.leave().await;
        self.drain().await;
        // Whatever is not settled goes back to the queue with its channel.
        intake.session.close().await;
        match left {
            Left::Database(_) => self.wait_for_database(began.elapsed()).await,
            Left::Unreadable => self.set_aside().await,
            Left::Unwanted | Left::Stopping | Left::Lost(_) => {}
        }
    }

    async fn consume(&mut self, intake: &mut Intake, mut directs: mpsc::Receiver<Direct>) -> Left {
        let (trouble, mut troubled) = mpsc::channel::<Left>(1);
        let over = CancellationToken::new();
        let _over = over.clone().drop_guard();
        let hand = Hand { permits: self.permits.clone(), lifecycle: self.lifecycle.clone(), trouble, over };
        let soft = self.lifecycle.soft.clone();
        let groups = self.worker.settings.may_group();
        let (mut gathering, mut kept) = (Gathering::default(), None);
        loop {
            // Permit first, then message: what cannot be worked on stays with the broker.
            let permit = tokio::select! {
                biased;
                permit = self.permits.clone().acquire_owned() => permit,
                Some(left) = troubled.recv() => return left,
                () = unwanted(&mut self.wanted) => return Left::Unwanted,
                () = soft.cancelled() => return Left::Stopping,
                // Meanwhile what was sent in advance is looked at: it may be too much.
                () = intake.session.take_in() => continue,
            };
            let Ok(permit) = permit else { return Left::Stopping };
            let first = match kept.take() {
                Some(delivery) => delivery,
                None => tokio::select! {
                    biased;
                    Some(left) = troubled.recv() => return left,
                    () = soft.cancelled() => return Left::Stopping,
                    () = unwanted(&mut self.wanted) => return Left::Unwanted,
                    Some(message) = directs.recv() => {
                        self.worker.work_on_direct(message, permit, &hand);
                        intake.look();
                        continue;
                    }
                    delivery = intake.next() => match delivery {
                        Ok(delivery) => delivery,
                        Err(end) => return end.into(),
                    },
                },
            };
            point(&self.name);
            if !groups || !first.may_share() {
                self.worker.work_on(first, permit, &hand);
                continue;
            }
            let lane = tokio::select! {
                biased;
                Some(left) = troubled.recv() => return left,
                () = soft.cancelled() => return Left::Stopping,
                () = unwanted(&mut self.wanted) => return Left::Unwanted,
                lane = self.lanes.take(self.worker.settings.group_size) => lane,
            };
            let Some((lane, size)) = lane else {
                self.worker.work_on(first, permit, &hand);
                continue;
            };
            let (group, next) = gathering.gather(first, || intake.waiting(), size).await;
            kept = next;
            self.worker.work_on_group(group, permit, lane, &hand);
        }
    }

    /// Takes out of the queue what cannot be read, unless the session was not the first in a row that nothing was found after.
    async fn set_aside(&mut self) {
        let soft = self.lifecycle.soft.clone();
        let Some(found) = soft.run_until_cancelled(self.worker.set_aside()).await else { return };
        let why = match found {
            Ok(0) if !std::mem::replace(&mut self.in_vain, true) => return,
            Ok(0) => "none was found among the first of the queue".to_owned(),
            Ok(_) => {
                self.in_vain = false;
                return;
            }
            Err(why) => why,
        };
        self.report(AdapterState::Error, Some(unreadable(&self.worker.settings.queue, &why)));
        self.pause(UNREADABLE).await;
    }

    /// Waits, within the bound, until nothing is in hand.
    async fn drain(&self) {
        let all = u32::try_from(self.worker.settings.num_threads.max(1)).unwrap_or(u32::MAX);
        if tokio::time::timeout(DRAIN, self.permits.acquire_many(all)).await.is_err() {
            tracing::warn!(adapter = %self.worker.settings.adapter, "still at work after {DRAIN:?}; handed back");
        }
    }

    /// A database may answer and fail every message all the same, for want of space say: it is not tried without end.
    async fn wait_for_database(&mut self, lasted: Duration) {
        let successes = self.worker.processor.troubles.successes();
        if lasted > NOT_IN_VAIN || successes != self.successes {
            (self.patience, self.successes) = (FIRST_PATIENCE, successes);
        }
        self.pause(self.patience).await;
        self.patience = (self.patience * 2).min(LONGEST_PATIENCE);
        let mut pause = Duration::from_millis(200);
        let databases = &self.worker.settings.databases;
        while !self.lifecycle.soft.is_cancelled()
            && *self.wanted.borrow() == Wanted::Started
            && !self.worker.processor.store.answers(databases).await
        {
            self.pause(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    async fn pause(&self, pause: Duration) {
        let mut wanted = self.wanted.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = unwanted(&mut wanted) => {}
            () = self.lifecycle.soft.cancelled() => {}
        }
    }

    /// With the broker's own words, once in a while: it is tried twice a second.
    fn tell(&mut self, reason: &str) {
        if let Some(untold) = self.told.admit(reason, Instant::now()) {
            tracing::warn!(adapter = %self.worker.settings.adapter, reason, untold, "a receiver does not consume");
        }
    }

    fn report(&self, state: AdapterState, reason: Option<String>) {
        self.worker.processor.registry.report(&self.worker.settings.adapter, state, reason, Timestamp::now());
    }
}

async fn unwanted(wanted: &mut watch::Receiver<Wanted>) {
    if wanted.wait_for(|wanted| *wanted == Wanted::Stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}
