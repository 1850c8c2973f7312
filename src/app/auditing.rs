//! The audit of the journal: about once a day it looks at every row, whether anybody would find it if it is open (protocol §2,
//! I9). It has nothing to find; a mistake of ours, or a hand in the tables, heals here.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::lifecycle::{Lifecycle, NeededFor, Task};
use crate::model::TxId;
use crate::relay::Shared;
use crate::store::{AuditPage, Store};

/// How long a round through the whole journal takes.
const ROUND: Duration = Duration::from_secs(86_400);
/// Rows of one page.
const PAGE: u16 = 1000;
/// Before the first page, so that a start is over, and between two pages at least.
const BREATH: Duration = Duration::from_secs(1);
/// Between two pages at most: a small journal is looked at more often.
const LONGEST: Duration = Duration::from_secs(3600);
/// Ids that one log line names.
const NAMED: usize = 20;

const NAME: &str = "audit";
/// A page every hour at least, whose statement ends after 30 s.
const TURN: Duration = Duration::from_secs(2 * 3600);

pub(super) fn task() -> Task {
    Task::new(NAME, NeededFor::Neither).turns_within(TURN)
}

/// Audits until the stop; of several instances the oldest does.
pub(super) async fn audit(store: Store, shared: Shared, lifecycle: Lifecycle) {
    let mut after = somewhere(Uuid::now_v7(), Uuid::new_v4());
    let mut pause = BREATH;
    loop {
        lifecycle.watch.turn(NAME);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = lifecycle.soft.cancelled() => return,
        }
        if shared.trouble().is_some() || shared.live().into_iter().min() != Some(store.incarnation) {
            pause = LONGEST / 60;
            continue;
        }
        let began = Instant::now();
        match store.audit_journal(after, i64::from(PAGE)).await {
            Ok(page) => {
                tell(&page.found);
                pause = pause_after(began.elapsed(), &page);
                after = page.last.unwrap_or(Uuid::nil());
            }
            Err(error) => {
                tracing::debug!(%error, "audit of the journal interrupted");
                pause = LONGEST / 60;
            }
        }
    }
}

/// Where the first round begins: somewhere in the last eight days. Processes that never run for a whole day would look at
/// the same rows again and again.
fn somewhere(now: Uuid, dice: Uuid) -> Uuid {
    let span = 8 * ROUND.as_millis();
    Uuid::from_u128(now.as_u128().saturating_sub((dice.as_u128() % span) << 80))
}

fn tell(found: &[TxId]) {
    if !found.is_empty() {
        let named: Vec<String> = found.iter().take(NAMED).map(ToString::to_string).collect();
        metrics::counter!("posthaste_unwatched_found_total").increment(u64::try_from(found.len()).unwrap_or(u64::MAX));
        tracing::error!(
            count = found.len(),
            tx_ids = %named.join(" "),
            "open journal rows that nobody looked for; they are looked after from now on"
        );
    }
}

/// So that a round takes a day, and reading less than a hundredth of the time.
fn pause_after(took: Duration, page: &AuditPage) -> Duration {
    let pages = u32::try_from(page.rows / u64::from(PAGE)).unwrap_or(u32::MAX).saturating_add(1);
    (ROUND / pages).min(LONGEST).max(took.saturating_mul(100)).max(BREATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(millis: u64, rows: u64) -> Duration {
        pause_after(Duration::from_millis(millis), &AuditPage { found: Vec::new(), last: None, rows })
    }

    #[test]
    fn a_round_through_ten_million_rows_takes_a_day_and_less_than_a_hundredth_of_a_processor() {
        let each = pause(20, 10_000_000);
        assert!(each * 10_000 <= ROUND && each * 10_000 > ROUND * 9 / 10, "{each:?}");
        assert!(each >= 100 * Duration::from_millis(20));
        // Slower disks, or more rows: it takes longer, not more.
        assert_eq!(pause(200, 10_000_000), Duration::from_secs(20));
        assert_eq!(pause(20, 1_000_000_000), Duration::from_secs(2));
        assert_eq!(pause(0, u64::MAX), BREATH);
    }

    #[test]
    fn a_first_round_begins_somewhere_in_the_last_eight_days() {
        let now = Uuid::now_v7();
        let days = |dice| ((now.as_u128() - somewhere(now, Uuid::from_u128(dice)).as_u128()) >> 80) / ROUND.as_millis();
        assert_eq!(days(0), 0);
        assert_eq!(days(5 * ROUND.as_millis() + 1), 5);
        assert!(days(u128::MAX) < 8);
    }

    #[test]
    fn a_small_journal_is_looked_at_every_hour() {
        assert_eq!(pause(1, 0), LONGEST);
        assert_eq!(pause(1, 20_000), LONGEST);
        assert!(pause(1, 100_000) < LONGEST);
    }
}
