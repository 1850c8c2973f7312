//! Looking after readiness: once a second at what it is made of, so that each trouble is known since its beginning; and trying
//! out what lately refused messages, so that no trouble outlasts its cause for want of traffic.

use std::sync::Arc;
use std::time::Duration;

use super::entrances::Entrance;
use super::readiness::Probe;
use crate::lifecycle::{Lifecycle, NeededFor, Task};

const NAME: &str = "readiness";
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// It looks whatever servers do.
const TURN: Duration = Duration::from_secs(60);

pub(super) fn task() -> Task {
    Task::new(NAME, NeededFor::Neither).turns_within(TURN)
}

/// Looks until the stop.
pub(super) async fn look_after(probe: Arc<Probe>, lifecycle: Lifecycle) {
    let looks = async {
        loop {
            lifecycle.watch.turn(NAME);
            let _seen = probe.ask();
            tokio::time::sleep(LOOK).await;
        }
    };
    let tries = async {
        loop {
            for entrance in probe.entrances.iter().filter(|one| one.is_started(&probe)) {
                if let Some(size) = entrance.outcomes.take_try() {
                    try_out(&probe, entrance, size).await;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    // In a box: it is large.
    let both = Box::pin(async { tokio::join!(looks, tries) });
    let _stopped = lifecycle.soft.run_until_cancelled(both).await;
}

impl Entrance {
    fn is_started(&self, probe: &Probe) -> bool {
        probe.acceptor.registry.is_started(&self.settings.adapter)
    }
}

async fn try_out(probe: &Probe, Entrance { settings, path, reach, outcomes }: &Entrance, size: usize) {
    match probe.acceptor.try_out(settings, path, size).await {
        Ok(()) => {
            // It may have been a step that failed.
            let databases = &reach.databases;
            if databases.is_empty() || probe.acceptor.store.takes_writes(databases).await {
                outcomes.well();
            } else {
                outcomes.still_failing();
            }
        }
        Err(error) if error.concerns_every_message() => outcomes.failed(error.to_string(), size),
        Err(error) => {
            tracing::debug!(adapter = %settings.adapter, %error, "not known whether messages still fail");
            outcomes.still_failing();
        }
    }
}
