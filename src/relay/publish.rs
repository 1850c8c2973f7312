//! Publishing from memory, and marking in batches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::select_all;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::DatabaseClock;
use super::batch::{Batch, Sent};
use super::board::{Board, OpenCounts};
use super::direct::{Direct, Route};
use super::failures::{NOTES, Unconfirmed};
use super::marker::{Marker, Unmarked};
use super::page::PAGE;
use super::room::{Occupied, Room};
use super::suspects::Suspects;
use super::trouble::Admission;
use crate::broker::{Broker, OutMessage};
use crate::lifecycle::Lifecycle;
use crate::model::{AdapterName, Destination, HomeId, Mode, SlotId, TxId};
use crate::store::{Claimed, Mark, Store};
use crate::txn::faults::{Point, reach};

/// Longest wait for a publisher's confirm.
pub const CONFIRM_BOUND: Duration = Duration::from_secs(5);
/// Marks that may wait; whoever finds no room waits with his own, and tells the broker's words all the same. Each waits for a
/// second, and takes 60 bytes.
const MARKS: usize = 65_536;

/// A queue that this instance publishes to or consumes.
#[derive(Debug, Clone)]
pub struct DestinationSettings {
    pub destination: Destination,
    pub connection: String,
    pub queue: String,
    /// Where a message goes that cannot be published, or whose attempts were used up by a crash.
    pub error_slot: SlotId,
    /// Who consumes it here, if anybody; else who sends to it.
    pub adapter: AdapterName,
    /// The longest wait between two attempts.
    pub longest_delay: Duration,
}

#[derive(Debug, Clone)]
pub struct RelaySettings {
    pub destinations: Vec<DestinationSettings>,
    /// How long an attempt may take before it is nobody's.
    pub watch: Duration,
    pub lease: Duration,
    pub host: String,
}

/// What became of a publish from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    Confirmed,
    /// The journal's row brings it there.
    Later,
}

pub(super) struct Inner {
    pub store: Store,
    pub brokers: BTreeMap<String, Broker>,
    pub settings: RelaySettings,
    pub clock: DatabaseClock,
    pub lifecycle: Lifecycle,
    /// Something came up sooner than the sweeper's next look.
    pub wake: Notify,
    /// What is known of each destination.
    pub board: Board,
    pub suspects: Suspects,
    pub(super) marks: mpsc::Sender<(Mark, Instant)>,
    /// Rows that wait for their mark, but for those that were processed here meanwhile.
    pub(super) unmarked: Unmarked,
    pub(super) notes: Arc<Semaphore>,
    /// The marking task outlives the others: what they publish at the end is still marked.
    marker: TaskTracker,
    closing: CancellationToken,
    routes: Mutex<BTreeMap<Destination, Route>>,
    room: Room,
    pub(super) running: Mutex<BTreeSet<TxId>>,
}

/// Publishes what is decided. Cheap to clone.
#[derive(Clone)]
pub struct Relay(pub(super) Arc<Inner>);

impl Relay {
    /// Starts the task that marks confirmed rows.
    #[must_use]
    pub fn start(store: Store, brokers: Vec<Broker>, settings: RelaySettings, lifecycle: &Lifecycle) -> Self {
        let (marks, waiting) = mpsc::channel(MARKS);
        let board = Board::of(settings.destinations.iter().map(|one| one.destination.clone()));
        board.begin();
        let unmarked = Unmarked::default();
        let brokers = brokers.into_iter().map(|broker| (broker.name().to_owned(), broker)).collect();
        let inner = Inner {
            store: store.clone(),
            brokers,
            settings,
            clock: DatabaseClock::default(),
            lifecycle: lifecycle.clone(),
            wake: Notify::new(),
            board,
            suspects: Suspects::default(),
            marks,
            unmarked: unmarked.clone(),
            notes: Arc::new(Semaphore::new(NOTES)),
            marker: TaskTracker::new(),
            closing: CancellationToken::new(),
            routes: Mutex::default(),
            room: Room::default(),
            running: Mutex::default(),
        };
        let (closing, hard) = (inner.closing.clone(), lifecycle.hard.clone());
        let marker = Marker { store, unmarked, closing, hard };
        inner.marker.spawn(marker.live(waiting, lifecycle.watch.clone()));
        inner.marker.close();
        Self(Arc::new(inner))
    }

    /// At the end of a stop: writes the last marks and says goodbye to the brokers.
    pub async fn close(&self) {
        self.0.closing.cancel();
        if tokio::time::timeout(CONFIRM_BOUND, self.0.marker.wait()).await.is_err() {
            tracing::debug!("the last marks were not written; a second publish does no harm");
        }
        join_all(self.0.brokers.values().map(Broker::close)).await;
    }

    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    #[must_use]
    pub fn clock(&self) -> &DatabaseClock {
        &self.0.clock
    }

    #[must_use]
    pub fn broker(&self, connection: &str) -> Option<&Broker> {
        self.0.brokers.get(connection)
    }

    /// What is in hand is given up: the end of a stop that took too long.
    #[must_use]
    pub fn cut_off(&self) -> &CancellationToken {
        &self.0.lifecycle.hard
    }

    /// Nothing new is begun any more.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.0.lifecycle.soft
    }

    /// Tasks that a stop waits for.
    #[must_use]
    pub fn tasks(&self) -> &tokio_util::task::TaskTracker {
        &self.0.lifecycle.tasks
    }

    #[must_use]
    pub fn settings(&self) -> &RelaySettings {
        &self.0.settings
    }

    #[must_use]
    pub fn destination(&self, destination: &Destination) -> Option<&DestinationSettings> {
        self.0.settings.destinations.iter().find(|one| one.destination == *destination)
    }

    /// Publishes a committed row's message, when there is room for it, and waits for the broker's word; the row is marked about
    /// a second later. Must run in a task that no client can cancel.
    pub async fn publish(&self, message: Claimed) -> Published {
        let room = self.0.room.take(message.envelope.body.len()).await;
        self.publish_in(message, &room).await
    }

    /// The same of a message that has its room already.
    pub async fn publish_in(&self, message: Claimed, room: &Occupied) -> Published {
        let mut published = Published::Later;
        let failed = self.try_all(vec![message], room, |some| some.iter().for_each(|(_, one)| published = *one)).await;
        self.note(&failed).await;
        published
    }

    /// The same for many, each for itself: one that waits for room does not keep the others from going.
    /// They are in this room.
    pub(super) async fn publish_each(&self, messages: Vec<Claimed>, room: &Occupied) {
        let each = messages.into_iter().map(|message| self.try_all(vec![message], room, |_| ()));
        self.note(&join_all(each).await.concat()).await;
    }

    /// The same for many, together. `tell`: what became of a message, by its place, as soon as it is known; what it is not told
    /// of when this ends is published later. That some could not be published is noted afterwards, in a task: the others do
    /// not wait for it.
    pub async fn publish_all(&self, messages: Vec<Claimed>, tell: impl FnMut(&[(usize, Published)])) {
        let failed = self.try_all(messages, &Occupied::default(), tell).await;
        self.note_later(failed);
    }

    async fn try_all(
        &self,
        messages: Vec<Claimed>,
        room: &Occupied,
        mut tell: impl FnMut(&[(usize, Published)]),
    ) -> Vec<Unconfirmed> {
        let (mut batches, mut failed): (BTreeMap<_, Batch<'_>>, Vec<_>) = (BTreeMap::new(), Vec::new());
        for (at, message) in messages.into_iter().enumerate() {
            if reach(Point::IN3).await.is_err() {
                continue;
            }
            let (tx_id, attempts, mode, publishes) =
                (message.envelope.tx_id, message.attempts, message.mode, message.publishes);
            let Some((broker, destination, mut out)) = self.out_message(message) else { continue };
            let large = out.envelope.body.len() > PAGE;
            out.room = room.clone().kept().filter(|_| large);
            let mark = Mark { tx_id, attempts, mode, published_at: out.published_at };
            let sent = Sent { at, mark, destination, publishes };
            let apart = match self.admit(destination, broker) {
                // What is so large must not stay in the library as long as an alarm lasts: it goes with its connection.
                Admission::All => self.0.suspects.has(tx_id) || large,
                Admission::Try => true,
                Admission::Wait => {
                    failed.push(Unconfirmed::held(sent));
                    continue;
                }
            };
            match reach(Point::IN8).await {
                Ok(()) => {
                    let batch = batches.entry((broker.name(), apart)).or_insert_with(|| Batch::of(broker, apart));
                    batch.push(sent, out);
                }
                Err(injected) => failed.push(Unconfirmed::of(sent, injected.into())),
            }
        }
        let (marked_until, mut no_room) = (Instant::now() + CONFIRM_BOUND, Vec::new());
        let mut answered = select_all(batches.into_values().map(|batch| Box::pin(batch.send())));
        while let Some(some) = answered.next().await {
            let became = |answer: &Result<_, _>| if answer.is_ok() { Published::Confirmed } else { Published::Later };
            tell(&some.iter().map(|(sent, answer)| (sent.at, became(answer))).collect::<Vec<_>>());
            self.hear(&some);
            let confirmed = some.iter().filter_map(|(sent, answer)| answer.is_ok().then_some(sent.mark));
            no_room.extend(self.mark_later(confirmed));
            failed.extend(some.into_iter().filter_map(|(sent, answer)| Some(Unconfirmed::of(sent, answer.err()?))));
        }
        self.mark_when_there_is_room(no_room, marked_until).await;
        failed
    }

    /// This process has committed a row's work: the row is DONE and needs no mark.
    pub fn processed(&self, tx_id: TxId) {
        lock(&self.0.unmarked).remove(&tx_id);
    }

    fn out_message(&self, message: Claimed) -> Option<(&Broker, &Destination, OutMessage)> {
        let destination = self.destination(&message.destination)?;
        let broker = self.0.brokers.get(&destination.connection)?;
        let home: Option<HomeId> = match message.mode {
            Mode::Own => Some(self.0.store.home()?),
            Mode::Handover => None,
            Mode::Direct => return None,
        };
        let published_at = self.0.clock.now()?;
        let queue = destination.queue.clone();
        let (attempts, redone) = (message.attempts, message.suspect);
        let out = OutMessage { queue, envelope: message.envelope, attempts, published_at, home, redone, room: None };
        Some((broker, &destination.destination, out))
    }

    /// As last counted.
    #[must_use]
    pub fn open(&self, destination: &Destination) -> OpenCounts {
        self.0.board.open(destination)
    }

    /// The sweeper has something to do before its next look.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// A started receiver takes messages that are processed in process.
    #[must_use]
    pub fn serve(&self, destination: &Destination) -> mpsc::Receiver<Direct> {
        let (route, directs) = Route::new();
        lock(&self.0.routes).insert(destination.clone(), route);
        self.0.wake.notify_one();
        directs
    }

    /// It has stopped.
    pub fn stop_serving(&self, destination: &Destination) {
        lock(&self.0.routes).remove(destination);
    }

    /// A new row's id, by the database's clock: what comes in the order of ids lies together on the disk.
    #[must_use]
    pub fn mint(&self) -> TxId {
        self.0.clock.now().map_or_else(TxId::mint, TxId::mint_at)
    }

    /// For large bodies, while they are processed or published.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.0.room
    }

    pub(super) fn route(&self, destination: &Destination) -> Option<Route> {
        lock(&self.0.routes).get(destination).cloned()
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
