//! RabbitMQ: publishing with confirms, consuming with explicit settlement, queues. The only module that names its client.
//!
//! What is here: two supervised connections per `amqp` entry, one to publish and one to consume; a publisher that tells
//! apart "not sent", "returned", "refused", "confirmed" and "not known"; consumer sessions whose tokens die with their
//! channel; queues looked at before they are declared.
//!
//! What is deliberately not here: the client's automatic recovery (it loses in-flight confirms), TLS, retries of a
//! publish or an attempt (the journal's rows are redone, protocol §4), and any broker-side transaction (protocol §1).
//!
//! The client logs returned messages with their bodies: whoever filters the logs keeps `lapin` off.

mod ack;
mod admission;
mod advance;
mod apart;
mod aside;
mod connection;
mod consumer;
mod end;
mod endpoint;
mod exchanges;
mod frame_watch;
mod frames;
mod guard;
mod lane;
mod link;
mod management;
mod management_answers;
mod nested;
mod outcome;
mod publisher;
mod publishing;
mod settings;
mod stream;
mod tags;
mod topology;
mod unreadable;
mod way;
mod wire;
mod witness;

use std::time::Duration;

pub use ack::{AckError, AckToken, Delivery};
pub use aside::{Aside, AsideError, SetAside};
pub use connection::{CallError, Cause};
pub use consumer::{ConsumerSession, SessionEnd};
pub use end::{About, End, Scope};
pub use endpoint::{EndpointError, ServerVersion};
pub use guard::{Known, Newer};
pub use link::LinkStatus;
pub use management::{Management, ManagementError};
pub use management_answers::{ConsumerFacts, NodeFacts, QueueFacts, Ruled};
pub use outcome::{Confirmed, Doubt, NotSent, PublishError};
pub use publisher::{Publisher, PublisherSettings};
pub use publishing::{Publishing, Word};
pub use settings::{AmqpSettings, QueueSettings};
pub use tags::Held;
pub use topology::{Ensured, QueueState, TopologyError};
pub use unreadable::Unreadable;
pub use wire::{Incoming, MAX_HEADER_BYTES, MAX_HEADERS, OutMessage, Source, WireError, fits};

use crate::lifecycle::Lifecycle;
use crate::model::{Epoch, HomeId};
use apart::Apart;
use connection::Purpose;
use consumer::Terms;
use endpoint::Endpoint;
use guard::{Guard, GuardView};
use link::{Ground, Link, LinkWatch, supervise};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Longest wait for the connections to close: each takes its leave within two seconds.
const CLOSE_BOUND: Duration = Duration::from_secs(4);

/// One `amqp` entry of resources.yml at work. Clones share it.
#[derive(Clone)]
pub struct Broker {
    endpoint: Endpoint,
    create_destination: bool,
    publish: LinkWatch,
    consume: LinkWatch,
    publisher: Publisher,
    apart: Apart,
    ground: Ground,
    /// What its connections are compared with, and what came of it.
    known: watch::Sender<Option<Known>>,
    guards: Vec<GuardView>,
}

impl Broker {
    /// Begins to connect and answers at once; the connections come, go and come back on their own, until
    /// [`close`](Self::close) or the hard stop. A graceful stop does not wait for them.
    /// Must be called inside a tokio runtime.
    pub fn start(
        settings: &AmqpSettings,
        publisher: PublisherSettings,
        lifecycle: &Lifecycle,
    ) -> Result<Self, EndpointError> {
        Self::begin(settings, publisher, lifecycle, false)
    }

    /// The same for an instance: nothing goes over a connection before the broker was compared with what [`tell`](Self::tell)
    /// says of the home.
    pub fn guarded(
        settings: &AmqpSettings,
        publisher: PublisherSettings,
        lifecycle: &Lifecycle,
    ) -> Result<Self, EndpointError> {
        Self::begin(settings, publisher, lifecycle, true)
    }

    fn begin(
        settings: &AmqpSettings,
        publisher: PublisherSettings,
        lifecycle: &Lifecycle,
        guarded: bool,
    ) -> Result<Self, EndpointError> {
        let endpoint = Endpoint::new(settings)?;
        let (hard, tasks) = (lifecycle.hard.clone(), TaskTracker::new());
        let ground = Ground { tasks, hard, watch: lifecycle.watch.clone() };
        let known = watch::Sender::new(None);
        let mut guards = Vec::new();
        let mut guard = || {
            let guard = guarded.then(|| Guard::new(&endpoint.name, known.subscribe()));
            guards.extend(guard.as_ref().map(Guard::view));
            guard
        };
        let publish = supervise(endpoint.clone(), Purpose::Publish, guard(), &ground);
        let consume = supervise(endpoint.clone(), Purpose::Consume, guard(), &ground);
        let publisher = Publisher::start(endpoint.clone(), publish.clone(), publisher, &ground);
        ground.tasks.close();
        let create_destination = settings.create_destination;
        let apart = Apart::default();
        Ok(Self { endpoint, create_destination, publish, consume, publisher, apart, ground, known, guards })
    }

    /// The entry's name in resources.yml.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.endpoint.name
    }

    /// Host, port and virtual host, for people: no user, no password.
    #[must_use]
    pub fn address(&self) -> String {
        self.endpoint.to_string()
    }

    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    #[must_use]
    pub fn publish_status(&self) -> LinkStatus {
        self.publish.status()
    }

    /// How often the publishing connection has come up, or has been unblocked.
    #[must_use]
    pub fn publish_ups(&self) -> u64 {
        self.publish.ups()
    }

    #[must_use]
    pub fn consume_status(&self) -> LinkStatus {
        self.consume.status()
    }

    /// Waits, at most `bound`, until both connections are up.
    pub async fn connected(&self, bound: Duration) -> bool {
        let (mut publish, mut consume) = (self.publish.clone(), self.consume.clone());
        let both = async { publish.until(Link::is_up).await && consume.until(Link::is_up).await };
        tokio::time::timeout(bound, both).await.unwrap_or(false)
    }

    /// Waits, at most `bound`, until there is a connection to consume over; an alarm does not matter to it.
    pub async fn can_consume(&self, bound: Duration) -> bool {
        tokio::time::timeout(bound, self.consume.clone().until(Link::is_up)).await.unwrap_or(false)
    }

    /// What the home's database says now.
    pub fn tell(&self, known: Known) {
        self.known.send_replace(Some(known));
    }

    /// What it was shown of the home that the home's database does not hold.
    #[must_use]
    pub fn newer(&self) -> Option<Newer> {
        self.guards.iter().find_map(GuardView::newer)
    }

    /// Whether it was compared with the home since the start.
    #[must_use]
    pub fn has_compared(&self) -> bool {
        self.guards.iter().all(GuardView::has_compared)
    }

    /// The newest epoch of a home that it was shown; `number` when there is none that is newer.
    pub async fn newest_epoch(&self, home: HomeId, number: u64) -> Result<u64, CallError> {
        exchanges::newest(&self.consume.handle()?, home, number).await
    }

    /// Shows an epoch from which on what `before` has shown is old. `false`: the user has no right to that.
    pub async fn show_epoch(&self, epoch: Epoch, before: u64) -> Result<bool, CallError> {
        let handle = self.consume.handle()?;
        let shown = exchanges::show(&handle, epoch, None).await? == exchanges::Shown::Done;
        if shown && before < epoch.number {
            exchanges::take_away(&handle, epoch.home, before, epoch.number).await?;
        }
        Ok(shown)
    }

    /// Whether it shows exactly this epoch.
    pub async fn shows_epoch(&self, home: HomeId, number: u64) -> Result<bool, CallError> {
        exchanges::shows(&self.consume.handle()?, home, number).await
    }

    /// Whether the user may show epochs of a home. Changes nothing.
    pub async fn may_show_epochs(&self, home: HomeId) -> Result<bool, CallError> {
        exchanges::allowed(&self.consume.handle()?, home).await
    }

    /// The broker's version, from its greeting; `None` when it does not answer or tell.
    pub async fn server_version(&self) -> Option<ServerVersion> {
        self.endpoint.server_version().await
    }

    /// Makes sure that a queue is there: looks first, declares a durable quorum queue only when it is absent and
    /// `createDestination` allows it. Safe to repeat.
    pub async fn ensure_queue(&self, queue: &str) -> Result<Ensured, TopologyError> {
        let handle = self.asking(queue)?;
        topology::ensure(&handle, &self.endpoint, queue, self.create_destination).await
    }

    /// A queue's ready messages and consumers, by a passive declare.
    pub async fn queue_state(&self, queue: &str) -> Result<QueueState, TopologyError> {
        let handle = self.asking(queue)?;
        topology::look(&handle, &self.endpoint, queue).await
    }

    /// Starts to consume a queue. Deliveries that carry `home` are own, all others foreign.
    pub async fn consume(&self, queue: &str, prefetch: u16, home: HomeId) -> Result<ConsumerSession, CallError> {
        let own_connection = self.apart.is_set();
        let handle = if own_connection {
            connection::connect(&self.endpoint, Purpose::Consume).await?
        } else {
            self.consume.handle()?
        };
        let terms = Terms { handle, own_connection, apart: self.apart.clone(), home };
        consumer::consume(terms, queue, prefetch).await
    }

    /// Looks for messages in a queue that no consumer of ours can read, among the first `most`, over a connection of its own.
    pub async fn look_for_unreadable(&self, queue: &str, most: usize) -> Result<Aside, AsideError> {
        Aside::open(&self.endpoint, queue, most).await
    }

    /// Stops for good: takes no more publishes, finishes those that wait, closes both connections. Sessions should be
    /// closed before. Takes some seconds at most.
    pub async fn close(&self) {
        self.publisher.close().await;
        self.publish.close();
        self.consume.close();
        if tokio::time::timeout(CLOSE_BOUND, self.ground.tasks.wait()).await.is_err() {
            tracing::warn!(amqp.connection = %self.endpoint.name, "the connections were not closed in time");
        }
    }

    /// Whether nothing of it runs any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ground.tasks.is_empty()
    }

    /// Questions go over the consuming connection: an alarm never blocks it.
    fn asking(&self, queue: &str) -> Result<connection::Handle, TopologyError> {
        self.consume.handle().map_err(|source| TopologyError::Call {
            queue: queue.to_owned(),
            connection: self.endpoint.name.clone(),
            source,
        })
    }
}
