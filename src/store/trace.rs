//! One message's whole life by its business id.
//!
//! `MATERIALIZED` and `OFFSET 0` keep PostgreSQL to the index of the id, whatever its statistics say.

use std::collections::BTreeMap;

use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use super::lifecourse::{Attempt, AttemptOutcome, Cause, Leg, MessageState, Progress, state_of, true_attempts};
use super::names::Names;
use super::remove::WAITING;
use super::row::column;
use super::stored::{STORED_COLUMNS, StoredMessage, rows_of_id, stored_message};
use super::{Store, StoreError};
use crate::model::{Destination, Incarnation, JournalState, MessageId, Mode, RootId, TxId};

/// Most rows of one kind in a trace. An id that was used more often than this is shown in part.
const MAX_ROWS: i64 = 1000;

/// Everything on record about one business id.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    pub message_id: MessageId,
    /// Of several acceptances the most urgent one's state.
    pub state: MessageState,
    /// One for each acceptance of the id, oldest first.
    pub messages: Vec<TracedMessage>,
    /// The attempts of them all, in order of time.
    pub attempts: Vec<Attempt>,
}

/// One acceptance and all that descends from it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TracedMessage {
    pub root_id: RootId,
    pub state: MessageState,
    /// Rows of `ibisstore`, oldest first.
    pub store: Vec<StoredMessage>,
    pub journal: Vec<JournalEntry>,
    /// Over all resends, in order of time.
    pub attempts: Vec<Attempt>,
    pub audit: Vec<AuditRecord>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    pub tx_id: TxId,
    pub root_id: RootId,
    pub cause: Cause,
    #[serde(skip)]
    parent: Option<TxId>,
    pub mode: Mode,
    pub destination: Destination,
    pub state: JournalState,
    pub attempts: i32,
    pub max_attempts: i32,
    pub publishes: i32,
    pub not_before: Option<Timestamp>,
    pub publish_after: Option<Timestamp>,
    pub published_at: Option<Timestamp>,
    pub running_by: Option<Incarnation>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    pub at: Timestamp,
    pub who: String,
    pub what: String,
    pub target: String,
    pub why: Option<String>,
    pub root_id: Option<RootId>,
    pub outcome: Option<String>,
    pub detail: serde_json::Value,
}

impl AuditRecord {
    fn took_away_what_waited(&self) -> bool {
        let kind = self.detail.get("type").and_then(serde_json::Value::as_str);
        self.what == "delete" && kind.is_some_and(|kind| WAITING.contains(&kind))
    }
}

impl Store {
    /// All there is about one business id, from one snapshot; None when nothing is.
    pub async fn trace(&self, message_id: &MessageId) -> Result<Option<Trace>, StoreError> {
        self.house
            .transaction(async |client| {
                client.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                read_trace(client, &self.names, message_id).await
            })
            .await
    }
}

async fn read_trace(
    client: &ClientWrapper,
    names: &Names,
    message_id: &MessageId,
) -> Result<Option<Trace>, StoreError> {
    let roots = roots(client, names, message_id).await?;
    if roots.is_empty() {
        return Ok(None);
    }
    let stored = stored(client, names, message_id, &roots).await?;
    let journal = journal(client, &roots).await?;
    let attempts = attempts(client, &roots, &journal).await?;
    let audit = audit(client, &roots).await?;
    let messages: Vec<_> = roots.iter().map(|root| traced(*root, &stored, &journal, &attempts, &audit)).collect();
    let state = messages.iter().map(|message| message.state).min().unwrap_or(MessageState::Processed);
    let attempts = attempts.into_iter().map(|(_root, attempt)| attempt).collect();
    Ok(Some(Trace { message_id: message_id.clone(), state, messages, attempts }))
}

/// What belongs to one acceptance.
fn traced(
    root_id: RootId,
    stored: &[StoredMessage],
    journal: &[JournalEntry],
    attempts: &[(RootId, Attempt)],
    audit: &[AuditRecord],
) -> TracedMessage {
    let store: Vec<_> = stored.iter().filter(|row| row.root_id == root_id).cloned().collect();
    let journal: Vec<_> = journal.iter().filter(|entry| entry.root_id == root_id).cloned().collect();
    let waiting: Vec<_> = store.iter().map(|row| row.kind).collect();
    let legs: Vec<_> = journal.iter().map(JournalEntry::leg).collect();
    let attempts = attempts.iter().filter(|(root, _)| *root == root_id).map(|(_, attempt)| attempt.clone()).collect();
    let audit: Vec<_> = audit.iter().filter(|record| record.root_id == Some(root_id)).cloned().collect();
    let deleted = audit.iter().any(AuditRecord::took_away_what_waited);
    TracedMessage { root_id, state: state_of(&waiting, deleted, &legs), store, journal, attempts, audit }
}

/// Acceptances of the id: of its stored rows, of rows whose body is kept apart, of messages that others sent.
async fn roots(client: &ClientWrapper, names: &Names, message_id: &MessageId) -> Result<Vec<RootId>, StoreError> {
    let sql = format!(
        "/* trace_roots */
        WITH stored AS MATERIALIZED ({}),
             apart AS MATERIALIZED (SELECT tx_id FROM posthaste.payload WHERE message_id = $1)
        SELECT root_id FROM stored
        UNION
        SELECT j.root_id FROM apart CROSS JOIN LATERAL (
            SELECT root_id FROM posthaste.journal WHERE tx_id = apart.tx_id OFFSET 0) j
        ORDER BY root_id DESC LIMIT $2",
        rows_of_id("root_id", "$1")
    );
    let rows = client.query(&names.of(&sql), &[&message_id.as_str(), &MAX_ROWS]).await?;
    let mut roots =
        rows.iter().map(|row| Ok(RootId(column(row, "root_id")?))).collect::<Result<Vec<_>, StoreError>>()?;
    roots.reverse();
    Ok(roots)
}

async fn stored(
    client: &ClientWrapper,
    names: &Names,
    message_id: &MessageId,
    roots: &[RootId],
) -> Result<Vec<StoredMessage>, StoreError> {
    let sql = format!(
        "/* trace_stored */
        WITH same_id AS MATERIALIZED ({}),
             waiting AS MATERIALIZED (
                 SELECT {STORED_COLUMNS} FROM :ibisstore
                 WHERE root_id = ANY($2) AND type IN ('E', 'H', 'I', 'M') AND messageid <> $1)
        SELECT * FROM same_id UNION ALL SELECT * FROM waiting ORDER BY messagekey LIMIT $3",
        rows_of_id(STORED_COLUMNS, "$1")
    );
    let rows = client.query(&names.of(&sql), &[&message_id.as_str(), &uuids(roots), &MAX_ROWS]).await?;
    rows.iter().map(stored_message).collect()
}

async fn journal(client: &ClientWrapper, roots: &[RootId]) -> Result<Vec<JournalEntry>, StoreError> {
    let sql = "/* trace_journal */
        SELECT j.tx_id, j.root_id, l.cause, l.parent_id, j.mode, j.destination, j.state, j.attempts, j.max_attempts, j.publishes,
               j.not_before, j.publish_after, j.published_at, j.running_by, j.started_at, j.finished_at
        FROM posthaste.journal j LEFT JOIN posthaste.lineage l ON l.root_id = j.root_id AND l.tx_id = j.tx_id
        WHERE j.tx_id = ANY($1 || ARRAY(SELECT tx_id FROM posthaste.lineage WHERE root_id = ANY($1)))
        ORDER BY j.tx_id LIMIT $2";
    let rows = client.query(sql, &[&uuids(roots), &MAX_ROWS]).await?;
    rows.iter().map(journal_entry).collect()
}

/// Attempts with their acceptance, in order of time. Their journal row may have been cleaned before them.
async fn attempts(
    client: &ClientWrapper,
    roots: &[RootId],
    journal: &[JournalEntry],
) -> Result<Vec<(RootId, Attempt)>, StoreError> {
    let sql = "/* trace_attempts */
        WITH own AS (
            SELECT root_id, root_id AS tx_id FROM unnest($1::uuid[]) AS t(root_id)
            UNION
            SELECT root_id, tx_id FROM posthaste.lineage WHERE root_id = ANY($1)
        )
        SELECT own.root_id, a.tx_id, a.n, a.adapter, a.step, a.started_at, a.finished_at, a.outcome, a.error,
               a.instance, a.instance IS NOT NULL AND i.state IS DISTINCT FROM 'LIVE' AS dead,
               a.outcome = 'RUNNING' AND i.state = 'FENCED' AND i.stopping_at IS NOT NULL AS stopped
        FROM own CROSS JOIN LATERAL (SELECT * FROM posthaste.attempt WHERE tx_id = own.tx_id OFFSET 0) a
        LEFT JOIN posthaste.instance i ON i.incarnation = a.instance
        ORDER BY a.started_at, a.n LIMIT $2";
    let rows = client.query(sql, &[&uuids(roots), &MAX_ROWS]).await?;
    let of_entry = |entry: &JournalEntry| ((entry.root_id, entry.tx_id), (Some(entry.progress()), Vec::new()));
    let mut by_row: BTreeMap<(RootId, TxId), (Option<Progress>, Vec<Attempt>)> = journal.iter().map(of_entry).collect();
    let (mut dead, mut stopped) = (Vec::new(), Vec::new());
    for row in &rows {
        let attempt = attempt(row)?;
        if column(row, "dead")? {
            dead.push((attempt.tx_id, attempt.n));
        }
        if column::<Option<bool>>(row, "stopped")? == Some(true) {
            stopped.push((attempt.tx_id, attempt.n));
        }
        by_row.entry((RootId(column(row, "root_id")?), attempt.tx_id)).or_default().1.push(attempt);
    }
    let is_dead = |attempt: &Attempt| dead.contains(&(attempt.tx_id, attempt.n));
    let mut all = Vec::with_capacity(rows.len());
    for ((root, _tx_id), (progress, rows)) in by_row {
        let attempts = true_attempts(progress, rows, is_dead).into_iter().map(|attempt| match attempt.outcome {
            AttemptOutcome::Crashed if stopped.contains(&(attempt.tx_id, attempt.n)) => {
                Attempt { outcome: AttemptOutcome::Stopped, ..attempt }
            }
            AttemptOutcome::Running
            | AttemptOutcome::Failed
            | AttemptOutcome::Succeeded
            | AttemptOutcome::Crashed
            | AttemptOutcome::Stopped => attempt,
        });
        all.extend(attempts.map(|attempt| (root, attempt)));
    }
    all.sort_by_key(|(_root, attempt)| (attempt.started_at.or(attempt.finished_at), attempt.tx_id, attempt.n));
    Ok(all)
}

async fn audit(client: &ClientWrapper, roots: &[RootId]) -> Result<Vec<AuditRecord>, StoreError> {
    let sql = "/* trace_audit */
        SELECT at, who, what, target, why, root_id, outcome, detail FROM posthaste.audit
        WHERE root_id = ANY($1) ORDER BY id LIMIT $2";
    let rows = client.query(sql, &[&uuids(roots), &MAX_ROWS]).await?;
    rows.iter()
        .map(|row| {
            Ok(AuditRecord {
                at: column(row, "at")?,
                who: column(row, "who")?,
                what: column(row, "what")?,
                target: column(row, "target")?,
                why: column(row, "why")?,
                root_id: column::<Option<Uuid>>(row, "root_id")?.map(RootId),
                outcome: column(row, "outcome")?,
                detail: column(row, "detail")?,
            })
        })
        .collect()
}

fn uuids(roots: &[RootId]) -> Vec<Uuid> {
    roots.iter().map(|root| root.0).collect()
}

impl JournalEntry {
    fn leg(&self) -> Leg {
        let Self { tx_id, cause, parent, mode, state, attempts, .. } = *self;
        Leg { tx_id, cause, parent, mode, state, attempts }
    }

    fn progress(&self) -> Progress {
        Progress {
            tx_id: self.tx_id,
            mode: self.mode,
            state: self.state,
            attempts: self.attempts,
            started_at: self.started_at,
            finished_at: self.finished_at,
        }
    }
}

fn journal_entry(row: &Row) -> Result<JournalEntry, StoreError> {
    let leg = leg(row, TxId(column(row, "tx_id")?))?;
    Ok(JournalEntry {
        tx_id: leg.tx_id,
        root_id: RootId(column(row, "root_id")?),
        cause: leg.cause,
        parent: leg.parent,
        mode: leg.mode,
        destination: Destination::new(column(row, "destination")?),
        state: leg.state,
        attempts: leg.attempts,
        max_attempts: column(row, "max_attempts")?,
        publishes: column(row, "publishes")?,
        not_before: column(row, "not_before")?,
        publish_after: column(row, "publish_after")?,
        published_at: column(row, "published_at")?,
        running_by: column::<Option<Uuid>>(row, "running_by")?.map(Incarnation),
        started_at: column(row, "started_at")?,
        finished_at: column(row, "finished_at")?,
    })
}

pub(super) fn leg(row: &Row, tx_id: TxId) -> Result<Leg, StoreError> {
    let unexpected = |what: &str, text: &str| StoreError::Unexpected(format!("{what} is {text:?}"));
    let (cause, mode, state): (Option<&str>, &str, &str) =
        (column(row, "cause")?, column(row, "mode")?, column(row, "state")?);
    Ok(Leg {
        tx_id,
        cause: Cause::from_lineage(cause).ok_or_else(|| unexpected("lineage.cause", cause.unwrap_or_default()))?,
        parent: column::<Option<Uuid>>(row, "parent_id")?.map(TxId),
        mode: Mode::from_text(mode).ok_or_else(|| unexpected("journal.mode", mode))?,
        state: JournalState::from_text(state).ok_or_else(|| unexpected("journal.state", state))?,
        attempts: column(row, "attempts")?,
    })
}

fn attempt(row: &Row) -> Result<Attempt, StoreError> {
    let outcome: &str = column(row, "outcome")?;
    Ok(Attempt {
        tx_id: TxId(column(row, "tx_id")?),
        n: column(row, "n")?,
        adapter: column(row, "adapter")?,
        step: column(row, "step")?,
        started_at: column(row, "started_at")?,
        finished_at: column(row, "finished_at")?,
        outcome: AttemptOutcome::from_text(outcome)
            .ok_or_else(|| StoreError::Unexpected(format!("attempt.outcome is {outcome:?}")))?,
        error: column(row, "error")?,
        instance: column::<Option<Uuid>>(row, "instance")?.map(Incarnation),
    })
}
