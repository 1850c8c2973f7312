//! Clean-up beside the work: a batch at a time, and as long a pause.

use std::time::{Duration, Instant};

use super::steady::{Look, SteadyClock};
use crate::lifecycle::{Lifecycle, NeededFor, Task};
use crate::store::{Part, Retention, Store};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(60);
/// How often a round looks again at what earlier ones had to leave.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
/// A batch should not take longer: who accepts a repeat of an id that is being removed waits for the batch, and a group
/// gives up after 200 ms (protocol §7).
const LONGEST: Duration = Duration::from_millis(50);
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

const NAME: &str = "clean-up";
/// A batch's statements end after 30 s each, and it may pause for a minute.
const TURN: Duration = Duration::from_secs(600);

pub(super) fn task() -> Task {
    Task::new(NAME, NeededFor::Processing).turns_within(TURN)
}

/// A part, and the rows of its next batch.
struct Pace {
    part: Part,
    rows: i64,
}

/// Removes what is past its time, until the stop.
pub(super) async fn keep_clean(store: Store, lifecycle: Lifecycle, clock: &mut SteadyClock) {
    let retention = Retention::default();
    let mut paces: Vec<Pace> = Vec::new();
    let mut looked_again = Instant::now();
    loop {
        lifecycle.watch.turn(NAME);
        match store.parts_to_clean().await {
            Ok(parts) => paces = known(paces, parts, retention.batch),
            Err(error) => tracing::debug!(%error, "clean-up interrupted"),
        }
        let again = looked_again.elapsed() >= LOOK_AGAIN;
        if again {
            looked_again = Instant::now();
        }
        for pace in &mut paces {
            if again {
                pace.part.look_again();
            }
            if !round(&store, &lifecycle, retention, pace, clock).await {
                return;
            }
        }
        if !pause(&lifecycle, ROUND).await {
            return;
        }
    }
}

/// Those that there are now, each where it stood.
fn known(paces: Vec<Pace>, parts: Vec<Part>, rows: i64) -> Vec<Pace> {
    let mut before = paces;
    let place = |part: Part| match before.iter().position(|pace| pace.part.is_same(&part)) {
        Some(at) => before.swap_remove(at),
        None => Pace { part, rows },
    };
    parts.into_iter().map(place).collect()
}

/// Batches of one part until there is no more. `false`: the stop has come.
async fn round(
    store: &Store,
    lifecycle: &Lifecycle,
    retention: Retention,
    pace: &mut Pace,
    clock: &mut SteadyClock,
) -> bool {
    let mut more = true;
    while more {
        lifecycle.watch.turn(NAME);
        let began = Instant::now();
        let believed = |micros| believed(clock.look(micros, Instant::now()));
        let answer = store.clean_by(&mut pace.part, retention, pace.rows, believed).await;
        let took = began.elapsed();
        let rows = rows_after(pace.rows, took).min(retention.batch);
        more = match answer {
            Ok(batch) => batch.is_some_and(|batch| batch.more),
            Err(error) => {
                tracing::debug!(%error, rows = pace.rows, "clean-up interrupted");
                rows < pace.rows
            }
        };
        pace.rows = rows;
        if !pause(lifecycle, pause_after(took)).await {
            return false;
        }
    }
    pace.part.end_round();
    true
}

/// A clock that has jumped is told, and not believed for an hour.
fn believed(look: Look) -> bool {
    match look {
        Look::Steady => true,
        Look::Settling => false,
        Look::Jumped(micros) => {
            let seconds = micros / 1_000_000;
            tracing::warn!(
                seconds,
                "the database's clock has jumped: nothing is cleaned up until it has gone steadily for an hour"
            );
            false
        }
    }
}

/// How many rows come next, after a batch of so many took so long: bodies of a megabyte take a thousand times as long as
/// small ones.
fn rows_after(rows: i64, took: Duration) -> i64 {
    if took > LONGEST {
        (rows / 2).max(1)
    } else if took < LONGEST / 4 {
        rows.saturating_mul(2)
    } else {
        rows
    }
}

/// As long as the batch took: half of the time, of what it takes of the disk and the processors, is left to others.
fn pause_after(took: Duration) -> Duration {
    took.clamp(PAUSE.0, PAUSE.1)
}

/// `false`: the stop has come.
async fn pause(lifecycle: &Lifecycle, pause: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(pause) => true,
        () = lifecycle.soft.cancelled() => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn a_batch_that_takes_too_long_is_followed_by_smaller_ones_and_one_that_is_quick_by_larger_ones() {
        assert_eq!(rows_after(1000, 51 * MILLISECOND), 500);
        assert_eq!(rows_after(1000, 50 * MILLISECOND), 1000);
        assert_eq!(rows_after(1000, 13 * MILLISECOND), 1000);
        assert_eq!(rows_after(1000, 12 * MILLISECOND), 2000);
        assert_eq!(rows_after(1, Duration::MAX), 1, "it always goes on");
        assert_eq!(rows_after(i64::MAX, Duration::ZERO), i64::MAX);
        // Rows of 3 ms each.
        let mut rows = 1000;
        for _ in 0..20 {
            rows = rows_after(rows, u32::try_from(rows).unwrap() * 3 * MILLISECOND);
        }
        assert!((4..=16).contains(&rows), "{rows}");
    }

    #[test]
    fn the_pause_is_as_long_as_the_batch_within_bounds() {
        assert_eq!(pause_after(Duration::ZERO), 5 * MILLISECOND);
        assert_eq!(pause_after(20 * MILLISECOND), 20 * MILLISECOND);
        assert_eq!(pause_after(Duration::from_secs(9)), Duration::from_secs(1));
    }
}
