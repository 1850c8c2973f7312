//! Receivers that dequeue; checked by `config`.

use std::time::Duration;

use crate::model::{AdapterName, Destination, SlotId, TransactionAttribute};

/// One receiver with an `amqp` listener.
#[derive(Debug, Clone)]
pub struct ReceiverSettings {
    pub adapter: AdapterName,
    pub connection: String,
    pub queue: String,
    pub destination: Destination,
    pub transaction_attribute: TransactionAttribute,
    pub transaction_timeout: Duration,
    /// Attempts after the first. Default 3.
    pub max_retries: u32,
    /// Waits between attempts; the last repeats; never empty. The queue's `retryDelays`, else the adapter's
    /// `retryScheme`, else 1 s, 5 s, 30 s.
    pub retry_delays: Vec<Duration>,
    /// Whether data errors (SQLSTATE 22, 23, a payload that is not UTF-8) are retried. Default true.
    pub retry_permanent_errors: bool,
    /// Transactions at once. Default 8.
    pub num_threads: usize,
    /// The most messages in one transaction; 1: each has its own. Default 96.
    pub group_size: usize,
    /// The `postgres` entries that its steps reach, those of called adapters included.
    pub databases: Vec<String>,
    /// Where exhausted and parked messages go. Default: a slot named after the adapter.
    pub error_slot: SlotId,
}

impl ReceiverSettings {
    /// `maxRetries` + 1 (I7).
    #[must_use]
    pub fn max_attempts(&self) -> i32 {
        i32::try_from(self.max_retries).unwrap_or(i32::MAX - 1).saturating_add(1)
    }

    /// Deliveries in hand when bodies are small: what is at work, and as much that waits: it forms the next groups.
    #[must_use]
    pub fn prefetch(&self) -> usize {
        let at_once = if self.may_group() { self.num_threads.max(self.group_size) } else { self.num_threads };
        at_once * 2
    }

    /// Whether messages may share transactions.
    #[must_use]
    pub const fn may_group(&self) -> bool {
        self.group_size > 1
    }

    /// The wait after attempt `n` failed, counted from 1.
    #[must_use]
    pub fn delay_after(&self, n: i32) -> Duration {
        let index = usize::try_from(n - 1).unwrap_or(0);
        self.retry_delays.get(index).or(self.retry_delays.last()).copied().unwrap_or(Duration::from_secs(1))
    }
}
