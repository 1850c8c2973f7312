//! Before the first message: schema, registration, queues.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use super::databases::{self, Reached, Wait};
use super::settle::{self, HomeReport};
use super::{Parts, destinations};
use crate::broker::{Broker, Ensured, LinkStatus, PublisherSettings, TopologyError};
use crate::config::Settings;
use crate::lifecycle::Lifecycle;
use crate::relay::Fenced;
use crate::store::migrate::{
    ApplicationMigrations, Applied, MigrateError, migrate as migrate_database, plan as plan_database,
};
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

/// Waits until this incarnation's row is committed. A home that is down is waited for; another schema is not, and until
/// that is known nobody hears that it `goes_on`. Answers which databases were reached.
pub(super) async fn until_registered(
    parts: &Parts,
    mut goes_on: Option<oneshot::Sender<()>>,
) -> Result<Reached, RunError> {
    loop {
        let registered = register(parts).await;
        if let (Ok(_) | Err(Wait::Later(_)), Some(goes_on)) = (&registered, goes_on.take()) {
            // Nobody listens any more: nothing to tell.
            let _told = goes_on.send(()).is_ok();
        }
        match registered {
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

/// Brings every database up to date and declares the queues. With `plan`, says what it would do. What was done stands in
/// the report, also after an error.
///
/// Every database is looked at before one is changed: what is refused is told for all at once.
pub async fn migrate(
    settings: &Settings,
    plan: bool,
    home: Option<HomeDecision>,
    report: &mut MigrationReport,
) -> Result<(), RunError> {
    let mut troubles = Troubles::default();
    for postgres in &settings.postgres {
        match look_at(settings, postgres).await {
            Ok(would) if plan => report.migrations.extend(would),
            Ok(_to_be_applied) => {}
            Err(error) => troubles.add(error),
        }
    }
    if !plan {
        std::mem::take(&mut troubles).into_result()?;
        for postgres in &settings.postgres {
            let is_home = postgres.name == settings.instance.home;
            let applications = applications(settings, &postgres.name);
            let applied = migrate_database(postgres, is_home, &applications, &mut report.migrations).await;
            applied.map_err(|error| refusal(postgres, error))?;
            if let (true, Some(decision)) = (is_home, home) {
                let failed = |error| refusal(postgres, error);
                report.home = Some(settle::settle(settings, postgres, decision, &operator(), failed).await?);
            }
        }
    }
    declare_queues(settings, plan, &mut report.queues, &mut troubles).await;
    troubles.into_result()
}

/// What would be applied to one.
async fn look_at(settings: &Settings, postgres: &PostgresSettings) -> Result<Vec<Applied>, RunError> {
    refuse_pooler(postgres).await?;
    let is_home = postgres.name == settings.instance.home;
    let would = plan_database(postgres, is_home, &applications(settings, &postgres.name)).await;
    would.map_err(|error| refusal(postgres, error))
}

pub(super) fn refusal(postgres: &PostgresSettings, error: MigrateError) -> RunError {
    let text = format!("database {}: {}", postgres.name, error);
    match error {
        MigrateError::Unreachable(reason) => RunError::Unreachable(format!("database {}: {reason}", postgres.name)),
        MigrateError::Refused(_) | MigrateError::Failed { .. } => RunError::Schema(text),
    }
}

/// Errors of several servers, to be told at once.
#[derive(Debug, Default)]
pub(super) struct Troubles(Vec<RunError>);

impl Troubles {
    pub(super) fn add(&mut self, error: RunError) {
        self.0.push(error);
    }

    /// One error with all texts; of its kind is the first that no waiting would mend.
    pub(super) fn into_result(mut self) -> Result<(), RunError> {
        if self.0.len() < 2 {
            return self.0.pop().map_or(Ok(()), Err);
        }
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        let unreachable = self.0.iter().all(|error| matches!(error, RunError::Unreachable(_)));
        let text = texts.join("\n");
        Err(if unreachable { RunError::Unreachable(text) } else { RunError::Configuration(text) })
    }
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

async fn declare_queues(settings: &Settings, plan: bool, made: &mut Vec<String>, troubles: &mut Troubles) {
    let lifecycle = Lifecycle::default();
    for amqp in &settings.amqp {
        match Broker::start(amqp, PublisherSettings::default(), &lifecycle) {
            Ok(broker) => {
                declare_on(&broker, settings, amqp.create_destination && plan, made, troubles).await;
                broker.close().await;
            }
            Err(error) => troubles.add(RunError::Configuration(error.to_string())),
        }
    }
    lifecycle.stop(Duration::from_secs(2)).await;
}

/// Why there is no connection.
pub(super) fn why_not(status: LinkStatus) -> String {
    match status {
        LinkStatus::Down { reason, .. } => reason.to_string(),
        LinkStatus::Blocked { reason, .. } => format!("it takes no messages: {reason}"),
        LinkStatus::Up => "no answer in time".to_owned(),
    }
}

/// `only_look`: what is missing counts as made, and is not.
async fn declare_on(
    broker: &Broker,
    settings: &Settings,
    only_look: bool,
    made: &mut Vec<String>,
    troubles: &mut Troubles,
) {
    if !broker.connected(BROKER_BOUND).await {
        let why = why_not(broker.publish_status());
        troubles.add(RunError::Unreachable(format!("broker {} ({}): {why}", broker.name(), broker.address())));
        return;
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
            Err(error @ TopologyError::Missing { .. }) => troubles.add(RunError::Configuration(error.to_string())),
            Err(error @ (TopologyError::UnknownVersion { .. } | TopologyError::Call { .. })) => {
                troubles.add(RunError::Unreachable(error.to_string()));
            }
        }
    }
}
