//! From checked sections to the settings that all other modules see.

use std::time::Duration;

use secrecy::SecretString;

use super::adapters::{Adapter, Receiver, Step, StepKind as ReadKind};
use super::demand::Demand;
use super::fingerprint;
use super::folders::Folder;
use super::listeners::{AmqpListener, ApiListener, Listener};
use super::resources::Resources;
use super::section::Text;
use super::{InstanceSettings, Settings};
use crate::broker::{AmqpSettings, QueueSettings};
use crate::inbound::{DuplicateKey, InboundSettings, MessageLogSettings};
use crate::model::{AdapterName, Destination, Mode, SlotId, TransactionAttribute};
use crate::pipeline::{
    AdapterSettings, AmqpSenderSettings, CallSettings, DEFAULT_TRANSACTION_TIMEOUT, QuerySettings, StepKind,
    StepSettings,
};
use crate::receiver::ReceiverSettings;
use crate::store::PostgresSettings;

pub(super) const DEFAULT_THREADS: usize = 8;
const DEFAULT_GROUP: usize = 96;
const DEFAULT_RETRIES: u32 = 3;
const DEFAULT_DELAYS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];
const DEFAULT_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often the message for a queue of others is published before it is an error.
const HANDOVER_ATTEMPTS: i32 = 10;

/// Builds the settings from what was read without a mistake; None if there was one.
pub(super) fn build(resources: Resources, folders: Vec<Folder>, from_files: Vec<SecretString>) -> Option<Settings> {
    let demand = Demand::of(&folders);
    let read: Vec<&Adapter> = folders.iter().flat_map(|folder| &folder.adapters).collect();
    let mut inbound = Vec::new();
    let mut receivers = Vec::new();
    for adapter in &read {
        let Some(receiver) = &adapter.receiver else { continue };
        match receiver.listener.as_ref()? {
            Listener::Api(listener) => inbound.push(inbound_settings(adapter, receiver, listener)?),
            Listener::Amqp(listener) => {
                let databases = demand.reached_by(&adapter.name.value);
                receivers.push(receiver_settings(adapter, receiver, listener, &resources, databases));
            }
        }
    }
    let adapters = read.iter().map(|adapter| adapter_settings(adapter, &receivers)).collect::<Option<Vec<_>>>()?;
    let home = resources.instance.home.value.clone();
    let postgres = resources.postgres.into_iter().map(|entry| postgres_settings(entry, &home, &demand)).collect();
    Some(Settings {
        instance: InstanceSettings {
            name: resources.instance.name.map_or_else(|| "posthaste".to_owned(), |name| name.value),
            home,
            lease: resources.instance.lease,
            stop_timeout: resources.instance.stop_timeout,
        },
        hash: fingerprint::of(&adapters, &inbound, &receivers),
        postgres,
        amqp: resources.amqp.into_iter().map(amqp_settings).collect(),
        api: resources.api,
        console: resources.console,
        adapters,
        inbound,
        receivers,
        configurations: folders.into_iter().map(|folder| folder.configuration).collect(),
        from_files,
    })
}

fn postgres_settings(entry: super::resources::Postgres, home: &str, demand: &Demand<'_>) -> PostgresSettings {
    PostgresSettings {
        branches: demand.branches(&entry.name.value, entry.name.value == home),
        name: entry.name.value,
        url: SecretString::from(entry.url.value),
        username: entry.username.map(|username| username.value),
        password: entry.password.map(|password| SecretString::from(password.value)),
        role: entry.role.map(|role| role.value),
        pool_max_size: entry.pool_max_size.value,
    }
}

fn amqp_settings(entry: super::resources::Amqp) -> AmqpSettings {
    AmqpSettings {
        name: entry.name.value,
        url: SecretString::from(entry.url.value),
        username: entry.username.map(|username| username.value),
        password: entry.password.map(|password| SecretString::from(password.value)),
        management_url: entry.management_url.map(|url| SecretString::from(url.value)),
        create_destination: entry.create_destination,
        queues: entry
            .queues
            .into_iter()
            .map(|queue| QueueSettings { name: queue.name.value, retry_delays: queue.retry_delays })
            .collect(),
    }
}

fn inbound_settings(adapter: &Adapter, receiver: &Receiver, listener: &ApiListener) -> Option<InboundSettings> {
    let checks = receiver.check_for_duplicates.is_some_and(|check| check.value);
    let key = receiver.duplicate_key.map_or(DuplicateKey::MessageId, |key| key.value);
    let message_log = receiver.message_log.as_ref().map(|log| MessageLogSettings {
        slot_id: SlotId::new(&log.slot_id.value),
        retention: log.retention.unwrap_or(DEFAULT_RETENTION),
    });
    Some(InboundSettings {
        adapter: AdapterName::new(&adapter.name.value),
        uri_pattern: listener.uri_pattern.as_ref()?.value.clone(),
        method: listener.method.clone(),
        message_id_headers: listener.message_id_headers.clone(),
        correlation_id_header: listener.correlation_id_header.clone(),
        require_message_id: listener.require_message_id,
        header_params: listener.header_params.clone(),
        allowed_origins: listener.allowed_origins.clone(),
        max_body: listener.max_body.value,
        duplicate_status: listener.duplicate_status,
        conflict_status: listener.conflict_status,
        accept: listener.accept,
        check_for_duplicates: checks.then_some(key),
        message_log,
        transaction_attribute: receiver_attribute(receiver),
        transaction_timeout: receiver.timeout.unwrap_or(DEFAULT_TRANSACTION_TIMEOUT),
        max_open: listener.max_open,
    })
}

fn receiver_attribute(receiver: &Receiver) -> TransactionAttribute {
    receiver.attribute.map_or(TransactionAttribute::Required, |attribute| attribute.value)
}

fn receiver_settings(
    adapter: &Adapter,
    receiver: &Receiver,
    listener: &AmqpListener,
    resources: &Resources,
    databases: Vec<String>,
) -> ReceiverSettings {
    let scheme = receiver.retry_scheme.as_ref().map(|scheme| &scheme.value);
    let sum = scheme.map(|waits| u32::try_from(waits.len()).unwrap_or(u32::MAX));
    let error_slot: &Text = receiver.error_storage.as_ref().map_or(&adapter.name, |storage| &storage.slot_id);
    ReceiverSettings {
        adapter: AdapterName::new(&adapter.name.value),
        connection: listener.connection.value.clone(),
        queue: listener.destination.value.clone(),
        destination: Destination::queue(&listener.connection.value, &listener.destination.value),
        transaction_attribute: receiver_attribute(receiver),
        transaction_timeout: receiver.timeout.unwrap_or(DEFAULT_TRANSACTION_TIMEOUT),
        max_retries: receiver.max_retries.map(|retries| retries.value).or(sum).unwrap_or(DEFAULT_RETRIES),
        retry_delays: administrators_delays(resources, listener)
            .or_else(|| scheme.cloned())
            .unwrap_or_else(|| DEFAULT_DELAYS.to_vec()),
        retry_permanent_errors: receiver.retry_permanent_errors.is_none_or(|retry| retry.value),
        num_threads: receiver.num_threads.map_or(DEFAULT_THREADS, |threads| threads.value),
        group_size: receiver.group_size.map_or(DEFAULT_GROUP, |size| size.value),
        databases,
        error_slot: SlotId::new(&error_slot.value),
    }
}

/// `queues[].retryDelays` of resources.yml: the administrator has the last word on intervals (F6).
fn administrators_delays(resources: &Resources, listener: &AmqpListener) -> Option<Vec<Duration>> {
    let entry = resources.amqp.iter().find(|entry| entry.name.value == listener.connection.value)?;
    let queue = entry.queues.iter().find(|queue| queue.name.value == listener.destination.value)?;
    Some(queue.retry_delays.clone()).filter(|delays| !delays.is_empty())
}

fn adapter_settings(adapter: &Adapter, receivers: &[ReceiverSettings]) -> Option<AdapterSettings> {
    let from_receiver = adapter.receiver.as_ref().map(receiver_attribute);
    let steps = adapter.steps.iter().map(|step| step_settings(step, receivers)).collect::<Option<_>>()?;
    Some(AdapterSettings {
        name: AdapterName::new(&adapter.name.value),
        configuration: adapter.configuration.clone(),
        description: adapter.description.as_ref().map(|text| text.value.clone()),
        transaction_attribute: adapter
            .attribute
            .map(|attribute| attribute.value)
            .or(from_receiver)
            .unwrap_or(TransactionAttribute::Supports),
        steps,
    })
}

fn step_settings(step: &Step, receivers: &[ReceiverSettings]) -> Option<StepSettings> {
    let kind = match step.kind.as_ref()? {
        ReadKind::AmqpSender { connection, destination } => {
            StepKind::AmqpSender(sender_settings(&connection.value, &destination.value, receivers))
        }
        ReadKind::Query { database, sql, params } => StepKind::Query(QuerySettings {
            database: database.value.clone(),
            sql: sql.value.clone(),
            params: params.iter().map(|param| param.value.clone()).collect::<Option<_>>()?,
        }),
        ReadKind::Call { adapter } => StepKind::Call(CallSettings { adapter: AdapterName::new(&adapter.value) }),
    };
    Some(StepSettings { name: step.name.value.clone(), input: step.input, kind })
}

/// OWN when a receiver of any configuration consumes the queue: its attempts then count (protocol §3).
fn sender_settings(connection: &str, queue: &str, receivers: &[ReceiverSettings]) -> AmqpSenderSettings {
    let destination = Destination::queue(connection, queue);
    let consumer = receivers.iter().find(|receiver| receiver.destination == destination);
    AmqpSenderSettings {
        connection: connection.to_owned(),
        queue: queue.to_owned(),
        mode: if consumer.is_some() { Mode::Own } else { Mode::Handover },
        max_attempts: consumer.map_or(HANDOVER_ATTEMPTS, ReceiverSettings::max_attempts),
        destination,
    }
}
