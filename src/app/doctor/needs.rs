//! What the configurations ask of the servers. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::Settings;
use crate::model::{AdapterName, Destination};
use crate::pipeline::StepKind;
use crate::receiver::ReceiverSettings;

/// An api listener's log whose memory may end before the retries of what it accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Memory {
    pub adapter: AdapterName,
    pub retention: Duration,
    /// From the acceptance to the end of the last attempt, at the most.
    pub horizon: Duration,
}

/// Every message log whose adapter sends to a queue that a receiver here consumes.
pub(super) fn memories(settings: &Settings) -> Vec<Memory> {
    let memory = |inbound: &crate::inbound::InboundSettings| {
        let sent_to = destinations(settings, &inbound.adapter);
        let consumers = settings.receivers.iter().filter(|receiver| sent_to.contains(&receiver.destination));
        let horizon = consumers.map(horizon).max()?;
        let retention = inbound.message_log.as_ref()?.retention;
        Some(Memory { adapter: inbound.adapter.clone(), retention, horizon })
    };
    settings.inbound.iter().filter_map(memory).collect()
}

/// The waits of all attempts, and each attempt for as long as it may take.
pub(super) fn horizon(receiver: &ReceiverSettings) -> Duration {
    let waits = (1..receiver.max_attempts()).map(|n| receiver.delay_after(n));
    let waits = waits.fold(Duration::ZERO, Duration::saturating_add);
    let attempts = u32::try_from(receiver.max_attempts()).unwrap_or(u32::MAX);
    waits.saturating_add(receiver.transaction_timeout.saturating_mul(attempts))
}

fn destinations(settings: &Settings, adapter: &AdapterName) -> BTreeSet<Destination> {
    let destination = |kind: &StepKind| match kind {
        StepKind::AmqpSender(sender) => Some(sender.destination.clone()),
        StepKind::Query(_) | StepKind::Call(_) => None,
    };
    steps(settings, adapter).into_iter().filter_map(destination).collect()
}

/// The steps of an adapter and of all that it calls.
fn steps<'a>(settings: &'a Settings, adapter: &AdapterName) -> Vec<&'a StepKind> {
    let mut open = vec![adapter.clone()];
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    while let Some(name) = open.pop() {
        if !seen.insert(name.as_str().to_owned()) {
            continue;
        }
        for step in settings.adapters.iter().filter(|one| one.name == name).flat_map(|one| &one.steps) {
            if let StepKind::Call(call) = &step.kind {
                open.push(call.adapter.clone());
            }
            found.push(&step.kind);
        }
    }
    found
}

#[cfg(test)]
#[path = "needs_tests.rs"]
mod tests;
