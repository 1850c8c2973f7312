//! The broker as any other client sees it.

use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};

use super::{SOON, eventually};

pub struct Amqp {
    /// The channel ends with it.
    _connection: Connection,
    channel: Channel,
}

/// A message as it lay in a queue.
#[derive(Debug)]
pub struct Taken {
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

impl Amqp {
    pub async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { _connection: connection, channel }
    }

    /// Publishes to a queue, and returns when the broker has it.
    pub async fn publish(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = self.channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap();
        let confirmed = tokio::time::timeout(SOON, confirm).await.expect("a confirm in time").unwrap();
        assert!(matches!(confirmed, Confirmation::Ack(None)), "{queue}: {confirmed:?}");
    }

    /// A durable queue.
    pub async fn declare(&self, queue: &str) {
        self.declare_with(queue, FieldTable::default()).await;
    }

    /// The same with arguments.
    pub async fn declare_with(&self, queue: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, arguments).await.unwrap();
    }

    /// Reads from a queue, and settles nothing, until the consumer goes.
    pub async fn consume(&self, queue: &str) -> Consumer {
        let consumer =
            self.channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        consumer.await.unwrap()
    }

    /// The same, and lets nobody else read from it.
    pub async fn consume_alone(&self, queue: &str) -> Consumer {
        let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap()
    }

    pub async fn delete(&self, queue: &str) {
        self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    pub async fn purge(&self, queue: &str) {
        self.channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.unwrap();
    }

    /// Takes a message away, if one is there.
    pub async fn try_take(&self, queue: &str) -> Option<Taken> {
        let got = self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap();
        got.map(|message| Taken { properties: message.delivery.properties.clone(), body: message.delivery.data })
    }

    /// Takes the next message away.
    pub async fn take(&self, queue: &str) -> Taken {
        let probe = async || self.try_take(queue).await.ok_or_else(|| "an empty queue".to_owned());
        eventually(&format!("a message is in {queue}"), SOON, probe).await
    }

    /// Whether nothing comes within a moment.
    pub async fn stays_empty(&self, queue: &str) -> bool {
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.try_take(queue).await.is_none()
    }
}
