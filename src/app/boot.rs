//! Before the first message: schema, registration, queues.

use std::time::Duration;

use serde::Serialize;

use super::databases::{self, Reached, Wait};
use super::settle::{self, HomeReport};
use super::{Parts, destinations};
use crate::broker::{Broker, Ensured, PublisherSettings, TopologyError};
use crate::config::Settings;
use crate::lifecycle::Lifecycle;
use crate::relay::Fenced;
use crate::store::migrate::{ApplicationMigrations, Applied, MigrateError, migrate as migrate_database};
use crate::store::{HomeCheck, HomeDecision, PostgresSettings, Registration, no_sessions};

/// Between two tries to reach the home database.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest wait of `migrate` for a broker.
pub(super) const BROKER_BOUND: Duration = Duration::from_secs(10);

/// Why an instance ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Configuration(String),
    #[error("{0}")]
    Schema(String),
    #[error(transparent)]
    Fenced(Fenced),
    #[error("{0}")]
    Unreachable(String),
    #[error("a fault of this program: {0}")]
    Panicked(String),
}

/// What `migrate` did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MigrationReport {
    pub migrations: Vec<Applied>,
    /// What became of a home that has moved, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<HomeReport>,
    /// Queues that were made, or would be.
    pub queues: Vec<String>,
}

/// Waits until this incarnation's row is committed. A home that is down is waited for; another schema is not. Answers
/// which databases were reached.
pub(super) async fn until_registered(parts: &Parts) -> Result<Reached, RunError> {
    loop {
        match register(parts).await {
            Ok(reached) => {
                parts.shared.set_trouble(None);
                return Ok(reached);
            }
            Err(Wait::Refuse(error)) => return Err(error),
            Err(Wait::Later(reason)) => {
                if parts.shared.trouble().as_ref() != Some(&reason) {
                    tracing::warn!(%reason, "not at work yet");
                }
                parts.shared.set_trouble(Some(reason));
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn register(parts: &Parts) -> Result<Reached, Wait> {
    let reached = databases::look(&parts.settings, &parts.store).await?;
    match parts.store.check_home().await? {
        HomeCheck::Same(_) => databases::admit(&parts.store, &reached).await,
        moved @ HomeCheck::Moved(_) => return Err(Wait::Later(moved.advice())),
    }
    let serves: Vec<String> =
        parts.settings.receivers.iter().map(|receiver| receiver.destination.to_string()).collect();
    let registration = Registration {
        name: &parts.settings.instance.name,
        host: &parts.host,
        pid: std::process::id(),
        configuration_hash: &parts.settings.hash,
        serves: &serves,
    };
    match parts.store.register(&registration).await? {
        HomeCheck::Same(_) => Ok(reached),
        moved @ HomeCheck::Moved(_) => Err(Wait::Later(moved.advice())),
    }
}

pub(super) fn applications<'a>(settings: &'a Settings, postgres: &str) -> Vec<ApplicationMigrations<'a>> {
    let of = |configuration: &'a crate::config::Configuration| {
        let files = configuration.migrations.get(postgres)?;
        Some(ApplicationMigrations { configuration: &configuration.name, files })
    };
    settings.configurations.iter().filter_map(of).collect()
}

/// Brings every database up to date and declares the queues. With `plan`, says what it would do.
///
/// # Errors
/// Databases before the one named in the error are done; running it again goes on.
pub async fn migrate(settings: &Settings, plan: bool, home: Option<HomeDecision>) -> Result<MigrationReport, RunError> {
    let mut report = MigrationReport::default();
    for postgres in &settings.postgres {
        let is_home = postgres.name == settings.instance.home;
        let applications = applications(settings, &postgres.name);
        refuse_pooler(postgres).await?;
        let applied = migrate_database(postgres, is_home, &applications, plan).await;
        let failed = |error| match error {
            MigrateError::Unreachable(reason) => RunError::Unreachable(format!("database {}: {reason}", postgres.name)),
            error @ (MigrateError::File { .. } | MigrateError::Failed { .. } | MigrateError::Name(_)) => {
                RunError::Schema(format!("database {}: {error}", postgres.name))
            }
        };
        report.migrations.extend(applied.map_err(failed)?);
        if let (true, false, Some(decision)) = (is_home, plan, home) {
            report.home = Some(settle::settle(settings, postgres, decision, &operator(), failed).await?);
        }
    }
    report.queues = declare_queues(settings, plan).await?;
    Ok(report)
}

/// Migrations hold a lock in their session.
async fn refuse_pooler(postgres: &PostgresSettings) -> Result<(), RunError> {
    let place = format!("postgres entry {} ({})", postgres.name, postgres.address());
    match no_sessions(postgres).await {
        Ok(None) => Ok(()),
        Ok(Some(reason)) => Err(RunError::Configuration(format!("{place}: {reason}"))),
        Err(error) => {
            Err(RunError::Unreachable(format!("database {}: {} ({error})", postgres.name, postgres.address())))
        }
    }
}

/// Who is at the command line, for the record.
fn operator() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok().flatten();
    user.map_or_else(|| "posthaste migrate".to_owned(), |user| format!("{} (posthaste migrate)", user.name))
}

async fn declare_queues(settings: &Settings, plan: bool) -> Result<Vec<String>, RunError> {
    let lifecycle = Lifecycle::default();
    let mut made = Vec::new();
    let mut result = Ok(());
    for amqp in &settings.amqp {
        let broker = Broker::start(amqp, PublisherSettings::default(), &lifecycle)
            .map_err(|error| RunError::Configuration(error.to_string()))?;
        result = declare_on(&broker, settings, amqp.create_destination && plan, &mut made).await;
        broker.close().await;
        if result.is_err() {
            break;
        }
    }
    lifecycle.stop(Duration::from_secs(2)).await;
    result.map(|()| made)
}

/// `only_look`: what is missing counts as made, and is not.
async fn declare_on(
    broker: &Broker,
    settings: &Settings,
    only_look: bool,
    made: &mut Vec<String>,
) -> Result<(), RunError> {
    if !broker.connected(BROKER_BOUND).await {
        let status = broker.publish_status();
        return Err(RunError::Unreachable(format!("broker {} ({}): {status:?}", broker.name(), broker.address())));
    }
    for destination in destinations::of(settings).iter().filter(|one| one.connection == broker.name()) {
        let found = if only_look {
            broker.queue_state(&destination.queue).await.map(|_state| Ensured::Existed)
        } else {
            broker.ensure_queue(&destination.queue).await
        };
        match found {
            Ok(Ensured::Existed) => {}
            Ok(Ensured::Declared) => made.push(destination.destination.to_string()),
            Err(TopologyError::Missing { .. }) if only_look => made.push(destination.destination.to_string()),
            Err(error @ TopologyError::Missing { .. }) => {
                return Err(RunError::Configuration(error.to_string()));
            }
            Err(error @ (TopologyError::UnknownVersion { .. } | TopologyError::Call { .. })) => {
                return Err(RunError::Unreachable(error.to_string()));
            }
        }
    }
    Ok(())
}
