//! The tasks that need the home's identity, each watched: one that panics begins anew, and loses no more than is said here.

use futures_util::FutureExt;
use jiff::Timestamp;

use super::databases::{self, Reached};
use super::steady::SteadyClock;
use super::{Parts, auditing, cleaning, figures};
use crate::lifecycle::{Lifecycle, NeededFor, Task};
use crate::model::AdapterState;
use crate::receiver::{Processor, supervise};
use crate::relay::{self, Fenced, heartbeat, recover, sweep, verify_destinations};

/// From here on messages move.
pub(super) fn start(parts: &Parts, reached: Reached, lifecycle: &Lifecycle) {
    wait_for_databases(parts, reached, lifecycle);
    // Looks at all destinations again.
    lifecycle.spawn_watched(relay::verifier(), parts.relay.clone(), |relay| verify_destinations(relay.clone()).boxed());
    // Its walk begins anew, and what it knew of queues.
    let state = (parts.relay.clone(), parts.shared.clone());
    lifecycle.spawn_watched(relay::sweeper(), state, |(relay, shared)| sweep(relay.clone(), shared.clone()).boxed());
    // All that it knows stands in the databases.
    let state = (parts.relay.clone(), parts.shared.clone());
    lifecycle.spawn_watched(relay::recovery(), state, |(relay, shared)| recover(relay.clone(), shared.clone()).boxed());
    // It begins at the first slot again, and knows what the clock has done.
    let state = (parts.store.clone(), lifecycle.clone(), SteadyClock::default());
    lifecycle.spawn_watched(cleaning::task(), state, |(store, lifecycle, clock)| {
        cleaning::keep_clean(store.clone(), lifecycle.clone(), clock).boxed()
    });
    let state = (parts.store.clone(), parts.shared.clone(), figures::slots(parts), lifecycle.clone());
    lifecycle.spawn_watched(figures::task(), state, |(store, shared, slots, lifecycle)| {
        figures::count(store.clone(), shared.clone(), slots.clone(), lifecycle.clone()).boxed()
    });
    // It begins somewhere.
    let state = (parts.store.clone(), parts.shared.clone(), lifecycle.clone());
    lifecycle.spawn_watched(auditing::task(), state, |(store, shared, lifecycle)| {
        auditing::audit(store.clone(), shared.clone(), lifecycle.clone()).boxed()
    });
    // Those that nobody supervises have been since they were known.
    for adapter in parts.registry.list().iter().filter(|adapter| adapter.state == AdapterState::Started) {
        tracing::info!(adapter = %adapter.name, state = %adapter.state, listener = adapter.listener, "an adapter's state");
    }
    for receiver in &parts.settings.receivers {
        let outcomes = parts.outcomes.of(&receiver.adapter);
        let (processor, shared) = (Processor { outcomes, ..parts.processor.clone() }, parts.shared.clone());
        lifecycle.tasks.spawn(supervise(receiver.clone(), processor, shared, lifecycle.clone()));
    }
}

/// Comes to its end when all are in use.
fn wait_for_databases(parts: &Parts, reached: Reached, lifecycle: &Lifecycle) {
    let task = Task::new("databases", NeededFor::Processing);
    let (watch, soft) = (lifecycle.watch.clone(), lifecycle.soft.clone());
    let mut state = (parts.settings.clone(), parts.store.clone(), lifecycle.clone(), reached);
    lifecycle.tasks.spawn(async move {
        let run = watch.until_done(task, &soft, &mut state, |(settings, store, lifecycle, reached)| {
            databases::wait_for_the_rest(settings, store, lifecycle, reached).boxed()
        });
        run.await
    });
}

/// The heart-beat, until the hard stop. It forgets how long others have been silent, and so fences them a lease later.
pub(super) async fn beat(parts: &Parts, lifecycle: &Lifecycle) -> Result<(), Fenced> {
    let mut state = (parts.relay.clone(), parts.shared.clone(), parts.registry.clone());
    let task = relay::beating(parts.settings.instance.lease);
    let beats = lifecycle.watch.until_done(task, &lifecycle.hard, &mut state, |state| {
        let (relay, shared, registry) = state.clone();
        async move {
            let wishes = |stopped: &[_], epoch| registry.follow(stopped, epoch, Timestamp::now());
            heartbeat(relay, shared, || registry.epoch(), wishes).await
        }
        .boxed()
    });
    beats.await.unwrap_or(Ok(()))
}
