//! Removing what is past its time, in batches, each a short transaction of its own, one cleaner at a time (protocol §5,
//! I8).

use std::time::Duration;

use deadpool_postgres::ClientWrapper;

use super::cleanup_walk::{Part, Seen, Walk};
use super::names::Names;
use super::{Store, StoreError};
use crate::model::SlotId;

/// How long what is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Settled journal rows, and the instances that they name. Default 7 days (T_keep).
    pub journal: Duration,
    /// Ids of foreign messages. Default 30 days.
    pub inbox: Duration,
    /// Rows that one statement looks at, at most. Default 1000.
    pub batch: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { journal: Duration::from_secs(7 * 86_400), inbox: Duration::from_secs(30 * 86_400), batch: 1000 }
    }
}

/// Rows removed, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub log: u64,
    pub journal: u64,
    pub inbox: u64,
}

/// What one batch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Batch {
    pub removed: u64,
    /// There is more to look at now.
    pub more: bool,
}

const LOCK: i64 = 0x706f_7374_6861_7375;

/// Removing again what a crash brought back does no harm. A statement that would take long gives up, and a smaller one
/// follows; it waits for nobody. Compiling it would take longer than it does. Whatever the statistics say, rows are found
/// by an index; and nothing is cached, so that no plan is older than its batch.
const LOCAL: &str = "SET LOCAL synchronous_commit = off; SET LOCAL statement_timeout = '5s'; \
                     SET LOCAL lock_timeout = '100ms'; SET LOCAL jit = off; SET LOCAL enable_seqscan = off; \
                     SET LOCAL enable_bitmapscan = off";

/// From the back: in front stand the entries of what is gone.
const SLOTS: &str = "/* clean_slots */
WITH RECURSIVE slots AS (
    (SELECT slotid, type FROM :ibisstore ORDER BY slotid DESC, type DESC LIMIT 1)
    UNION ALL
    SELECT next.slotid, next.type FROM slots CROSS JOIN LATERAL (
        SELECT s.slotid, s.type FROM :ibisstore s WHERE (s.slotid, s.type) < (slots.slotid, slots.type)
        ORDER BY s.slotid DESC, s.type DESC LIMIT 1) next)
SELECT slotid, type::text FROM slots WHERE type IN ('A', 'L')";

/// Only A and L, past expiry, with nothing of the same root open or waiting for a person. `OFFSET 0` keeps each question
/// a look into an index: as joins they would read the whole journal. What never expires is passed by. Only
/// `ibisstore_browse` serves the comparison of rows and their order; for `slotid = $1` the primary key is taken, and all other slots are read.
const LOG: &str = "/* clean_log */
WITH seen AS MATERIALIZED (
    SELECT messagekey, coalesce(expirydate < now(), false) AS past, coalesce(expirydate >= now(), false) AS young
    FROM :ibisstore
    WHERE (slotid, type, messagekey) > ($1, $2, $3) AND (slotid, type, messagekey) <= ($1, $2, 9223372036854775807)
    ORDER BY slotid, type, messagekey LIMIT $4),
old AS MATERIALIZED (
    SELECT s.messagekey FROM seen JOIN :ibisstore s USING (messagekey)
    WHERE seen.past AND s.type IN ('A', 'L')
      AND NOT EXISTS (SELECT FROM :ibisstore w WHERE w.root_id = s.root_id AND w.type IN ('E', 'H', 'I', 'M') OFFSET 0)
      AND NOT EXISTS (SELECT FROM posthaste.journal j WHERE j.tx_id = s.root_id AND j.state IN ('READY', 'PUBLISHED')
                      OFFSET 0)
      AND NOT EXISTS (SELECT FROM posthaste.lineage k JOIN posthaste.journal j ON j.tx_id = k.tx_id
                      WHERE k.root_id = s.root_id AND j.state IN ('READY', 'PUBLISHED') OFFSET 0)
    FOR UPDATE OF s SKIP LOCKED),
gone AS (DELETE FROM :ibisstore s USING old WHERE s.messagekey = old.messagekey RETURNING s.messagekey)
SELECT count(*) AS seen, count(*) FILTER (WHERE past) AS past, (SELECT count(*) FROM gone) AS gone,
       max(messagekey) AS last, min(messagekey) FILTER (WHERE young) - 1 AS young,
       coalesce(NOT (array_agg(young ORDER BY messagekey DESC))[1], false) AS go_on
FROM seen";

/// Settled rows past T_keep with all that hangs on them, along the primary key: an id younger than the bound cannot have
/// settled before it. What still waits for a person keeps its history.
const JOURNAL: &str = "/* clean_journal */
WITH seen AS MATERIALIZED (
    SELECT tx_id FROM posthaste.journal
    WHERE tx_id > $1
      AND tx_id < (lpad(to_hex(((extract(epoch FROM now()) - $2::float8) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
    ORDER BY tx_id LIMIT $3),
old AS MATERIALIZED (
    SELECT j.tx_id, j.root_id FROM seen JOIN posthaste.journal j USING (tx_id)
    WHERE j.state IN ('DONE', 'ERROR') AND j.finished_at < now() - $2 * interval '1 second'
      AND NOT EXISTS (SELECT FROM :ibisstore w WHERE w.root_id = j.root_id AND w.type IN ('E', 'H', 'I', 'M') OFFSET 0)
    ORDER BY j.tx_id FOR UPDATE OF j SKIP LOCKED),
bodies AS (DELETE FROM posthaste.payload p USING old WHERE p.tx_id = old.tx_id),
tries AS (DELETE FROM posthaste.attempt a USING old WHERE a.tx_id = old.tx_id),
kin AS (DELETE FROM posthaste.lineage k USING old WHERE k.root_id = old.root_id AND k.tx_id = old.tx_id),
watched AS (DELETE FROM posthaste.due d USING old WHERE d.tx_id = old.tx_id),
gone AS (DELETE FROM posthaste.journal j USING old WHERE j.tx_id = old.tx_id RETURNING j.tx_id)
SELECT count(*) AS seen, (SELECT count(*) FROM gone) AS gone,
       (SELECT tx_id FROM seen ORDER BY tx_id DESC LIMIT 1) AS last
FROM seen";

const INBOX: &str = "/* clean_inbox */
DELETE FROM posthaste.inbox WHERE (queue, message_id) IN (
    SELECT queue, message_id FROM posthaste.inbox WHERE seen_at < now() - $1 * interval '1 second'
    ORDER BY seen_at LIMIT $2)";

const REST: &str = "/* clean_rest */
WITH instances AS (
    DELETE FROM posthaste.instance WHERE incarnation IN (
        SELECT i.incarnation FROM posthaste.instance i
        WHERE state = 'FENCED' AND fenced_at < now() - $1 * interval '1 second'
          AND NOT EXISTS (SELECT FROM posthaste.decision d WHERE d.incarnation = i.incarnation)
        LIMIT $2)
    RETURNING 1),
tombstones AS (
    DELETE FROM posthaste.decision WHERE gtrid IN (
        SELECT gtrid FROM posthaste.decision
        WHERE outcome = 'ABORT' AND decided_at < now() - $1 * interval '1 second' LIMIT $2)
    RETURNING 1),
conflicts AS (
    DELETE FROM posthaste.conflict WHERE (slotid, dedup_key, sha256) IN (
        SELECT c.slotid, c.dedup_key, c.sha256 FROM posthaste.conflict c
        WHERE last_seen < now() - $1 * interval '1 second'
          AND NOT EXISTS (SELECT FROM :ibisstore s WHERE s.slotid = c.slotid AND s.dedup_key = c.dedup_key OFFSET 0)
        LIMIT $2)
    RETURNING 1)
SELECT (SELECT count(*) FROM instances), (SELECT count(*) FROM tombstones), (SELECT count(*) FROM conflicts)";

impl Store {
    /// Everything that there is to clean, each part from its beginning.
    pub async fn parts_to_clean(&self) -> Result<Vec<Part>, StoreError> {
        let slots = self.house.run(async |client| Ok(client.query(&*self.sql(SLOTS), &[]).await?)).await?;
        let logs = slots.iter().map(|row| Part::log(SlotId::new(row.get::<_, &str>(0)), row.get(1)));
        Ok(logs.chain([Part::journal(), Part::inbox(), Part::rest()]).collect())
    }

    /// One batch of one part, in a transaction of its own; of the rows that it looks at, at most `rows`, it removes those
    /// whose time is past and that nothing holds. `None`: another instance is at it.
    ///
    /// # Errors
    /// Nothing was removed, and the part stands where it stood.
    pub async fn clean(&self, part: &mut Part, retention: Retention, rows: i64) -> Result<Option<Batch>, StoreError> {
        self.clean_by(part, retention, rows, |_| true).await
    }

    /// The same, if the time by which the transaction goes is believed (microseconds since 1970): if not, nothing is removed
    /// and there is no more.
    ///
    /// # Errors
    /// As for `clean`.
    pub async fn clean_by(
        &self,
        part: &mut Part,
        retention: Retention,
        rows: i64,
        believed: impl FnOnce(i64) -> bool,
    ) -> Result<Option<Batch>, StoreError> {
        let mut moved = part.clone();
        let batch = self
            .house
            .transaction(async |client| {
                // All that follows goes by this now().
                let lock = "/* clean_up_lock */
                    SELECT pg_try_advisory_xact_lock($1), (extract(epoch FROM now()) * 1000000)::bigint";
                let row = client.query_one(lock, &[&LOCK]).await?;
                if !row.get::<_, bool>(0) {
                    return Ok(None);
                }
                if !believed(row.get(1)) {
                    return Ok(Some(Batch::default()));
                }
                client.batch_execute(LOCAL).await?;
                clean(client, &self.names, &mut moved, retention, rows).await.map(Some)
            })
            .await?;
        *part = moved;
        Ok(batch)
    }

    /// All parts from their beginning to their end, without a pause. `None`: another instance is at it.
    pub async fn clean_up(&self, retention: Retention) -> Result<Option<Removed>, StoreError> {
        let mut removed = Removed::default();
        for mut part in self.parts_to_clean().await? {
            loop {
                let Some(batch) = self.clean(&mut part, retention, retention.batch).await? else { return Ok(None) };
                match part.walk {
                    Walk::Log { .. } => removed.log += batch.removed,
                    Walk::Journal { .. } => removed.journal += batch.removed,
                    Walk::Inbox => removed.inbox += batch.removed,
                    Walk::Rest => {}
                }
                if !batch.more {
                    break;
                }
            }
        }
        Ok(Some(removed))
    }
}

async fn clean(
    client: &ClientWrapper,
    names: &Names,
    part: &mut Part,
    retention: Retention,
    rows: i64,
) -> Result<Batch, StoreError> {
    let (journal, inbox) = (retention.journal.as_secs_f64(), retention.inbox.as_secs_f64());
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    match &mut part.walk {
        Walk::Log { slot, kind, place } => {
            let row = client.query_one(&*names.sql(LOG), &[&slot.as_str(), kind, &place.after, &rows]).await?;
            let (seen, past, gone) = (row.get::<_, i64>("seen"), row.get::<_, i64>("past"), row.get::<_, i64>("gone"));
            place.step(Seen { last: row.get("last"), young: row.get("young"), held: gone < past });
            Ok(Batch { removed: count(gone), more: seen >= rows && row.get("go_on") })
        }
        Walk::Journal { place } => {
            let row = client.query_one(&*names.sql(JOURNAL), &[&place.after, &journal, &rows]).await?;
            let (seen, gone) = (row.get::<_, i64>("seen"), row.get::<_, i64>("gone"));
            place.step(Seen { last: row.get("last"), young: None, held: gone < seen });
            Ok(Batch { removed: count(gone), more: seen >= rows })
        }
        Walk::Inbox => {
            let removed = client.execute(INBOX, &[&inbox, &rows]).await?;
            Ok(Batch { removed, more: removed >= count(rows) })
        }
        Walk::Rest => {
            let row = client.query_one(&*names.sql(REST), &[&journal, &rows]).await?;
            let gone: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
            Ok(Batch { removed: count(gone.iter().sum()), more: gone.iter().any(|gone| *gone >= rows) })
        }
    }
}
