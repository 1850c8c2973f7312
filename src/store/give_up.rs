//! The end of a message that cannot be processed: the error store (protocol §5, "Exhausted").

use super::pool::PLANNED_ANEW;
use super::receive::comment;
use super::{FailedAttempt, Store, StoreError};
use crate::model::{MessageKey, SlotId};

/// Who gives a message up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUpBy {
    /// The attempt that failed, last of all.
    Attempt,
    /// Somebody who looked at a row that nobody works on. He waits for no lock, and an attempt that has said itself
    /// why it failed keeps its word.
    Observer,
}

/// How long an observer waits for a lock.
const OBSERVER_WAIT: &str = "SET LOCAL lock_timeout = '100ms'";

const GIVE_UP: &str = "/* give_up */
WITH failed AS (
    UPDATE posthaste.journal
    SET state = 'ERROR', attempts = $4, owner = NULL, running_by = NULL, finished_at = clock_timestamp()
    WHERE tx_id = $1 AND destination = $2 AND attempts = $3 AND state IN ('READY', 'PUBLISHED')
    RETURNING tx_id, root_id, log_key, sha256, attempts, max_attempts),
reason AS (
    SELECT coalesce((SELECT a.error FROM failed JOIN posthaste.attempt a ON a.tx_id = failed.tx_id AND a.n = $4
                     WHERE $12 AND failed.attempts >= failed.max_attempts AND a.outcome = 'FAILED'), $8) AS text),
kept AS (
    INSERT INTO posthaste.attempt (tx_id, n, adapter, step, started_at, finished_at, outcome, error, instance)
    SELECT tx_id, $4, $5, $6, clock_timestamp() - $7 * interval '1 second', clock_timestamp(),
           CASE WHEN $12 THEN 'CRASHED' ELSE 'FAILED' END, $8, $9
    FROM failed WHERE $4 > 0
    ON CONFLICT (tx_id, n) DO UPDATE
    SET outcome = excluded.outcome, finished_at = excluded.finished_at, step = excluded.step, error = excluded.error
    WHERE NOT $12 OR attempt.outcome = 'RUNNING'),
freed AS (DELETE FROM posthaste.due d USING failed WHERE d.tx_id = failed.tx_id),
logged AS (
    INSERT INTO :ibisstore (type, slotid, host, messageid, correlationid, comments, message, tx_id, root_id,
                           content_type, headers, context, sha256, attempts)
    SELECT 'E', $10, $11, l.messageid, l.correlationid, (SELECT text FROM reason), l.message, failed.tx_id, failed.root_id,
           l.content_type, l.headers, l.context, failed.sha256, failed.attempts
    FROM failed JOIN :ibisstore l ON l.messagekey = failed.log_key RETURNING messagekey),
carried AS (
    INSERT INTO :ibisstore (type, slotid, host, messageid, correlationid, comments, message, tx_id, root_id,
                           content_type, headers, context, sha256, attempts)
    SELECT 'E', $10, $11, p.message_id, p.correlation_id, (SELECT text FROM reason), p.message, failed.tx_id, failed.root_id,
           p.content_type, p.headers, p.context, failed.sha256, failed.attempts
    FROM failed JOIN posthaste.payload p ON p.tx_id = failed.tx_id
    WHERE failed.log_key IS NULL AND p.messagekey IS NULL RETURNING messagekey),
returned AS (
    INSERT INTO :ibisstore (messagekey, messagedate, type, slotid, host, messageid, correlationid, comments, message,
                           tx_id, root_id, content_type, headers, context, sha256, attempts)
    SELECT p.messagekey, p.messagedate, 'E', $10, $11, p.message_id, p.correlation_id, (SELECT text FROM reason), p.message, failed.tx_id,
           failed.root_id, p.content_type, p.headers, p.context, failed.sha256, failed.attempts + p.prior_attempts
    FROM failed JOIN posthaste.payload p ON p.tx_id = failed.tx_id
    WHERE failed.log_key IS NULL AND p.messagekey IS NOT NULL RETURNING messagekey)
SELECT (SELECT count(*) FROM failed),
       (SELECT messagekey FROM logged UNION ALL SELECT messagekey FROM carried UNION ALL SELECT messagekey FROM returned)";

impl Store {
    /// One transaction: ERROR, the attempt, and the message in the error store with the reason. A resent message goes
    /// back under its own messagekey. `None`: overtaken, nothing written.
    pub async fn give_up(
        &self,
        failed: &FailedAttempt<'_>,
        slot_id: &SlotId,
        host: &str,
        by: GivenUpBy,
    ) -> Result<Option<MessageKey>, StoreError> {
        let error = comment(failed.error);
        let (pool, observed) = match by {
            GivenUpBy::Attempt => (&self.work, false),
            GivenUpBy::Observer => (&self.house, true),
        };
        pool.transaction(async |client| {
            if observed {
                client.batch_execute(OBSERVER_WAIT).await?;
            }
            client.batch_execute(PLANNED_ANEW).await?;
            let statement = client.prepare_cached(&self.sql(GIVE_UP)).await?;
            let row = client
                .query_one(
                    &statement,
                    &[
                        &failed.tx_id.0,
                        &failed.destination.as_str(),
                        &failed.seen,
                        &failed.n,
                        &failed.adapter,
                        &failed.step,
                        &failed.took.as_secs_f64(),
                        &error,
                        &self.incarnation.0,
                        &slot_id.as_str(),
                        &host,
                        &observed,
                    ],
                )
                .await?;
            match (row.get::<_, i64>(0), row.get::<_, Option<i64>>(1)) {
                (0, _) => Ok(None),
                (_, Some(key)) => Ok(Some(MessageKey(key))),
                (_, None) => Err(StoreError::Unexpected(format!("the message of {} is gone", failed.tx_id))),
            }
        })
        .await
    }
}
