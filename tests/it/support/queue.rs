//! Asking the broker about a queue.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;

/// Ready messages of an existing queue. Deliveries that a consumer holds are not among them.
pub async fn depth(url: &str, queue: &str) -> Result<u64, String> {
    timeout(Duration::from_secs(10), ask(url, queue)).await.map_err(|_| "no answer from the broker".to_owned())?
}

async fn ask(url: &str, queue: &str) -> Result<u64, String> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.map_err(|e| e.to_string())?;
    let channel = connection.create_channel().await.map_err(|e| e.to_string())?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.map_err(|e| e.to_string());
    let _closed = connection.close(200, "asked".into()).await;
    Ok(found?.message_count().into())
}
