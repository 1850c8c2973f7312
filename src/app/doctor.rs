//! Which promise the live servers void (B5): everything is asked, nothing is changed, and pure rules judge.

mod across;
mod broker;
mod database;
mod finding;
mod needs;
mod queue;

use std::collections::BTreeMap;
use std::time::Duration;

use across::Server;
use broker::{Inlet, SeenBroker, SeenManagement, SeenWitness};
use queue::{Backstop, Presence, SeenQueue};

pub use finding::{Finding, Level, Report};

use super::boot::applications;
use super::{RunError, destinations};
use crate::broker::{
    AmqpSettings, Broker, CallError, LinkStatus, Management, ManagementError, PublisherSettings, QueueFacts,
    TopologyError,
};
use crate::config::Settings;
use crate::inbound::{InboundSettings, Path};
use crate::lifecycle::Lifecycle;
use crate::model::Epoch;
use crate::pipeline::DEFAULT_TRANSACTION_TIMEOUT;
use crate::relay::DestinationSettings;
use crate::store::{ServerFacts, StoreError, home_epoch, no_sessions, rehearse_at, server_facts};

/// Longest wait for a broker.
const BROKER_BOUND: Duration = Duration::from_secs(10);

/// Asks every server of resources.yml, and judges. Servers that do not answer are in the report.
///
/// # Errors
/// `Configuration`: a url that cannot be used.
pub async fn doctor(settings: &Settings) -> Result<Report, RunError> {
    let databases = databases(settings).await;
    let of_home = match databases.get(&settings.instance.home) {
        Some(SeenDatabase::Seen(facts)) => facts.home.as_ref().and_then(|home| home.epoch),
        Some(SeenDatabase::Pooled(_) | SeenDatabase::Unreachable(_)) | None => None,
    };
    let rehearsed = Box::pin(rehearse(settings, &databases)).await;
    let brokers = Box::pin(brokers(settings, of_home)).await?;
    let brokers = after_a_raise(settings, brokers).await;
    Ok(judge(settings, &databases, &rehearsed, &brokers))
}

/// The home may have been raised since its database was asked: what a broker was shown is in the database by now.
async fn after_a_raise(settings: &Settings, mut brokers: Vec<SeenBroker>) -> Vec<SeenBroker> {
    let witnesses = brokers.iter_mut().filter_map(|broker| broker.witness.as_mut());
    let newer: Vec<&mut u64> = witnesses.filter_map(SeenWitness::held_if_newer).collect();
    if let (false, Some(home)) = (newer.is_empty(), settings.home())
        && let Ok(epoch) = home_epoch(home).await
    {
        newer.into_iter().for_each(|held| *held = epoch.number);
    }
    brokers
}

type Databases = BTreeMap<String, SeenDatabase>;

enum SeenDatabase {
    Seen(Box<ServerFacts>),
    /// Its sessions are none, and why.
    Pooled(String),
    Unreachable(StoreError),
}

/// Whether what is prepared can be finished, by entry.
type Rehearsed = BTreeMap<String, Result<(), StoreError>>;

fn judge(settings: &Settings, databases: &Databases, rehearsed: &Rehearsed, brokers: &[SeenBroker]) -> Report {
    let transaction = settings.receivers.iter().map(|receiver| receiver.transaction_timeout).max();
    let transaction = transaction.unwrap_or(DEFAULT_TRANSACTION_TIMEOUT);
    let (mut findings, mut unreachable, mut servers) = (Vec::new(), Vec::new(), Vec::new());
    for postgres in &settings.postgres {
        let place = postgres.name.as_str();
        let branches = postgres.branches;
        let asked = database::Asked { transaction, hash: &settings.hash, prepares: branches > 0 };
        match databases.get(place) {
            Some(SeenDatabase::Seen(facts)) => {
                findings.extend(database::judge(place, facts, asked));
                servers.push(Server { place, is_home: place == settings.instance.home, branches, facts });
            }
            Some(SeenDatabase::Pooled(reason)) => findings.push(database::pooled(place, reason)),
            Some(SeenDatabase::Unreachable(error)) => {
                findings.push(database::unreachable(place, &format!("{}: {error}", postgres.address())));
                unreachable.push(place.to_owned());
            }
            None => {}
        }
    }
    findings.extend(across::prepared(&servers));
    findings.extend(rehearsed.iter().map(|(place, answer)| across::rehearsal(place, answer.as_ref())));
    findings.extend(across::clocks(&servers));
    findings.extend(across::retention(&needs::memories(settings)));
    for broker in brokers {
        findings.extend(broker::judge(broker));
        if broker.down.is_some() {
            unreachable.push(broker.place.clone());
        }
        if let SeenManagement::Unreachable(_) = broker.management {
            unreachable.push(format!("{} (managementUrl)", broker.place));
        }
    }
    Report::of(findings, unreachable)
}

async fn databases(settings: &Settings) -> Databases {
    let mut found = BTreeMap::new();
    for postgres in &settings.postgres {
        let is_home = postgres.name == settings.instance.home;
        let seen = match no_sessions(postgres).await {
            Ok(Some(reason)) => SeenDatabase::Pooled(reason),
            Err(error) => SeenDatabase::Unreachable(error),
            Ok(None) => match server_facts(postgres, is_home, &applications(settings, &postgres.name)).await {
                Ok(facts) => SeenDatabase::Seen(Box::new(facts)),
                Err(error) => SeenDatabase::Unreachable(error),
            },
        };
        found.insert(postgres.name.clone(), seen);
    }
    found
}

/// Where transactions are prepared: nowhere in the home's own database.
async fn rehearse(settings: &Settings, databases: &Databases) -> Rehearsed {
    let place = |name: &str| match databases.get(name) {
        Some(SeenDatabase::Seen(facts)) => Some((facts.system.clone(), facts.database.clone())),
        Some(SeenDatabase::Pooled(_) | SeenDatabase::Unreachable(_)) | None => None,
    };
    let home = place(&settings.instance.home);
    let mut rehearsed = Rehearsed::new();
    for postgres in settings.postgres.iter().filter(|postgres| postgres.branches > 0) {
        let Some(SeenDatabase::Seen(facts)) = databases.get(&postgres.name) else { continue };
        if !facts.in_recovery && place(&postgres.name) != home {
            rehearsed.insert(postgres.name.clone(), rehearse_at(postgres).await);
        }
    }
    rehearsed
}

async fn brokers(settings: &Settings, epoch: Option<Epoch>) -> Result<Vec<SeenBroker>, RunError> {
    let lifecycle = Lifecycle::default();
    let used = destinations::of(settings);
    let mut seen = Vec::new();
    let mut result = Ok(());
    for amqp in &settings.amqp {
        let of = used.iter().filter(|one| one.connection == amqp.name);
        let queues = of.map(|one| unseen_queue(settings, amqp, one)).collect();
        match look(amqp, queues, epoch, &lifecycle).await {
            Ok(broker) => seen.push(SeenBroker { inlets: inlets(settings, &amqp.name), ..broker }),
            Err(error) => result = Err(error),
        }
    }
    lifecycle.stop(Duration::from_secs(2)).await;
    result.map(|()| seen)
}

/// Who accepts messages that go to this broker.
fn inlets(settings: &Settings, amqp: &str) -> Vec<Inlet> {
    let of = |one: &&InboundSettings| {
        Path::of(one, &settings.adapters).senders().iter().any(|sender| sender.connection == amqp)
    };
    let inlet = |one: &InboundSettings| Inlet { adapter: one.adapter.to_string(), max_body: one.max_body };
    settings.inbound.iter().filter(of).map(inlet).collect()
}

fn unseen_queue(settings: &Settings, amqp: &AmqpSettings, used: &DestinationSettings) -> SeenQueue {
    let reader = settings.receivers.iter().find(|receiver| receiver.destination == used.destination);
    SeenQueue {
        place: used.destination.to_string(),
        queue: used.queue.clone(),
        reader: reader.map(|receiver| receiver.transaction_timeout),
        presence: Presence::Unseen("the broker was not asked".to_owned()),
        made_here: amqp.create_destination,
        facts: None,
    }
}

async fn look(
    amqp: &AmqpSettings,
    queues: Vec<SeenQueue>,
    epoch: Option<Epoch>,
    lifecycle: &Lifecycle,
) -> Result<SeenBroker, RunError> {
    let unusable =
        |error: crate::broker::EndpointError| RunError::Configuration(format!("amqp {}: {error}", amqp.name));
    let management = Management::new(amqp).map_err(unusable)?;
    let broker = Broker::start(amqp, PublisherSettings::default(), lifecycle).map_err(unusable)?;
    let mut seen = SeenBroker {
        place: amqp.name.clone(),
        address: broker.address(),
        down: None,
        version: None,
        management: SeenManagement::NotGiven,
        witness: None,
        queues,
        inlets: Vec::new(),
    };
    if broker.can_consume(BROKER_BOUND).await {
        seen.version = broker.server_version().await;
        if let Some(epoch) = epoch {
            seen.witness = Some(witness(&broker, epoch).await);
        }
        for queue in &mut seen.queues {
            queue.presence = presence(&broker, &queue.queue).await;
        }
    } else {
        seen.down = Some(match broker.consume_status() {
            LinkStatus::Down { reason, .. } => reason.to_string(),
            LinkStatus::Up | LinkStatus::Blocked { .. } => "no answer in time".to_owned(),
        });
    }
    broker.close().await;
    if let Some(management) = management {
        seen.management = ask(&management, &mut seen.queues).await;
    }
    Ok(seen)
}

async fn witness(broker: &Broker, epoch: Epoch) -> SeenWitness {
    let asked = async {
        let newest = broker.newest_epoch(epoch.home, epoch.number).await?;
        let shown = broker.shows_epoch(epoch.home, epoch.number).await?;
        let allowed = broker.may_show_epochs(epoch.home).await?;
        Ok(SeenWitness::Answered { held: epoch.number, newest, shown, allowed })
    };
    asked.await.unwrap_or_else(|error: CallError| SeenWitness::Unseen(error.to_string()))
}

async fn presence(broker: &Broker, queue: &str) -> Presence {
    match broker.queue_state(queue).await {
        Ok(state) => Presence::There { ready: state.ready },
        Err(TopologyError::Missing { .. }) => Presence::Missing,
        Err(error @ (TopologyError::UnknownVersion { .. } | TopologyError::Call { .. })) => {
            Presence::Unseen(error.to_string())
        }
    }
}

/// The first question that fails decides: what was learnt until then stays.
async fn ask(management: &Management, queues: &mut [SeenQueue]) -> SeenManagement {
    let seen = |error| match error {
        ManagementError::Unreachable(_) => SeenManagement::Unreachable(error.to_string()),
        ManagementError::Refused(_) | ManagementError::Answer(_) => SeenManagement::Refused(error.to_string()),
    };
    for queue in queues {
        match management.queue(&queue.queue).await {
            Ok(Some(facts)) => {
                let backstop = backstop(management, &facts).await;
                queue.facts = Some((facts, backstop));
            }
            Ok(None) => {}
            Err(error) => return seen(error),
        }
    }
    management.nodes().await.map_or_else(seen, SeenManagement::Nodes)
}

async fn backstop(management: &Management, facts: &QueueFacts) -> Backstop {
    let Some(exchange) = facts.word("dead-letter-exchange").map(|word| word.value) else { return Backstop::None };
    let shown = if exchange.is_empty() { "of the broker (default)".to_owned() } else { exchange.clone() };
    match management.exchange_exists(&exchange).await {
        Ok(true) => Backstop::Exists(shown),
        Ok(false) => Backstop::Missing(shown),
        Err(error) => Backstop::Unseen(error.to_string()),
    }
}
