//! Removing what is past its time, in small batches, one cleaner at a time (protocol §5, I8).

use std::time::Duration;

use serde::Serialize;

use super::{Store, StoreError};

/// How long what is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Settled journal rows, and the instances that they name. Default 7 days (T_keep).
    pub journal: Duration,
    /// Ids of foreign messages. Default 30 days.
    pub inbox: Duration,
    /// Rows per statement. Default 1000.
    pub batch: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { journal: Duration::from_secs(7 * 86_400), inbox: Duration::from_secs(30 * 86_400), batch: 1000 }
    }
}

/// Rows removed by one round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    pub log: u64,
    pub journal: u64,
    pub inbox: u64,
}

const LOCK: i64 = 0x706f_7374_6861_7375;

/// Only A and L, past expiry, with nothing of the same root open or waiting for a person. `OFFSET 0` keeps each question
/// a look into an index: as joins they would read the whole journal. `now()`, because no index serves a volatile clock.
const LOG: &str = "/* clean_log */
DELETE FROM ibisstore WHERE messagekey IN (
    SELECT s.messagekey FROM ibisstore s
    WHERE s.expirydate < now() AND s.type IN ('A', 'L')
      AND NOT EXISTS (SELECT FROM ibisstore w WHERE w.root_id = s.root_id AND w.type IN ('E', 'H', 'I', 'M') OFFSET 0)
      AND NOT EXISTS (SELECT FROM posthaste.journal j WHERE j.tx_id = s.root_id AND j.state IN ('READY', 'PUBLISHED')
                      OFFSET 0)
      AND NOT EXISTS (SELECT FROM posthaste.lineage k JOIN posthaste.journal j ON j.tx_id = k.tx_id
                      WHERE k.root_id = s.root_id AND j.state IN ('READY', 'PUBLISHED') OFFSET 0)
    LIMIT $1 FOR UPDATE OF s SKIP LOCKED)";

/// Settled rows past T_keep with all that hangs on them, along the primary key: an id younger than the bound cannot have
/// settled before it. What still waits for a person keeps its history.
const JOURNAL: &str = "/* clean_journal */
WITH old AS (
    SELECT j.tx_id, j.root_id FROM posthaste.journal j
    WHERE j.state IN ('DONE', 'ERROR') AND j.finished_at < clock_timestamp() - $1 * interval '1 second'
      AND j.tx_id < (lpad(to_hex(((extract(epoch FROM now()) - $1) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
      AND NOT EXISTS (SELECT FROM ibisstore w WHERE w.root_id = j.root_id AND w.type IN ('E', 'H', 'I', 'M') OFFSET 0)
    ORDER BY j.tx_id LIMIT $2 FOR UPDATE OF j SKIP LOCKED),
bodies AS (DELETE FROM posthaste.payload p USING old WHERE p.tx_id = old.tx_id),
tries AS (DELETE FROM posthaste.attempt a USING old WHERE a.tx_id = old.tx_id),
kin AS (DELETE FROM posthaste.lineage k USING old WHERE k.root_id = old.root_id AND k.tx_id = old.tx_id),
gone AS (DELETE FROM posthaste.due d USING old WHERE d.tx_id = old.tx_id)
DELETE FROM posthaste.journal j USING old WHERE j.tx_id = old.tx_id";

const INBOX: &str = "/* clean_inbox */
DELETE FROM posthaste.inbox WHERE (queue, message_id) IN (
    SELECT queue, message_id FROM posthaste.inbox WHERE seen_at < clock_timestamp() - $1 * interval '1 second' LIMIT $2)";

const REST: &str = "/* clean_rest */
WITH instances AS (
    DELETE FROM posthaste.instance i
    WHERE state = 'FENCED' AND fenced_at < clock_timestamp() - $1 * interval '1 second'
      AND NOT EXISTS (SELECT FROM posthaste.decision d WHERE d.incarnation = i.incarnation)),
tombstones AS (
    DELETE FROM posthaste.decision
    WHERE outcome = 'ABORT' AND decided_at < clock_timestamp() - $1 * interval '1 second')
DELETE FROM posthaste.conflict c WHERE last_seen < clock_timestamp() - $1 * interval '1 second'
   AND NOT EXISTS (SELECT FROM ibisstore s WHERE s.slotid = c.slotid AND s.dedup_key = c.dedup_key)";

impl Store {
    /// One round of batches. `None`: another instance is at it.
    pub async fn clean_up(&self, retention: Retention) -> Result<Option<Removed>, StoreError> {
        self.house
            .transaction(async |client| {
                let locked =
                    client.query_one("/* clean_up_lock */ SELECT pg_try_advisory_xact_lock($1)", &[&LOCK]).await?;
                if !locked.get::<_, bool>(0) {
                    return Ok(None);
                }
                // Removing again what a crash brought back does no harm.
                client.batch_execute("SET LOCAL synchronous_commit = off").await?;
                let journal = retention.journal.as_secs_f64();
                let removed = Removed {
                    log: client.execute(LOG, &[&retention.batch]).await?,
                    journal: client.execute(JOURNAL, &[&journal, &retention.batch]).await?,
                    inbox: client.execute(INBOX, &[&retention.inbox.as_secs_f64(), &retention.batch]).await?,
                };
                client.execute(REST, &[&journal]).await?;
                Ok(Some(removed))
            })
            .await
    }
}
