//! What makes an attempt count, and what takes that back (protocol §5).

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::receive::comment;
use super::{FailedAttempt, Store, StoreError};
use crate::model::{Destination, TxId};

/// Whether the instance at work on a row was told to stop: what it leaves behind does not count.
macro_rules! stopped {
    ($runner:literal) => {
        concat!(
            "EXISTS (SELECT FROM posthaste.instance i WHERE i.incarnation = ",
            $runner,
            " AND i.stopping_at IS NOT NULL)"
        )
    };
}
pub(super) use stopped;

/// Which start is wanted.
#[derive(Debug, Clone, Copy)]
pub struct StartRequest<'a> {
    pub tx_id: TxId,
    pub destination: &'a Destination,
    pub sha256: &'a [u8],
    pub adapter: &'a str,
    /// How long an attempt may take; a runner that is overdue counts as nobody, and its own fence stops it.
    pub watch: Duration,
    /// As configured: what the row has beyond it was excused.
    pub max_attempts: i32,
    /// Nothing else that needs it is tried beside it.
    pub alone: bool,
}

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Committed: from now on attempt `n` counts, whatever ends it.
    Begun { n: i32, max_attempts: i32 },
    /// The row is locked, not due, exhausted, running or gone: read it.
    NotNow,
    /// Nothing was written: its process died in it, or it was excused twice, or this is its only attempt. Again, alone.
    Alone,
}

/// Why an attempt is made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excuse {
    /// The database ended it.
    Database,
    /// This instance was told to stop.
    Stop,
}

/// A row that was noted and never counted has its first attempt behind it; unless a process died in it, that is excused.
const START: &str = concat!(
    "/* start */
WITH seen AS (
    SELECT tx_id, attempts, max_attempts, running_by AS runner, started_at, ",
    stopped!("running_by"),
    " AS stopped,
           running_by IS NOT NULL
               AND running_by <> ALL (SELECT incarnation FROM posthaste.instance WHERE state = 'LIVE')
               AND NOT ",
    stopped!("running_by"),
    " AS died
    FROM posthaste.journal
    WHERE tx_id = $1 AND destination = $2 AND sha256 = $3 AND state IN ('READY', 'PUBLISHED')
      AND (not_before IS NULL OR not_before <= clock_timestamp())
      AND attempts < max_attempts + ",
    stopped!("running_by"),
    "::int
      AND (running_by IS NULL OR running_by <> ALL (SELECT incarnation FROM posthaste.instance WHERE state = 'LIVE')
           OR running_by = $4 OR started_at < clock_timestamp() - $6 * interval '1 second')
    FOR NO KEY UPDATE SKIP LOCKED),
open AS (
    SELECT tx_id, runner, started_at, stopped, died,
           attempts = 0 AND runner IS NOT NULL AND NOT stopped AND max_attempts > 1 AS among_others
    FROM seen WHERE $7 OR NOT (died OR max_attempts - $8 >= 2 OR attempts = 0 AND max_attempts = 1)),
begun AS (
    UPDATE posthaste.journal j
    SET attempts = j.attempts + 1 + open.among_others::int,
        max_attempts = j.max_attempts + (stopped AND j.attempts > 0 OR among_others AND NOT died)::int,
        running_by = $4, started_at = clock_timestamp()
    FROM open WHERE j.tx_id = open.tx_id
    RETURNING j.tx_id, j.attempts, j.max_attempts, open.stopped, open.among_others, open.died, open.runner,
              open.started_at AS began),
lost AS (
    UPDATE posthaste.attempt a
    SET outcome = CASE WHEN begun.stopped THEN 'STOPPED' ELSE 'CRASHED' END, finished_at = clock_timestamp(),
        error = coalesce(a.error, CASE WHEN begun.stopped THEN 'the instance was stopped' END)
    FROM begun WHERE a.tx_id = begun.tx_id AND a.outcome = 'RUNNING' AND a.n < begun.attempts),
kept AS (
    INSERT INTO posthaste.attempt (tx_id, n, adapter, started_at, finished_at, outcome, error, instance)
    SELECT tx_id, attempts, $5::text, clock_timestamp(), NULL::timestamptz, 'RUNNING', NULL::text, $4::uuid FROM begun
    UNION ALL
    SELECT tx_id, 1, $5::text, began, clock_timestamp(), CASE WHEN died THEN 'CRASHED' ELSE 'FAILED' END,
           CASE WHEN died THEN 'the process ended while it was tried among others'
                ELSE 'a server was lost while it was tried among others' END, runner
    FROM begun WHERE among_others
    ON CONFLICT DO NOTHING),
watched AS (
    INSERT INTO posthaste.due (tx_id, at) SELECT tx_id, clock_timestamp() + $6 * interval '1 second' FROM begun
    ON CONFLICT (tx_id) DO UPDATE SET at = excluded.at)
SELECT begun.attempts, begun.max_attempts FROM seen LEFT JOIN begun USING (tx_id)"
);

/// Only rows that nobody has noted or counted: whoever stands here for the second time is started singly.
const NOTE: &str = concat!(
    "/* note */
WITH open AS (
    SELECT tx_id FROM posthaste.journal
    WHERE tx_id = ANY ($1) AND destination = $2 AND attempts = 0 AND max_attempts > 1 AND state IN ('READY', 'PUBLISHED')
      AND (not_before IS NULL OR not_before <= clock_timestamp())
      AND (running_by IS NULL OR ",
    stopped!("running_by"),
    " AND running_by <> ALL (SELECT incarnation FROM posthaste.instance WHERE state = 'LIVE'))
    ORDER BY tx_id FOR NO KEY UPDATE SKIP LOCKED)
UPDATE posthaste.journal j SET running_by = $3, started_at = clock_timestamp()
FROM open WHERE j.tx_id = open.tx_id RETURNING j.tx_id"
);

const EXCUSE: &str = "/* excuse */
WITH excused AS (
    UPDATE posthaste.journal SET attempts = $4, max_attempts = max_attempts + 1, running_by = NULL
    WHERE tx_id = $1 AND destination = $2 AND attempts = $3 AND state IN ('READY', 'PUBLISHED')
      AND (running_by = $5 OR attempts = 0 AND running_by IS NULL)
    RETURNING tx_id)
INSERT INTO posthaste.attempt (tx_id, n, adapter, step, started_at, finished_at, outcome, error, instance)
SELECT tx_id, $4, $6, $7, clock_timestamp() - $8 * interval '1 second', clock_timestamp(), $9, $10, $5 FROM excused
ON CONFLICT (tx_id, n) DO UPDATE
SET outcome = excluded.outcome, finished_at = excluded.finished_at, step = excluded.step, error = excluded.error
RETURNING tx_id";

impl Store {
    /// Commits a start, or says why not.
    pub async fn start(&self, request: &StartRequest<'_>) -> Result<Start, StoreError> {
        self.at_home()?;
        self.work
            .run(async |client| {
                // Planned each time, here and below: a plan that was made while the journal was small reads all of it when it
                // has grown.
                let rows = client
                    .query_typed(
                        START,
                        &[
                            (&request.tx_id.0, Type::UUID),
                            (&request.destination.as_str(), Type::TEXT),
                            (&request.sha256, Type::BYTEA),
                            (&self.incarnation.0, Type::UUID),
                            (&request.adapter, Type::TEXT),
                            (&request.watch.as_secs_f64(), Type::FLOAT8),
                            (&request.alone, Type::BOOL),
                            (&request.max_attempts, Type::INT4),
                        ],
                    )
                    .await?;
                let Some(row) = rows.first() else { return Ok(Start::NotNow) };
                Ok(match (row.get(0), row.get(1)) {
                    (Some(n), Some(max_attempts)) => Start::Begun { n, max_attempts },
                    (_, None) | (None, _) => Start::Alone,
                })
            })
            .await
    }

    /// Notes, before they are tried among others, messages that may have been tried before: should this process die,
    /// this is the evidence of what it had in hand. Answers which were noted; the others are to be started.
    pub async fn note_in_hand(&self, tx_ids: &[TxId], destination: &Destination) -> Result<BTreeSet<TxId>, StoreError> {
        self.at_home()?;
        let tx_ids: Vec<Uuid> = tx_ids.iter().map(|tx_id| tx_id.0).collect();
        let destination = destination.as_str();
        self.work
            .run(async |client| {
                let params: [(&(dyn ToSql + Sync), Type); 3] =
                    [(&tx_ids, Type::UUID_ARRAY), (&destination, Type::TEXT), (&self.incarnation.0, Type::UUID)];
                let noted = client.query_typed(NOTE, &params).await?;
                Ok(noted.iter().map(|row| TxId(row.get(0))).collect())
            })
            .await
    }

    /// Gives a message another attempt for one that the database or a stop ended: `attempts` is the fence and never goes
    /// back. `false`: overtaken; nothing written.
    pub async fn excuse(&self, ended: &FailedAttempt<'_>, excuse: Excuse) -> Result<bool, StoreError> {
        let outcome = match excuse {
            Excuse::Database => "FAILED",
            Excuse::Stop => "STOPPED",
        };
        let error = comment(ended.error);
        self.work
            .run(async |client| {
                let written = client
                    .query_typed(
                        EXCUSE,
                        &[
                            (&ended.tx_id.0, Type::UUID),
                            (&ended.destination.as_str(), Type::TEXT),
                            (&ended.seen, Type::INT4),
                            (&ended.n, Type::INT4),
                            (&self.incarnation.0, Type::UUID),
                            (&ended.adapter, Type::TEXT),
                            (&ended.step, Type::TEXT),
                            (&ended.took.as_secs_f64(), Type::FLOAT8),
                            (&outcome, Type::TEXT),
                            (&error, Type::TEXT),
                        ],
                    )
                    .await?;
                Ok(!written.is_empty())
            })
            .await
    }
}
