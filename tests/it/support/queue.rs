//! Questions and requests to the broker about a queue, each over a connection of its own, answered or failed in time.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::time::timeout;

/// A session was once left without any answer by a broker that answered everybody else, and 6,000 others were not: whoever
/// waits asks again, in a session of its own.
const QUESTION: Duration = Duration::from_secs(3);
const ACT: Duration = Duration::from_secs(10);

/// Ready messages of an existing queue. Deliveries that a consumer holds are not among them.
pub async fn depth(url: &str, queue: &str) -> Result<u64, String> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declare = async |channel: Channel| channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
    Ok(at_broker(url, QUESTION, declare).await?.message_count().into())
}

/// Deletes a queue with all that is in it, used or not.
pub async fn delete(url: &str, queue: &str) -> Result<u32, String> {
    at_broker(url, ACT, async |channel| channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await).await
}

/// Throws away the ready messages of an existing queue, and answers how many.
pub async fn purge(url: &str, queue: &str) -> Result<u32, String> {
    at_broker(url, ACT, async |channel| channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await).await
}

/// Whether an exchange exists.
pub async fn exchange_is_there(url: &str, name: &str) -> bool {
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let look = async |channel: Channel| {
        channel.exchange_declare(name.into(), ExchangeKind::Fanout, passive, FieldTable::default()).await
    };
    at_broker(url, QUESTION, look).await.is_ok()
}

/// Deletes an exchange, if it exists.
pub async fn forget_exchange(url: &str, name: &str) {
    let forget = async |channel: Channel| channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await;
    at_broker(url, ACT, forget).await.unwrap();
}

async fn at_broker<T>(
    url: &str,
    bound: Duration,
    act: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
) -> Result<T, String> {
    let session = async {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let done = act(connection.create_channel().await?).await;
        let _closed = connection.close(200, "done".into()).await;
        done
    };
    let answered = timeout(bound, session).await.map_err(|_| "no answer from the broker".to_owned())?;
    answered.map_err(|error| error.to_string())
}
