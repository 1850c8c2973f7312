//! What to do with an open row: pure (protocol §4, step 4; §5).

use std::time::Duration;

use crate::model::{Incarnation, JournalState, Mode};
use crate::store::OpenRow;

/// First wait before a published message is suspected lost; doubles with every redo.
pub const T_REDO: Duration = Duration::from_secs(10);
/// The longest such wait.
pub const T_REDO_MAX: Duration = Duration::from_secs(3600);
/// Publishes after which a message goes to the error store when the broker does not take that very message.
pub const MAX_PUBLISHES: i32 = 10;
/// The longest pause between two looks at a published message.
const LONGEST_LOOK: Duration = Duration::from_secs(600);
/// A look again soon.
const SOON: Duration = Duration::from_secs(1);

/// What is known besides the row.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Incarnations that are LIVE.
    pub live: &'a [Incarnation],
    /// This process is at work on the row.
    pub running_here: bool,
    pub me: Incarnation,
    /// How long an attempt may take.
    pub watch: Duration,
    /// This instance knows the destination.
    pub known: bool,
    /// A started receiver of this instance serves the destination.
    pub served_here: bool,
    /// A LIVE instance serves it.
    pub served: bool,
    /// Its connection takes messages.
    pub publishable: bool,
    /// Evidence of loss: the queue was empty before the row was read.
    pub queue_empty: bool,
    /// Evidence of loss: the latest `x-published-at` that any consumer of it has received, in microseconds.
    pub seen: Option<i64>,
}

/// What to do next with an open row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Claim it and publish it.
    Publish,
    /// Claim it and process it in this process.
    Dispatch,
    /// Its attempts are used up and nobody runs it: the error store.
    GiveUp,
    /// Nobody consumes its destination; an operator must say where it shall go.
    NoConsumer,
    /// Not yet.
    Later(Duration),
}

/// How long after its publish a message may be suspected lost.
#[must_use]
pub fn redo_after(publishes: i32) -> Duration {
    let doublings = u32::try_from(publishes.clamp(0, 12)).unwrap_or(0);
    T_REDO.saturating_mul(2_u32.saturating_pow(doublings)).min(T_REDO_MAX)
}

/// Decides. Republishing too often is harmless, silence is not.
#[must_use]
pub fn decide(row: &OpenRow, facts: &Facts<'_>) -> Next {
    if somebody_runs(row, facts) {
        return Next::Later(SOON);
    }
    if !row.due {
        return Next::Later(SOON);
    }
    if row.attempts >= row.max_attempts {
        return match (facts.known, facts.served) {
            (true, _) => Next::GiveUp,
            // Whoever serves it knows its error store.
            (false, true) => Next::Later(T_REDO),
            (false, false) => Next::NoConsumer,
        };
    }
    let owned = row.owner.is_some_and(|owner| facts.live.contains(&owner));
    match (row.mode, row.state) {
        (_, JournalState::Done | JournalState::Error) => Next::Later(SOON),
        (Mode::Direct, JournalState::Ready | JournalState::Published) => {
            if owned && !row.publish_due {
                Next::Later(SOON)
            } else if facts.served_here {
                Next::Dispatch
            } else if facts.served {
                Next::Later(SOON)
            } else {
                Next::NoConsumer
            }
        }
        (Mode::Own | Mode::Handover, JournalState::Ready) => {
            if owned && !row.publish_due {
                Next::Later(SOON)
            } else if !facts.known {
                Next::NoConsumer
            } else if facts.publishable {
                Next::Publish
            } else {
                Next::Later(SOON)
            }
        }
        (Mode::Handover, JournalState::Published) => Next::Later(T_REDO),
        (Mode::Own, JournalState::Published) => published(row, facts),
    }
}

/// A published message of ours is redone on evidence of loss alone.
fn published(row: &OpenRow, facts: &Facts<'_>) -> Next {
    let wait = redo_after(row.publishes);
    let age = row.published.unwrap_or(Duration::MAX);
    if age < wait {
        return Next::Later((wait - age).max(SOON));
    }
    if !facts.served || !facts.known {
        return Next::NoConsumer;
    }
    let margin = i64::try_from(T_REDO.as_micros()).unwrap_or(i64::MAX);
    let overtaken = match (facts.seen, row.published_at) {
        (Some(seen), Some(published_at)) => seen > published_at.saturating_add(margin),
        (Some(_) | None, None) | (None, Some(_)) => false,
    };
    if !(facts.queue_empty || overtaken) {
        // A long queue is full of old messages: they are looked at the less often the longer they wait.
        return Next::Later((age / 8).clamp(T_REDO, LONGEST_LOOK));
    }
    if facts.publishable { Next::Publish } else { Next::Later(SOON) }
}

fn somebody_runs(row: &OpenRow, facts: &Facts<'_>) -> bool {
    let Some(runner) = row.running_by else { return false };
    let overdue = row.started.is_none_or(|since| since > facts.watch);
    let here = runner != facts.me || facts.running_here;
    facts.live.contains(&runner) && here && !overdue
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Destination, TxId};

    const ME: Incarnation = Incarnation(uuid::Uuid::from_u128(1));
    const OTHER: Incarnation = Incarnation(uuid::Uuid::from_u128(2));
    const DEAD: Incarnation = Incarnation(uuid::Uuid::from_u128(3));

    fn row() -> OpenRow {
        OpenRow {
            tx_id: TxId::mint(),
            destination: Destination::queue("rabbit", "myQueue"),
            mode: Mode::Own,
            state: JournalState::Ready,
            attempts: 0,
            max_attempts: 6,
            publishes: 0,
            owner: Some(OTHER),
            running_by: None,
            started: None,
            published_at: None,
            published: None,
            due: true,
            publish_due: false,
            has_due_row: false,
        }
    }

    fn facts() -> Facts<'static> {
        Facts {
            live: &[ME, OTHER],
            running_here: false,
            me: ME,
            watch: Duration::from_secs(35),
            known: true,
            served_here: true,
            served: true,
            publishable: true,
            queue_empty: false,
            seen: None,
        }
    }

    fn published_row(age: Duration) -> OpenRow {
        OpenRow { state: JournalState::Published, published: Some(age), published_at: Some(1_000_000), ..row() }
    }

    #[test]
    fn a_row_of_a_living_owner_is_left_to_him_until_its_time_is_over() {
        assert_eq!(decide(&row(), &facts()), Next::Later(SOON));
        assert_eq!(decide(&OpenRow { publish_due: true, ..row() }, &facts()), Next::Publish);
    }

    #[test]
    fn a_row_of_nobody_is_published_at_once() {
        for owner in [None, Some(DEAD)] {
            assert_eq!(decide(&OpenRow { owner, ..row() }, &facts()), Next::Publish);
        }
    }

    #[test]
    fn a_delay_is_never_ignored() {
        assert_eq!(decide(&OpenRow { owner: None, due: false, ..row() }, &facts()), Next::Later(SOON));
    }

    #[test]
    fn a_published_message_is_redone_on_evidence_of_loss_alone() {
        let old = published_row(Duration::from_secs(60));
        assert_eq!(decide(&old, &facts()), Next::Later(T_REDO));
        assert_eq!(decide(&old, &Facts { queue_empty: true, ..facts() }), Next::Publish);
        assert_eq!(decide(&old, &Facts { seen: Some(12_000_000), ..facts() }), Next::Publish);
        assert_eq!(decide(&old, &Facts { seen: Some(11_000_000), ..facts() }), Next::Later(T_REDO));
        let fresh = published_row(Duration::from_secs(3));
        assert_eq!(decide(&fresh, &Facts { queue_empty: true, ..facts() }), Next::Later(Duration::from_secs(7)));
    }

    #[test]
    fn a_message_that_nobody_consumes_is_not_published_again() {
        let old = published_row(Duration::from_secs(60));
        assert_eq!(decide(&old, &Facts { served: false, queue_empty: true, ..facts() }), Next::NoConsumer);
    }

    #[test]
    fn exhausted_rows_wait_for_their_runner_and_then_go_to_the_error_store() {
        let exhausted = OpenRow { attempts: 6, started: Some(Duration::from_secs(1)), ..row() };
        let run = |running_by, running_here| {
            decide(&OpenRow { running_by, ..exhausted.clone() }, &Facts { running_here, ..facts() })
        };
        assert_eq!(run(Some(OTHER), false), Next::Later(SOON));
        assert_eq!(run(Some(ME), true), Next::Later(SOON));
        assert_eq!(run(Some(ME), false), Next::GiveUp);
        assert_eq!(run(Some(DEAD), false), Next::GiveUp);
        assert_eq!(run(None, false), Next::GiveUp);
        let overdue = OpenRow { running_by: Some(OTHER), started: Some(Duration::from_secs(60)), ..exhausted.clone() };
        assert_eq!(decide(&overdue, &facts()), Next::GiveUp);
    }

    #[test]
    fn however_often_it_was_published_in_vain_it_is_published_again() {
        let tired = OpenRow { publishes: MAX_PUBLISHES + 1, publish_due: true, ..row() };
        assert_eq!(decide(&tired, &facts()), Next::Publish);
    }

    #[test]
    fn what_the_error_store_refused_waits_for_its_time_and_for_somebody_who_knows_the_store() {
        let exhausted = OpenRow { attempts: 6, ..row() };
        assert_eq!(decide(&OpenRow { due: false, ..exhausted.clone() }, &facts()), Next::Later(SOON));
        let stranger = Facts { known: false, ..facts() };
        assert_eq!(decide(&exhausted, &stranger), Next::Later(T_REDO));
        assert_eq!(decide(&exhausted, &Facts { served: false, ..stranger }), Next::NoConsumer);
    }

    #[test]
    fn old_messages_of_a_long_queue_are_looked_at_less_often() {
        let look = |seconds| decide(&published_row(Duration::from_secs(seconds)), &facts());
        assert_eq!(look(800), Next::Later(Duration::from_secs(100)));
        assert_eq!(look(80_000), Next::Later(LONGEST_LOOK));
    }

    #[test]
    fn a_direct_row_is_processed_here_or_left_to_those_who_can() {
        let direct = OpenRow { mode: Mode::Direct, owner: Some(DEAD), ..row() };
        assert_eq!(decide(&direct, &facts()), Next::Dispatch);
        assert_eq!(decide(&direct, &Facts { served_here: false, ..facts() }), Next::Later(SOON));
        assert_eq!(decide(&direct, &Facts { served_here: false, served: false, ..facts() }), Next::NoConsumer);
    }

    #[test]
    fn the_wait_for_a_redo_doubles_up_to_an_hour() {
        assert_eq!(redo_after(0), Duration::from_secs(10));
        assert_eq!(redo_after(3), Duration::from_secs(80));
        assert_eq!(redo_after(40), T_REDO_MAX);
    }
}
