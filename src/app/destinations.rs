//! Every queue that the configurations name, once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Settings;
use crate::model::Destination;
use crate::pipeline::StepKind;
use crate::relay::DestinationSettings;
use crate::store::LONGEST_PAUSE;

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
            longest_delay: receiver.retry_delays.iter().max().copied().unwrap_or(Duration::from_secs(1)),
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
                error_slot: sender.destination.error_slot(),
                adapter: adapter.name.clone(),
                longest_delay: LONGEST_PAUSE,
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
