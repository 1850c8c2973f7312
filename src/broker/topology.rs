//! Queues: looked at first, declared only when absent and allowed.
//!
//! An existing queue's arguments are the administrator's (protocol §8); they are never compared or changed.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

use super::connection::{CallError, Handle, bounded};
use super::endpoint::{CALL_BOUND, Endpoint, ServerVersion};
use super::wire::queue_name;

/// From here on -1 means "no limit"; 3.10.8 takes it and then destroys every message at its first requeue (protocol §8).
const UNLIMITED_DELIVERIES_SINCE: ServerVersion = ServerVersion(4, 0, 0);

/// A queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It does not exist and may not be made here; an administrator must make it.
    #[error("queue {queue} does not exist on {connection}; make it there, or set createDestination: true")]
    Missing { queue: String, connection: String },
    /// It is absent, and how to declare it depends on a version that the broker does not tell: a wrong limit destroys
    /// messages.
    #[error("queue {queue} on {connection} is not declared: the broker does not tell its version")]
    UnknownVersion { queue: String, connection: String },
    /// Refused, or no answer: worth another try after a pause.
    #[error("queue {queue} on {connection} cannot be used")]
    Call {
        queue: String,
        connection: String,
        #[source]
        source: CallError,
    },
}

impl TopologyError {
    /// Whether the broker has said no.
    #[must_use]
    pub fn by_broker(&self) -> bool {
        match self {
            Self::Missing { .. } => true,
            Self::UnknownVersion { .. } => false,
            Self::Call { source, .. } => source.by_broker(),
        }
    }
}

/// A queue as a passive declare shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// Messages ready for delivery; those out at consumers are not counted.
    pub ready: u32,
    pub consumers: u32,
}

/// What making sure of a queue found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    Existed,
    Declared,
}

/// Makes sure that a queue is there. Safe to repeat, and from several instances at once.
pub(super) async fn ensure(
    handle: &Handle,
    endpoint: &Endpoint,
    queue: &str,
    create: bool,
) -> Result<Ensured, TopologyError> {
    match look(handle, endpoint, queue).await {
        Ok(_) => return Ok(Ensured::Existed),
        Err(TopologyError::Missing { .. }) if create => {}
        Err(error) => return Err(error),
    }
    let Some(version) = endpoint.server_version().await else {
        return Err(TopologyError::UnknownVersion { queue: queue.to_owned(), connection: endpoint.name.clone() });
    };
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    match declare(handle, queue, options, arguments(version)).await {
        Ok(_) => Ok(Ensured::Declared),
        // Somebody else may have made it in another way meanwhile: then it is his.
        Err(_) => look(handle, endpoint, queue).await.map(|_| Ensured::Existed),
    }
}

/// How many messages and consumers a queue has.
pub(super) async fn look(handle: &Handle, endpoint: &Endpoint, queue: &str) -> Result<QueueState, TopologyError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    declare(handle, queue, options, FieldTable::default()).await.map_err(|error| {
        let (queue, connection) = (queue.to_owned(), endpoint.name.clone());
        match error {
            CallError::NoQueue(_) => TopologyError::Missing { queue, connection },
            source => TopologyError::Call { queue, connection, source },
        }
    })
}

fn arguments(version: ServerVersion) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    if version >= UNLIMITED_DELIVERIES_SINCE {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(-1));
    }
    arguments
}

/// One declare on a channel of its own: a refusal closes the channel.
async fn declare(
    handle: &Handle,
    queue: &str,
    options: QueueDeclareOptions,
    arguments: FieldTable,
) -> Result<QueueState, CallError> {
    let name = queue_name(queue)?;
    let channel = handle.channel().await?;
    let declared = bounded("queue.declare", channel.queue_declare(name, options, arguments)).await;
    match declared {
        Ok(queue) => {
            let close = channel.close(200, "done".into());
            if tokio::time::timeout(CALL_BOUND, close).await.is_err() {
                handle.give_up("closing a channel timed out");
            }
            Ok(QueueState { ready: queue.message_count(), consumers: queue.consumer_count() })
        }
        Err(error) => {
            if let CallError::TimedOut(_) = error {
                let _lives = handle.doubt(&channel, "declaring a queue timed out").await;
            }
            Err(error.about(queue))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlimited_delivery_limit_goes_only_to_brokers_that_understand_it() {
        for (version, limit) in [
            (ServerVersion(3, 10, 8), None),
            (ServerVersion(3, 13, 7), None),
            (ServerVersion(4, 0, 0), Some(&AMQPValue::LongInt(-1))),
            (ServerVersion(4, 2, 1), Some(&AMQPValue::LongInt(-1))),
        ] {
            let arguments = arguments(version);
            assert_eq!(arguments.inner().get("x-delivery-limit"), limit, "{version}");
            assert_eq!(
                arguments.inner().get("x-queue-type"),
                Some(&AMQPValue::LongString("quorum".into())),
                "{version}"
            );
        }
    }
}
