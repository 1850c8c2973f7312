//! The janitor's rounds: what coordinators have left prepared is finished, on every instance (protocol §6).

use std::time::Duration;

use super::{Relay, Shared};
use crate::lifecycle::{NeededFor, Task};
pub use crate::txn::janitor::T_RECOVER;
use crate::txn::janitor::{Janitor, ROUND, Round};

/// Longest last round: a database that hangs must not hold up a stop.
const LAST: Duration = Duration::from_secs(2);

const NAME: &str = "recovery";
/// Each answer is waited for 5 s at most, those of one database one after the other: a hundred of them are slow, no hang.
const TURN: Duration = Duration::from_secs(1800);

/// The task that goes round.
#[must_use]
pub fn recovery() -> Task {
    Task::new(NAME, NeededFor::Processing).turns_within(TURN)
}

/// Goes round until the soft stop. Without another database there is nothing to do.
pub async fn recover(relay: Relay, shared: Shared) {
    let soft = relay.0.lifecycle.soft.clone();
    if relay.store().databases.is_empty() {
        return soft.cancelled().await;
    }
    while !soft.is_cancelled() {
        relay.0.lifecycle.watch.turn(NAME);
        go_round(&relay, &shared).await;
        tokio::select! {
            () = tokio::time::sleep(ROUND) => {}
            () = soft.cancelled() => {}
        }
    }
}

/// What was finished since the last round leaves no decision behind; to be called when nothing is in hand any more.
pub async fn last_round(relay: &Relay, shared: &Shared) {
    if relay.store().databases.is_empty() {
        return;
    }
    if tokio::time::timeout(LAST, go_round(relay, shared)).await.is_err() {
        tracing::debug!("the last round of recovery was not finished; the next instance goes on with it");
    }
}

async fn go_round(relay: &Relay, shared: &Shared) {
    let store = relay.store();
    let (Some(home), None, true) = (store.home(), shared.trouble(), shared.compared()) else { return };
    let janitor = Janitor { home, incarnation: store.incarnation, coordinators: store.coordinators.clone() };
    match janitor.round(&store.databases.participants(), store).await {
        Ok(round) => note(shared, round),
        Err(error) => tracing::debug!(%error, "nothing is recovered while the home database does not answer"),
    }
}

fn note(shared: &Shared, round: Round) {
    let oldest = round.in_doubt.iter().map(|(_, one)| one.age).max().unwrap_or_default();
    let before = shared.recovery();
    for (database, reason) in &round.unreachable {
        if !before.unreachable.iter().any(|(known, _)| known == database) {
            tracing::warn!(database, reason, "a database cannot be reached; what is prepared there waits");
        }
    }
    metrics::gauge!("posthaste_in_doubt").set(precise(round.in_doubt.len()));
    metrics::gauge!("posthaste_in_doubt_oldest_seconds").set(oldest.as_secs_f64());
    metrics::counter!("posthaste_recovered_total", "outcome" => "commit")
        .increment(round.committed.len().try_into().unwrap_or(u64::MAX));
    metrics::counter!("posthaste_recovered_total", "outcome" => "abort").increment(round.rolled_back);
    shared.set_recovery(round);
}

fn precise(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
