//! What the broker needs to know; checked by `config`.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;

/// One entry under `amqp:` in resources.yml.
#[derive(Clone)]
pub struct AmqpSettings {
    pub name: String,
    /// As written, possibly with user and password: never printed.
    pub url: SecretString,
    /// Wins over the url's user; never parsed as url text.
    pub username: Option<String>,
    /// Wins over the url's password; never parsed as url text.
    pub password: Option<SecretString>,
    /// Where the management plugin listens, for `posthaste doctor`. Possibly with user and password: never printed.
    pub management_url: Option<SecretString>,
    /// Whether a missing queue is declared. Default false.
    pub create_destination: bool,
    pub queues: Vec<QueueSettings>,
}

impl fmt::Debug for AmqpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpSettings")
            .field("name", &self.name)
            .field("create_destination", &self.create_destination)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

/// One entry under `amqp[].queues`: the administrator's word on a queue.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    pub name: String,
    /// Waits between attempts; the last repeats. Empty: the adapter's `retryScheme`, else the default.
    pub retry_delays: Vec<Duration>,
}
