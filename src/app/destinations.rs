//! Every queue that the configurations name, once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Settings;
use crate::model::{Destination, SlotId};
use crate::pipeline::StepKind;
use crate::relay::DestinationSettings;
use crate::store::SessionTimeouts;

/// Queues that are consumed here, and queues that are only sent to.
pub fn of(settings: &Settings) -> Vec<DestinationSettings> {
    let mut found: BTreeMap<Destination, DestinationSettings> = BTreeMap::new();
    for receiver in &settings.receivers {
        let destination = DestinationSettings {
            destination: receiver.destination.clone(),
            connection: receiver.connection.clone(),
            queue: receiver.queue.clone(),
            error_slot: receiver.error_slot.clone(),
            adapter: receiver.adapter.clone(),
        };
        found.insert(receiver.destination.clone(), destination);
    }
    for adapter in &settings.adapters {
        for step in &adapter.steps {
            let StepKind::AmqpSender(sender) = &step.kind else { continue };
            found.entry(sender.destination.clone()).or_insert_with(|| DestinationSettings {
                destination: sender.destination.clone(),
                connection: sender.connection.clone(),
                queue: sender.queue.clone(),
                error_slot: SlotId::new(sender.destination.as_str()),
                adapter: adapter.name.clone(),
            });
        }
    }
    found.into_values().collect()
}

/// How long an attempt may take at most, over all receivers, before it is nobody's.
pub fn watch(settings: &Settings) -> Duration {
    let longest = settings.receivers.iter().map(|receiver| receiver.transaction_timeout).max();
    longest.unwrap_or(Duration::from_secs(30)) + Duration::from_secs(10)
}

/// How much later than its id a journal row may be committed: a transaction makes it, and a process that is stopped in
/// between is cut off by the bound on idle transactions.
pub fn late_commits(settings: &Settings) -> Duration {
    let inbound = settings.inbound.iter().map(|inbound| inbound.transaction_timeout);
    let longest = settings.receivers.iter().map(|receiver| receiver.transaction_timeout).chain(inbound).max();
    longest.unwrap_or_default() + 2 * SessionTimeouts::default().idle_in_transaction
}
