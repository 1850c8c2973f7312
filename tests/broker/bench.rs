//! What the tests of the broker share: settings, messages, a queue that goes away again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use posthaste::broker::{
    AmqpSettings, Broker, ConsumerSession, Delivery, OutMessage, PublishError, Publisher, PublisherSettings, SessionEnd,
};
use posthaste::lifecycle::Lifecycle;
use posthaste::model::{Envelope, Headers, HomeId, MessageId, RootId, TxId};
use uuid::Uuid;

pub const SHARED: &str = "127.0.0.1:5672";
pub const BOUND: Duration = Duration::from_secs(10);
pub const HOME: HomeId = HomeId(Uuid::from_u128(0x70_6f73_7468_6173_7465));

pub fn settings(address: &str) -> AmqpSettings {
    AmqpSettings {
        name: "rabbit".to_owned(),
        url: format!("amqp://guest:guest@{address}/%2f").into(),
        username: None,
        password: None,
        management_url: None,
        create_destination: true,
        queues: Vec::new(),
    }
}

pub fn start(settings: &AmqpSettings) -> (Broker, Lifecycle) {
    let lifecycle = Lifecycle::default();
    let broker = Broker::start(settings, PublisherSettings::default(), &lifecycle).unwrap();
    (broker, lifecycle)
}

/// A broker that is connected.
pub async fn connected(address: &str) -> (Broker, Lifecycle) {
    let (broker, lifecycle) = start(&settings(address));
    assert!(broker.connected(BOUND).await, "{:?}", broker.publish_status());
    (broker, lifecycle)
}

pub async fn through(relay: SocketAddr) -> (Broker, Lifecycle) {
    connected(&relay.to_string()).await
}

/// A broker that publishes over a single channel, which the first publish opens.
pub async fn one_lane(settings: &AmqpSettings) -> (Broker, Lifecycle) {
    one_lane_with(settings, PublisherSettings::default().bytes).await
}

/// The same with room for so many bytes.
pub async fn one_lane_with(settings: &AmqpSettings, bytes: usize) -> (Broker, Lifecycle) {
    publishing(settings, PublisherSettings { lanes: 1, bytes, ..PublisherSettings::default() }).await
}

/// A broker that is connected and publishes in its own way.
pub async fn publishing(settings: &AmqpSettings, publisher: PublisherSettings) -> (Broker, Lifecycle) {
    let lifecycle = Lifecycle::default();
    let broker = Broker::start(settings, publisher, &lifecycle).unwrap();
    assert!(broker.connected(BOUND).await, "{:?}", broker.publish_status());
    (broker, lifecycle)
}

/// Closes and checks that nothing is left running.
pub async fn stop((broker, lifecycle): (Broker, Lifecycle)) {
    assert!(lifecycle.tasks.is_empty(), "a graceful stop would wait for the connections");
    broker.close().await;
    assert!(broker.has_ended(), "something of the broker is still running");
}

pub fn message(queue: &str) -> OutMessage {
    let tx_id = TxId::mint();
    OutMessage {
        queue: queue.to_owned(),
        envelope: Envelope {
            tx_id,
            root_id: RootId::from(tx_id),
            message_id: MessageId::parse("1000").unwrap(),
            correlation_id: MessageId::parse("correlated").unwrap(),
            content_type: Some("text/plain; charset=UTF-8".to_owned()),
            headers: Headers::from([("tenant".to_owned(), "blue".to_owned())]),
            body: Bytes::from_static("My first message \u{2603}".as_bytes()),
        },
        attempts: 2,
        published_at: 1_764_000_000_123_456,
        home: Some(HOME),
        redone: false,
        room: None,
    }
}

/// An independent connection, and a queue's name that nobody else uses; the queue is deleted at the end.
pub struct Queue {
    pub name: String,
    pub channel: lapin::Channel,
    connection: lapin::Connection,
}

impl Queue {
    pub async fn named(address: &str) -> Self {
        let uri = format!("amqp://guest:guest@{address}/%2f");
        let connection = lapin::Connection::connect(&uri, lapin::ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        Self { name: format!("posthaste-test-{}", Uuid::now_v7()), channel, connection }
    }

    pub async fn declared(address: &str, kind: &str) -> Self {
        let queue = Self::named(address).await;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        queue.channel.queue_declare(queue.name.as_str().into(), options, arguments).await.unwrap();
        queue
    }

    pub async fn delete(&self) {
        self.channel.queue_delete(self.name.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    }

    pub async fn gone(self) {
        self.delete().await;
        self.connection.close(200, "done".into()).await.unwrap();
    }
}

pub async fn next(session: &mut ConsumerSession) -> Result<Delivery, SessionEnd> {
    tokio::time::timeout(BOUND, session.next()).await.unwrap()
}

/// Polls until it holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < BOUND, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Publishes from 32 callers until each meets an error, and does harm once 200 messages are confirmed; answers how many
/// were confirmed in all. Nothing may be refused by a broker that is merely gone.
pub async fn publish_until(publisher: &Publisher, queue: &str, harm: impl AsyncFnOnce()) -> u32 {
    let confirmed = AtomicU32::new(0);
    let callers = join_all((0..32).map(|_| async {
        loop {
            match publisher.publish(message(queue), BOUND).await {
                Ok(_) => confirmed.fetch_add(1, Ordering::Relaxed),
                Err(PublishError::Unknown(_) | PublishError::NotSent(_)) => return,
                Err(error) => panic!("{error}"),
            };
        }
    }));
    let harmed = async {
        until("200 are confirmed", async || confirmed.load(Ordering::Relaxed) >= 200).await;
        harm().await;
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(callers, harmed) }).await;
    assert!(ended.is_ok(), "the harm did not end the publishing");
    confirmed.into_inner()
}
