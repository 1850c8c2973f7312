//! Asking the home database and the brokers whether every message is accounted for (B2).

use std::collections::BTreeMap;
use std::time::Duration;

use super::boot::RunError;
use super::verdict::{Claims, Depth, Proof, judge};
use super::{claimed_slots, destinations};
use crate::broker::{Broker, PublisherSettings, TopologyError};
use crate::config::Settings;
use crate::lifecycle::Lifecycle;
use crate::model::Incarnation;
use crate::store::migrate::{MigrateError, refuse_other_schema};
use crate::store::{AcceptedIn, Retention, SessionTimeouts, Store};

/// Longest statement: whole tables are read.
const STATEMENT: Duration = Duration::from_secs(300);
/// Longest wait for a broker.
const BROKER_BOUND: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct ProveRequest {
    /// Offenders named per rule.
    pub named: i64,
    /// Which acceptances are accounted for.
    pub accepted: AcceptedIn,
    /// Whether the brokers are asked for the depth of our queues.
    pub brokers: bool,
}

/// Reads one snapshot of the home database, then asks the brokers, and judges. Changes nothing.
///
/// # Errors
/// `Unreachable` when a server does not answer in time, `Schema` when the database is not of this version.
pub async fn prove(settings: &Settings, request: ProveRequest) -> Result<Proof, RunError> {
    let home = settings.home().ok_or_else(|| RunError::Configuration("there is no home database".to_owned()))?;
    let unreachable = |reason: String| RunError::Unreachable(format!("database {}: {reason}", home.name));
    match refuse_other_schema(home, true, &[]).await {
        Ok(None) => {}
        Ok(Some(reason)) => return Err(RunError::Schema(reason)),
        Err(MigrateError::Unreachable(reason)) => return Err(unreachable(reason)),
        Err(error) => return Err(RunError::Schema(error.to_string())),
    }
    let timeouts = SessionTimeouts { statement: STATEMENT, ..SessionTimeouts::default() };
    let store = Store::new(std::slice::from_ref(home), &home.name, Incarnation::mint(), timeouts)
        .map_err(|error| unreachable(error.to_string()))?;
    let snapshot = store.prove(Retention::default().journal, request.named, request.accepted).await;
    let snapshot = snapshot.map_err(|error| unreachable(error.to_string()))?;
    let depths = if request.brokers { depths(settings).await? } else { BTreeMap::new() };
    let AcceptedIn { since, until } = request.accepted;
    Ok(Proof { since, until, ..judge(&snapshot, &claims(settings), &depths) })
}

fn claims(settings: &Settings) -> Claims {
    let consumers: BTreeMap<String, String> = settings
        .receivers
        .iter()
        .map(|receiver| (receiver.destination.to_string(), receiver.adapter.to_string()))
        .collect();
    let slots = claimed_slots(settings).into_iter().map(|slot| (slot.slot_id.to_string(), slot.adapter.to_string()));
    let all = destinations::of(settings);
    let sent_to = all.into_iter().filter(|one| !consumers.contains_key(one.destination.as_str()));
    Claims { slots: slots.collect(), sent_to: sent_to.map(|one| one.error_slot.to_string()).collect(), consumers }
}

/// The depth of every queue that a receiver here consumes.
async fn depths(settings: &Settings) -> Result<BTreeMap<String, Option<Depth>>, RunError> {
    let lifecycle = Lifecycle::default();
    let mut found = BTreeMap::new();
    let mut result = Ok(());
    for amqp in &settings.amqp {
        if !settings.receivers.iter().any(|receiver| receiver.connection == amqp.name) {
            continue;
        }
        let broker = Broker::start(amqp, PublisherSettings::default(), &lifecycle)
            .map_err(|error| RunError::Configuration(error.to_string()))?;
        result = ask(&broker, settings, &mut found).await;
        broker.close().await;
        if result.is_err() {
            break;
        }
    }
    lifecycle.stop(Duration::from_secs(2)).await;
    result.map(|()| found)
}

async fn ask(
    broker: &Broker,
    settings: &Settings,
    found: &mut BTreeMap<String, Option<Depth>>,
) -> Result<(), RunError> {
    if !broker.can_consume(BROKER_BOUND).await {
        let status = broker.consume_status();
        return Err(RunError::Unreachable(format!("broker {} ({}): {status:?}", broker.name(), broker.address())));
    }
    for receiver in settings.receivers.iter().filter(|receiver| receiver.connection == broker.name()) {
        let depth = match broker.queue_state(&receiver.queue).await {
            Ok(state) => Some(Depth { ready: state.ready.into(), consumers: state.consumers.into() }),
            Err(TopologyError::Missing { .. }) => None,
            Err(error @ (TopologyError::UnknownVersion { .. } | TopologyError::Call { .. })) => {
                return Err(RunError::Unreachable(error.to_string()));
            }
        };
        found.insert(receiver.destination.to_string(), depth);
    }
    Ok(())
}
