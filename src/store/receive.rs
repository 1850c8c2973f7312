//! What a receiver writes outside the attempt's own transaction: retries, parking (protocol §5).

use std::time::Duration;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::start::stopped;
use super::{Store, StoreError};
use crate::model::{Destination, Envelope, Incarnation, JournalState, SlotId, TxId};

/// A journal row as it is decided upon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRow {
    pub state: JournalState,
    pub attempts: i32,
    /// With the one that makes up for a stop, when the row's runner was told to stop.
    pub max_attempts: i32,
    pub destination: String,
    pub sha256: Vec<u8>,
    pub running_by: Option<Incarnation>,
    /// Whether `not_before` is past, by the database's clock.
    pub due: bool,
    /// Whether `running_by` is a LIVE instance and its attempt not overdue.
    pub runner_lives: bool,
}

/// One failed attempt, as it is recorded.
#[derive(Debug, Clone)]
pub struct FailedAttempt<'a> {
    pub tx_id: TxId,
    pub destination: &'a Destination,
    /// The fence: `attempts` as it stands in the row.
    pub seen: i32,
    /// The attempt's number, counted from 1; what `attempts` becomes.
    pub n: i32,
    pub adapter: &'a str,
    pub step: Option<&'a str>,
    pub error: &'a str,
    /// How long it took.
    pub took: Duration,
}

/// Longest text in `ibisstore.comments` and `attempt.error`, in characters.
const MAX_COMMENT: usize = 1000;

const RETRY: &str = "/* retry */
WITH failed AS (
    UPDATE posthaste.journal
    SET state = 'READY', attempts = $4, max_attempts = max_attempts + $11, owner = NULL, running_by = NULL, publish_after = NULL, publishes = 0,
        published_at = NULL, not_before = clock_timestamp() + $5 * interval '1 second'
    WHERE tx_id = $1 AND destination = $2 AND attempts = $3 AND state IN ('READY', 'PUBLISHED')
    RETURNING tx_id, not_before),
kept AS (
    INSERT INTO posthaste.attempt (tx_id, n, adapter, step, started_at, finished_at, outcome, error, instance)
    SELECT tx_id, $4, $6, $7, clock_timestamp() - $8 * interval '1 second', clock_timestamp(), 'FAILED', $9, $10 FROM failed
    ON CONFLICT (tx_id, n) DO UPDATE
    SET outcome = 'FAILED', finished_at = excluded.finished_at, step = excluded.step, error = excluded.error),
watched AS (
    INSERT INTO posthaste.due (tx_id, at) SELECT tx_id, not_before FROM failed
    ON CONFLICT (tx_id) DO UPDATE SET at = excluded.at)
SELECT 1 FROM failed";

impl Store {
    /// The row, for deciding what a delivery without a claim means. `None`: there is none. A settled one stays, whatever
    /// becomes of this server: its delivery is about to be acknowledged, and the broker forgets it.
    pub async fn journal_row(&self, tx_id: TxId, watch: Duration) -> Result<Option<JournalRow>, StoreError> {
        let seen = self
            .work
            .run(async |client| {
                let row = client
                    .query_opt(
                        concat!(
                            "/* journal_row */
                         SELECT current_setting('synchronous_standby_names') <> '' AS standby, j.state, j.attempts, j.max_attempts + ",
                            stopped!("j.running_by"),
                            "::int AS max_attempts, j.destination, j.sha256, j.running_by,
                                j.not_before IS NULL OR j.not_before <= clock_timestamp() AS due,
                                EXISTS (SELECT FROM posthaste.instance i
                                        WHERE i.incarnation = j.running_by AND i.state = 'LIVE')
                                AND j.started_at >= clock_timestamp() - $2 * interval '1 second' AS runner_lives
                         FROM posthaste.journal j WHERE j.tx_id = $1"
                        ),
                        &[&tx_id.0, &watch.as_secs_f64()],
                    )
                    .await?;
                row.map(|row| Ok((journal_row_of(&row)?, row.try_get::<_, bool>("standby")?))).transpose()
            })
            .await?;
        let Some((row, standby)) = seen else { return Ok(None) };
        match row.state {
            JournalState::Done | JournalState::Error if standby => self.durable().await?,
            JournalState::Done | JournalState::Error | JournalState::Ready | JournalState::Published => {}
        }
        Ok(Some(row))
    }

    /// One synchronous transaction: the attempt, and READY again after the delay. `false`: overtaken, nothing written.
    pub async fn retry(&self, failed: &FailedAttempt<'_>, delay: Duration) -> Result<bool, StoreError> {
        self.again(failed, delay, 0).await
    }

    /// The same, and the attempt does not count: another is added.
    pub async fn retry_excused(&self, failed: &FailedAttempt<'_>, delay: Duration) -> Result<bool, StoreError> {
        self.again(failed, delay, 1).await
    }

    async fn again(&self, failed: &FailedAttempt<'_>, delay: Duration, more: i32) -> Result<bool, StoreError> {
        let error = comment(failed.error);
        self.work
            .run(async |client| {
                let rows = client
                    .query_typed(
                        RETRY,
                        &[
                            (&failed.tx_id.0, Type::UUID),
                            (&failed.destination.as_str(), Type::TEXT),
                            (&failed.seen, Type::INT4),
                            (&failed.n, Type::INT4),
                            (&delay.as_secs_f64(), Type::FLOAT8),
                            (&failed.adapter, Type::TEXT),
                            (&failed.step, Type::TEXT),
                            (&failed.took.as_secs_f64(), Type::FLOAT8),
                            (&error, Type::TEXT),
                            (&self.incarnation.0, Type::UUID),
                            (&more, Type::INT4),
                        ],
                    )
                    .await?;
                Ok(!rows.is_empty())
            })
            .await
    }

    /// Puts a message that cannot be processed on hold (type H), once, with the reason. Answers whether it is new.
    pub async fn park(
        &self,
        envelope: &Envelope,
        slot_id: &SlotId,
        host: &str,
        reason: &str,
    ) -> Result<bool, StoreError> {
        let sha256 = envelope.sha256();
        let parked = self
            .work
            .transaction_with(envelope.body.len(), async |client| {
                client
                    .execute(
                        "/* park_lock */ SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
                        &[&format!("park:{}", envelope.tx_id)],
                    )
                    .await?;
                let parked = client
                    .execute(
                        &*self.sql(
                            "/* park */
                         INSERT INTO :ibisstore (type, slotid, host, messageid, correlationid, comments, message, tx_id,
                                                root_id, content_type, headers, sha256)
                         SELECT 'H', $1::text, $2, $3::text, $4, $5, $6, $7, $8, $9, $10, $11
                         WHERE NOT EXISTS (SELECT FROM :ibisstore h WHERE h.messageid = $3::text AND h.type = 'H'
                                           AND h.dedup_key IS DISTINCT FROM h.messageid
                                           AND h.slotid = $1::text AND h.tx_id = $7 AND h.sha256 = $11)",
                        ),
                        &[
                            &slot_id.as_str(),
                            &host,
                            &envelope.message_id.as_str(),
                            &envelope.correlation_id.as_str(),
                            &comment(reason),
                            &&envelope.body[..],
                            &envelope.tx_id.0,
                            &envelope.root_id.0,
                            &envelope.content_type,
                            &serde_json::json!(envelope.headers),
                            &sha256.as_slice(),
                        ],
                    )
                    .await?;
                Ok(parked == 1)
            })
            .await?;
        if !parked {
            self.durable().await?;
        }
        Ok(parked)
    }

    /// PUBLISHED back to READY: the broker's copy is about to be acknowledged although the row is not due yet.
    pub async fn reopen(&self, tx_id: TxId, destination: &Destination, attempts: i32) -> Result<(), StoreError> {
        self.work
            .run(async |client| {
                client
                    .execute(
                        "/* reopen */
                         WITH open AS (
                             UPDATE posthaste.journal SET state = 'READY', owner = NULL, publish_after = NULL
                             WHERE tx_id = $1 AND destination = $2 AND attempts = $3 AND state IN ('READY', 'PUBLISHED')
                             RETURNING tx_id, not_before)
                         INSERT INTO posthaste.due (tx_id, at)
                         SELECT tx_id, coalesce(not_before, clock_timestamp()) FROM open
                         ON CONFLICT (tx_id) DO UPDATE SET at = excluded.at",
                        &[&tx_id.0, &destination.as_str(), &attempts],
                    )
                    .await?;
                Ok(())
            })
            .await
    }
}

pub(super) fn journal_row_of(row: &tokio_postgres::Row) -> Result<JournalRow, StoreError> {
    let state: String = row.try_get("state")?;
    Ok(JournalRow {
        state: JournalState::from_text(&state)
            .ok_or_else(|| StoreError::Unexpected(format!("journal state {state}")))?,
        attempts: row.try_get("attempts")?,
        max_attempts: row.try_get("max_attempts")?,
        destination: row.try_get("destination")?,
        sha256: row.try_get("sha256")?,
        running_by: row.try_get::<_, Option<Uuid>>("running_by")?.map(Incarnation),
        due: row.try_get("due")?,
        runner_lives: row.try_get::<_, Option<bool>>("runner_lives")?.unwrap_or(false),
    })
}

/// A text that fits `comments`: no NUL, at most 1000 characters.
pub(super) fn comment(text: &str) -> String {
    text.chars().filter(|character| *character != '\0').take(MAX_COMMENT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_holds_no_nul_and_at_most_1000_characters() {
        assert_eq!(comment("a\0b"), "ab");
        assert_eq!(comment(&"\u{e9}".repeat(2000)).chars().count(), 1000);
    }
}
