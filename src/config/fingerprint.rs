//! One number for what the adapters do, so that instances which differ can be told apart.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::inbound::{InboundSettings, MessageLogSettings};
use crate::pipeline::{AdapterSettings, AmqpSenderSettings, CallSettings, QuerySettings, StepKind, StepSettings};
use crate::receiver::ReceiverSettings;

/// SHA-256 in hex over the adapters' meaning: the order of adapters, comments, descriptions, and whether a default is
/// written out make no difference. Every struct is taken apart completely: a new field must be placed here.
pub(super) fn of(adapters: &[AdapterSettings], inbound: &[InboundSettings], receivers: &[ReceiverSettings]) -> String {
    let mut lines: Vec<String> = adapters.iter().map(adapter).collect();
    lines.extend(inbound.iter().map(inbound_line));
    lines.extend(receivers.iter().map(receiver));
    lines.sort();
    let mut hash = Sha256::new();
    for line in lines {
        // The length keeps two lines from being taken for one.
        hash.update(line.len().to_be_bytes());
        hash.update(line);
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _written = write!(hex, "{byte:02x}");
        hex
    })
}

fn adapter(settings: &AdapterSettings) -> String {
    let AdapterSettings { name, configuration, description: _, transaction_attribute, steps } = settings;
    let steps: Vec<_> = steps.iter().map(step).collect();
    format!("adapter {name:?} {configuration:?} {transaction_attribute} {steps:?}")
}

fn step(settings: &StepSettings) -> String {
    let StepSettings { name, input, kind } = settings;
    let kind = match kind {
        StepKind::AmqpSender(AmqpSenderSettings { connection: _, queue: _, destination, mode, max_attempts }) => {
            format!("amqpSender {destination:?} {mode} {max_attempts}")
        }
        StepKind::Query(QuerySettings { database, sql, params }) => format!("query {database:?} {sql:?} {params:?}"),
        StepKind::Call(CallSettings { adapter }) => format!("call {adapter:?}"),
    };
    format!("{name:?} {input:?} {kind}")
}

fn inbound_line(settings: &InboundSettings) -> String {
    let InboundSettings {
        adapter,
        uri_pattern,
        method,
        message_id_headers,
        correlation_id_header,
        require_message_id,
        header_params,
        allowed_origins,
        max_body,
        duplicate_status,
        conflict_status,
        accept,
        check_for_duplicates,
        message_log,
        transaction_attribute,
        transaction_timeout,
        max_open,
    } = settings;
    let log =
        message_log.as_ref().map(|MessageLogSettings { slot_id, retention }| (slot_id.as_str(), retention.as_millis()));
    format!(
        "api {adapter:?} {uri_pattern:?} {method} {message_id_headers:?} {correlation_id_header:?} {require_message_id} \
         {header_params:?} {allowed_origins:?} {max_body} {} {} {accept:?} {check_for_duplicates:?} {log:?} {transaction_attribute} {} {max_open}",
        duplicate_status.as_u16(),
        conflict_status.as_u16(),
        transaction_timeout.as_millis(),
    )
}

fn receiver(settings: &ReceiverSettings) -> String {
    let ReceiverSettings {
        adapter,
        connection: _,
        queue: _,
        destination,
        transaction_attribute,
        transaction_timeout,
        max_retries,
        retry_delays,
        retry_permanent_errors,
        num_threads,
        group_size,
        // It follows from the adapters' steps.
        databases: _,
        error_slot,
    } = settings;
    let delays: Vec<_> = retry_delays.iter().map(std::time::Duration::as_millis).collect();
    format!(
        "amqp {adapter:?} {destination:?} {transaction_attribute} {} {max_retries} {delays:?} {retry_permanent_errors} \
         {num_threads} {group_size} {error_slot:?}",
        transaction_timeout.as_millis(),
    )
}
