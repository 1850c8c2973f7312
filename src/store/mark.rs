//! What the relay notes after a publish: confirmed, or failed (protocol §4, step 3).

use std::time::Duration;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::model::{Mode, TxId};

/// A message that the broker has confirmed, with the `attempts` that were published.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    pub tx_id: TxId,
    pub attempts: i32,
    pub mode: Mode,
    /// Microseconds since the epoch, as on the wire.
    pub published_at: i64,
}

/// A message whose publish failed, with the `attempts` that were published.
#[derive(Debug, Clone, Copy)]
pub struct Unpublished {
    pub tx_id: TxId,
    pub attempts: i32,
    /// The broker does not take this very message; ten of those are enough.
    pub counts: bool,
}

const MARK: &str = "/* mark */
WITH confirmed AS (SELECT * FROM unnest($1::uuid[], $2::int4[], $3::int8[]) c(tx_id, attempts, published_at)),
picked AS (
    SELECT j.tx_id, c.published_at FROM posthaste.journal j JOIN confirmed c USING (tx_id, attempts)
    WHERE j.state = 'READY' ORDER BY j.tx_id FOR NO KEY UPDATE OF j SKIP LOCKED),
marked AS (
    UPDATE posthaste.journal j
    SET state = CASE j.mode WHEN 'HANDOVER' THEN 'DONE' ELSE 'PUBLISHED' END,
        finished_at = CASE j.mode WHEN 'HANDOVER' THEN clock_timestamp() END,
        published_at = to_timestamp(picked.published_at / 1000000.0)
    FROM picked WHERE j.tx_id = picked.tx_id RETURNING j.tx_id, j.state, j.publishes),
kept AS (
    UPDATE posthaste.due d SET at = clock_timestamp() + $4 * power(2, least(marked.publishes, 8)) * interval '1 second'
    FROM marked WHERE d.tx_id = marked.tx_id AND marked.state = 'PUBLISHED'),
freed AS (DELETE FROM posthaste.due d USING marked WHERE d.tx_id = marked.tx_id AND marked.state = 'DONE')
SELECT tx_id FROM marked";

const PUBLISH_FAILED: &str = "/* publish_failed */
WITH failed AS (SELECT * FROM unnest($1::uuid[], $2::int4[], $3::int4[]) f(tx_id, attempts, counts)),
picked AS (
    SELECT j.tx_id, f.counts FROM posthaste.journal j JOIN failed f USING (tx_id, attempts)
    WHERE j.state = 'READY' ORDER BY j.tx_id FOR NO KEY UPDATE OF j SKIP LOCKED),
open AS (
    UPDATE posthaste.journal j
    SET publishes = j.publishes + picked.counts,
        publish_after = clock_timestamp()
            + $4 * CASE picked.counts WHEN 0 THEN 1 ELSE power(2, least(j.publishes, 8)) END * interval '1 second'
    FROM picked WHERE j.tx_id = picked.tx_id RETURNING j.tx_id, j.publish_after)
INSERT INTO posthaste.due (tx_id, at) SELECT tx_id, publish_after FROM open ORDER BY tx_id
ON CONFLICT (tx_id) DO UPDATE SET at = excluded.at";

impl Store {
    /// Marks what the broker has confirmed, without waiting for the disk: a lost mark is a harmless second publish.
    /// OWN becomes PUBLISHED, HANDOVER is done. Rows overtaken meanwhile are left alone. Answers how many were marked.
    ///
    /// A row that stands in `due` stays there as long as it is open: the walk may have passed it for that. `look_again`:
    /// the first wait before it is looked at; it doubles with every publish.
    pub async fn mark(&self, marks: &[Mark], look_again: Duration) -> Result<u64, StoreError> {
        let tx_ids: Vec<Uuid> = marks.iter().map(|mark| mark.tx_id.0).collect();
        let attempts: Vec<i32> = marks.iter().map(|mark| mark.attempts).collect();
        let published: Vec<i64> = marks.iter().map(|mark| mark.published_at).collect();
        self.note(MARK, &[&tx_ids, &attempts, &published, &look_again.as_secs_f64()]).await
    }

    /// The last publish of these failed: whoever comes next waits longer, and the sweeper is told when. Does not wait for the
    /// disk: a lost note is a publish that comes early. Rows overtaken meanwhile, or held by somebody who does so, are left
    /// alone. `spacing`: how long; for what counts it is the first wait, which doubles with every publish.
    pub async fn publish_failed(&self, failed: &[Unpublished], spacing: Duration) -> Result<(), StoreError> {
        let tx_ids: Vec<Uuid> = failed.iter().map(|one| one.tx_id.0).collect();
        let attempts: Vec<i32> = failed.iter().map(|one| one.attempts).collect();
        let counts: Vec<i32> = failed.iter().map(|one| i32::from(one.counts)).collect();
        self.note(PUBLISH_FAILED, &[&tx_ids, &attempts, &counts, &spacing.as_secs_f64()]).await?;
        Ok(())
    }

    async fn note(&self, sql: &'static str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, StoreError> {
        self.house
            .transaction(async |client| {
                // A plan that was made when the journal was small reads all of it when it has grown.
                let local = "SET LOCAL synchronous_commit = off; SET LOCAL plan_cache_mode = force_custom_plan";
                client.batch_execute(local).await?;
                let statement = client.prepare_cached(sql).await?;
                Ok(client.execute(&statement, params).await?)
            })
            .await
    }
}
