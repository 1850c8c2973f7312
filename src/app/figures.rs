//! The page of figures, and those that a database must be asked for: never by whoever reads them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Parts;
use crate::lifecycle::{Lifecycle, NeededFor, Task};
use crate::model::{AdapterName, Latencies, SlotId};
use crate::pipeline::Outcomes;
use crate::relay::Shared;
use crate::store::{ErrorDepth, Store};
use crate::telemetry::{Histogram, MetricsHandle};

const NAME: &str = "figures";
const ACCEPT: &str = "posthaste_accept_seconds";
const DONE: &str = "posthaste_accepted_to_done_seconds";
/// Between two counts; counting takes no more than a hundredth of the time.
const COUNT: Duration = Duration::from_secs(10);
/// A statement ends after 30 s, and a hundred times as long is the pause.
const TURN: Duration = Duration::from_secs(2 * 3600);

pub(super) fn task() -> Task {
    Task::new(NAME, NeededFor::Neither).turns_within(TURN)
}

/// Lets the figures begin, and answers what makes their page.
pub(super) fn page(parts: &Parts, metrics: MetricsHandle) -> Arc<dyn Fn() -> String + Send + Sync> {
    let inbound: Vec<AdapterName> = parts.settings.inbound.iter().map(|one| one.adapter.clone()).collect();
    let receivers: Vec<AdapterName> = parts.settings.receivers.iter().map(|one| one.adapter.clone()).collect();
    let names = |adapters: &[AdapterName]| adapters.iter().map(ToString::to_string).collect::<Vec<_>>();
    metrics.begin(&names(&inbound), &names(&receivers));
    metrics.begin_slots(&slots(parts));
    let of = |adapters: Vec<AdapterName>| -> Vec<(AdapterName, Arc<Outcomes>)> {
        adapters.into_iter().map(|name| (name.clone(), parts.outcomes.of(&name))).collect()
    };
    let (inbound, receivers) = (of(inbound), of(receivers));
    let (store, registry) = (parts.store.clone(), parts.registry.clone());
    Arc::new(move || {
        let adapters: Vec<_> = registry.list().into_iter().map(|one| (one.name, one.state)).collect();
        let histograms = [
            Histogram { name: ACCEPT, meaning: "From a complete request to its 202.", of: took(&inbound) },
            Histogram {
                name: DONE,
                meaning: "From the acceptance of a message to its commit here.",
                of: took(&receivers),
            },
        ];
        metrics.render(&store, &adapters, &histograms)
    })
}

fn took(outcomes: &[(AdapterName, Arc<Outcomes>)]) -> Vec<(&AdapterName, &Latencies)> {
    outcomes.iter().map(|(name, outcomes)| (name, &outcomes.took)).collect()
}

/// Where messages wait for a person.
pub(super) fn slots(parts: &Parts) -> Vec<SlotId> {
    let destinations = parts.relay.settings().destinations.iter().map(|one| &one.error_slot);
    let slots: BTreeSet<&SlotId> =
        parts.settings.receivers.iter().map(|one| &one.error_slot).chain(destinations).collect();
    slots.into_iter().cloned().collect()
}

/// Counts until the stop.
pub(super) async fn count(store: Store, shared: Shared, slots: Vec<SlotId>, lifecycle: Lifecycle) {
    loop {
        lifecycle.watch.turn(NAME);
        let began = Instant::now();
        if shared.trouble().is_none() {
            match store.error_depths(&slots).await {
                Ok(depths) => depths.iter().for_each(tell),
                Err(error) => tracing::debug!(%error, "error stores are not counted now"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause_after(began.elapsed())) => {}
            () = lifecycle.soft.cancelled() => return,
        }
    }
}

fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(100).max(COUNT)
}

fn tell(ErrorDepth { slot_id, kind, count, oldest_seconds }: &ErrorDepth) {
    let labels = [("slot", slot_id.to_string()), ("type", kind.to_string())];
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and counts are capped")]
    metrics::gauge!("posthaste_error_store_messages", &labels).set(*count as f64);
    metrics::gauge!("posthaste_error_store_oldest_seconds", &labels).set(*oldest_seconds);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_takes_no_more_than_a_hundredth_of_the_time() {
        assert_eq!(pause_after(Duration::from_millis(1)), COUNT);
        assert_eq!(pause_after(Duration::from_secs(1)), Duration::from_secs(100));
    }
}
