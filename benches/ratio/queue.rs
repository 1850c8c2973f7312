//! Whether anything is left in a queue.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};

/// Waits until no message is ready in the queue.
///
/// # Errors
/// Some are left after ten seconds.
pub async fn is_empty(amqp: &str, queue: &str) -> Result<()> {
    let connection = Connection::connect(amqp, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let asked = Instant::now();
    loop {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
        if found.message_count() == 0 {
            break;
        }
        if asked.elapsed() > Duration::from_secs(10) {
            bail!("{} messages are left in {queue}", found.message_count());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(connection.close(200, "done".into()).await?)
}
