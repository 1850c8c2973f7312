//! The product's own decisions, asked about rows of the model.

use std::sync::LazyLock;
use std::time::Duration;

use posthaste::broker::PublishError;
use posthaste::inbound::verdict::{self, AfterFailure};
use posthaste::model::{AdapterName, Destination, Incarnation, JournalState, SlotId, TransactionAttribute, TxId};
use posthaste::pipeline::FailureKind;
use posthaste::receiver::ReceiverSettings;
use posthaste::receiver::attempt::{self, Entry, Unclaimed, Verdict};
use posthaste::relay::{AfterPublish, Facts, Next, after_publish as follows, decide, redo_after};
use posthaste::store::{JournalRow, OpenRow, StoreError};
use uuid::Uuid;

use super::postgres::{Age, Body, Database, Instance, Queue, Row, Tx};

pub const WATCH: Duration = Duration::from_secs(40);

pub static QUEUES: LazyLock<[Destination; 2]> =
    LazyLock::new(|| [Destination::queue("rabbit", "mine"), Destination::queue("rabbit", "other")]);

static SETTINGS: LazyLock<ReceiverSettings> = LazyLock::new(|| ReceiverSettings {
    adapter: AdapterName::new("a"),
    connection: "rabbit".to_owned(),
    queue: "mine".to_owned(),
    destination: QUEUES[0].clone(),
    transaction_attribute: TransactionAttribute::Required,
    transaction_timeout: Duration::from_secs(30),
    max_retries: 3,
    retry_delays: vec![Duration::from_secs(1)],
    retry_permanent_errors: false,
    num_threads: 1,
    group_size: 64,
    databases: Vec::new(),
    error_slot: SlotId::new("a"),
});

pub fn incarnation(instance: Instance) -> Incarnation {
    Incarnation(Uuid::from_u128(u128::from(instance) + 1))
}

/// How a message enters its attempt.
pub fn entry(redelivered: bool, attempts: u8) -> Entry {
    attempt::entry(redelivered, i32::from(attempts))
}

/// `max_attempts` as the program reads it: with the one that makes up for a stop.
fn max_attempts(db: &Database, row: &Row) -> i32 {
    i32::from(row.max_attempts) + i32::from(db.is_stopping(row.running_by))
}

/// `/* journal_row */`.
pub fn journal_row(db: &Database, tx: Tx) -> Option<JournalRow> {
    db.row(tx).map(|row| JournalRow {
        state: row.state,
        attempts: i32::from(row.attempts),
        max_attempts: max_attempts(db, row),
        destination: QUEUES[usize::from(row.queue)].as_str().to_owned(),
        sha256: vec![row.body],
        running_by: row.running_by.map(incarnation),
        due: row.due,
        runner_lives: db.is_live(row.running_by) && !row.overdue,
    })
}

/// What the row means for a delivery that was not claimed.
pub fn unclaimed(db: &Database, tx: Tx, queue: Queue, body: Body) -> Unclaimed {
    attempt::unclaimed(journal_row(db, tx).as_ref(), &QUEUES[usize::from(queue)], &[body])
}

/// What follows a failed attempt.
pub fn after_failed_attempt(kind: FailureKind, n: u8, max_attempts: u8) -> Verdict {
    attempt::after_failure(kind, i32::from(n), i32::from(max_attempts), &SETTINGS)
}

/// What follows a failed try of the accepting statement.
pub fn after_failed_acceptance(error: &StoreError, earlier_unknown: bool) -> AfterFailure {
    verdict::after_failure(error, earlier_unknown)
}

/// Whether a group that failed is known to have done nothing.
pub fn undone(error: &StoreError) -> bool {
    verdict::undone(error)
}

/// What a sweeper does next with an open row.
pub fn sweep(db: &Database, row: &Row, me: Instance, running_here: bool, queue_empty: bool) -> Next {
    let live: Vec<Incarnation> =
        (0..).zip(&db.live).filter(|(_, live)| **live).map(|(instance, _)| incarnation(instance)).collect();
    let seconds = Duration::from_secs;
    let open = OpenRow {
        tx_id: TxId(Uuid::from_u128(u128::from(row.tx))),
        destination: QUEUES[usize::from(row.queue)].clone(),
        mode: row.mode,
        state: row.state,
        attempts: i32::from(row.attempts),
        max_attempts: max_attempts(db, row),
        publishes: i32::from(row.publishes),
        owner: row.owner.map(incarnation),
        running_by: row.running_by.map(incarnation),
        started: row.running_by.map(|_| if row.overdue { WATCH + seconds(1) } else { seconds(0) }),
        published_at: (row.published != Age::Never).then_some(1),
        published: match row.published {
            Age::Never => None,
            Age::Fresh => Some(seconds(0)),
            Age::Old => Some(redo_after(i32::from(row.publishes)) + seconds(1)),
        },
        due: row.due,
        publish_due: row.publish_due,
        has_due_row: false,
    };
    let facts = Facts {
        live: &live,
        running_here,
        me: incarnation(me),
        watch: WATCH,
        known: true,
        served_here: true,
        served: true,
        publishable: true,
        queue_empty,
        seen: None,
    };
    decide(&open, &facts)
}

/// What follows a publish that was not confirmed. `refused`: the broker does not take that very message.
pub fn after_publish(refused: bool, publishes: u8) -> AfterPublish {
    let error = if refused { PublishError::Refused { reason: "406".into() } } else { PublishError::Nacked };
    follows(&error, i32::from(publishes))
}

/// Whether a row is published to the broker and not settled.
pub fn is_published(row: &Row) -> bool {
    row.state == JournalState::Published
}
