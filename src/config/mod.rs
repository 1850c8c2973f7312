//! The user's files, read into trees with positions and checked into settings, all mistakes at once.
//!
//! `tree` reads YAML, `substitute` replaces `${…}`, `resources`, `adapters` and `listeners` take the keys, `check`
//! compares everything with everything, `settings` builds what the other modules see.

mod adapters;
mod bare;
mod check;
mod demand;
mod diagnostic;
mod fingerprint;
mod folders;
mod keys;
mod listeners;
mod reach;
mod redact;
mod resources;
mod section;
mod settings;
mod snippet;
mod sql;
mod substitute;
mod tree;
mod urls;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::broker::AmqpSettings;
use crate::console::ConsoleSettings;
use crate::inbound::{ApiSettings, InboundSettings};
use crate::pipeline::AdapterSettings;
use crate::receiver::ReceiverSettings;
use crate::store::PostgresSettings;

pub use diagnostic::{ConfigError, Diagnostic};
pub use keys::{SHAPES, Shape};
pub use substitute::Environment;
pub use urls::asks_for_tls;

/// Reads and checks `resources.yml` and every `configurations/<name>/adapters.yml`, starting nothing.
///
/// # Errors
/// Every mistake of every file at once.
pub fn load(resources: &Path, configurations: &Path, env: Environment<'_>) -> Result<Settings, ConfigError> {
    let mut cx = section::Context::new(env);
    let resources_path = resources;
    let resources = resources::read(resources_path, &mut cx);
    let folders = folders::read_all(configurations, &mut cx);
    check::all(resources.as_ref(), &folders, &mut cx.report);
    cx.report.into_result()?;
    let from_files = cx.from_files;
    resources
        .and_then(|resources| settings::build(resources, folders, from_files))
        .ok_or_else(|| unnoticed(resources_path))
}

/// Every value that is missing was reported; should one not have been, nothing is started either.
fn unnoticed(resources: &Path) -> ConfigError {
    ConfigError {
        diagnostics: vec![Diagnostic {
            file: resources.to_owned(),
            line: None,
            column: None,
            message: "a value is missing, and it was not noticed which".to_owned(),
            help: Some("this is a mistake in Posthaste: please report it with the files".to_owned()),
            snippet: None,
        }],
    }
}

/// Where a running instance is found: its API and its console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub api: std::net::SocketAddr,
    pub console: std::net::SocketAddr,
}

/// Reads `http` of `resources.yml` and nothing else: whatever is wrong elsewhere, or set in the instance's environment
/// only, does not keep a command from finding it.
///
/// # Errors
/// Every mistake under `http`, or a file that cannot be read.
pub fn addresses(resources: &Path, env: Environment<'_>) -> Result<Addresses, ConfigError> {
    let mut cx = section::Context::new(env);
    let found = resources::read_addresses(resources, &mut cx);
    cx.report.into_result()?;
    found.ok_or_else(|| unnoticed(resources))
}

/// A variable of this process's environment; one that is not UTF-8 counts as not set.
#[must_use]
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Everything that `resources.yml` and all `configurations/*/adapters.yml` say, checked.
#[derive(Clone)]
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
    /// SHA-256 of what the adapters do, without secrets: instances that differ can be told apart.
    pub hash: String,
    /// Values with a part from a `${file:…}`: `Debug` covers them wherever they went.
    pub from_files: Vec<SecretString>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            instance,
            postgres,
            amqp,
            api,
            console,
            adapters,
            inbound,
            receivers,
            configurations,
            hash,
            from_files,
        } = self;
        let mut text = format!(
            "Settings {{ instance: {instance:?}, postgres: {postgres:?}, amqp: {amqp:?}, api: {api:?}, \
             console: {console:?}, adapters: {adapters:?}, inbound: {inbound:?}, receivers: {receivers:?}, \
             configurations: {configurations:?}, hash: {hash:?} }}"
        );
        for secret in from_files.iter().map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty()) {
            let written = format!("{secret:?}");
            text = text.replace(written.trim_matches('"'), snippet::MASK);
        }
        f.write_str(&text)
    }
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

impl Settings {
    /// The postgres entry that holds Posthaste's own tables.
    #[must_use]
    pub fn home(&self) -> Option<&PostgresSettings> {
        self.postgres.iter().find(|postgres| postgres.name == self.instance.home)
    }
}
