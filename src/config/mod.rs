//! The user's files, read into trees with positions and checked into settings, all mistakes at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::broker::AmqpSettings;
use crate::console::ConsoleSettings;
use crate::inbound::{ApiSettings, InboundSettings};
use crate::pipeline::AdapterSettings;
use crate::receiver::ReceiverSettings;
use crate::store::PostgresSettings;

/// Everything that `resources.yml` and all `configurations/*/adapters.yml` say, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub instance: InstanceSettings,
    pub postgres: Vec<PostgresSettings>,
    pub amqp: Vec<AmqpSettings>,
    pub api: ApiSettings,
    pub console: ConsoleSettings,
    pub adapters: Vec<AdapterSettings>,
    pub inbound: Vec<InboundSettings>,
    pub receivers: Vec<ReceiverSettings>,
    pub configurations: Vec<Configuration>,
    /// SHA-256 of what the adapters say, without secrets: instances that differ can be told apart.
    pub hash: String,
}

#[derive(Debug, Clone)]
pub struct InstanceSettings {
    /// Default `posthaste`.
    pub name: String,
    /// The postgres entry that holds Posthaste's own tables.
    pub home: String,
    /// Without a sign of life for so long an instance counts as dead. Default 5 s.
    pub lease: Duration,
    /// How long a stop waits for what is in hand. Default 20 s.
    pub stop_timeout: Duration,
}

/// One folder under `configurations/`.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub name: String,
    /// Application migrations: per postgres entry the files `V<n>__<what>.sql`, in order.
    pub migrations: BTreeMap<String, Vec<PathBuf>>,
}
