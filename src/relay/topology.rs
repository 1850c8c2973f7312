//! Keeping every destination verified: without it nothing is accepted for it.

use std::time::Duration;

use futures_util::future::join_all;

use super::Relay;
use crate::lifecycle::{NeededFor, Task};

/// Between two looks at a destination that is in doubt.
const DOUBT: Duration = Duration::from_millis(500);
/// Longest wait for the connections before the first look.
const FIRST: Duration = Duration::from_secs(2);
/// Between two looks at one that is fine.
const FINE: Duration = Duration::from_secs(15);

const NAME: &str = "verifier";
/// It comes round with each destination; a look is some calls of 5 s each at most.
const TURN: Duration = Duration::from_secs(300);

/// The task that looks.
#[must_use]
pub fn verifier() -> Task {
    Task::new(NAME, NeededFor::Accepting).turns_within(TURN)
}

/// Looks at each destination, and declares it when that is allowed, until the stop.
pub async fn verify_destinations(relay: Relay) {
    let soft = relay.0.lifecycle.soft.clone();
    // A connection that is about to be there is no trouble worth a line.
    let connections = join_all(relay.0.brokers.values().map(|broker| broker.can_consume(FIRST)));
    let _stopped = soft.run_until_cancelled(connections).await;
    while !soft.is_cancelled() {
        let mut doubt = false;
        relay.0.lifecycle.watch.turn(NAME);
        for one in &relay.0.settings.destinations {
            relay.0.lifecycle.watch.turn(NAME);
            let Some(broker) = relay.0.brokers.get(&one.connection) else { continue };
            let answer = broker.ensure_queue(&one.queue).await;
            doubt |= answer.is_err();
            relay.0.board.note(&one.destination, answer.map(|_existed| ()).map_err(|error| with_causes(&error)));
        }
        let pause = if doubt { DOUBT } else { FINE };
        let mut waited = Duration::ZERO;
        // A returned message puts its destination in doubt at once.
        while waited < pause && !soft.is_cancelled() && (doubt || relay.0.board.all_verified()) {
            tokio::select! {
                () = tokio::time::sleep(DOUBT) => waited += DOUBT,
                () = soft.cancelled() => {}
            }
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
