//! What the relay notes after a publish: confirmed, or failed (protocol §4, step 3).

use std::time::Duration;

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
        self.house
            .transaction(async |client| {
                // A plan that was made when the journal was small reads all of it when it has grown.
                let local = "SET LOCAL synchronous_commit = off; SET LOCAL plan_cache_mode = force_custom_plan";
                client.batch_execute(local).await?;
                let statement = client.prepare_cached(MARK).await?;
                Ok(client.execute(&statement, &[&tx_ids, &attempts, &published, &look_again.as_secs_f64()]).await?)
            })
            .await
    }

    /// The last publish failed: whoever comes next waits longer, and the sweeper is told when.
    /// `counts`: something may have reached the broker; ten of those are enough.
    pub async fn publish_failed(
        &self,
        tx_id: TxId,
        attempts: i32,
        spacing: Duration,
        counts: bool,
    ) -> Result<(), StoreError> {
        self.house
            .run(async |client| {
                client
                    .execute(
                        "/* publish_failed */
                         WITH open AS (
                             UPDATE posthaste.journal
                             SET publishes = publishes + $4::int,
                                 publish_after = clock_timestamp() + $3 * power(2, least(publishes, 8)) * interval '1 second'
                             WHERE tx_id = $1 AND attempts = $2 AND state = 'READY' RETURNING tx_id, publish_after)
                         INSERT INTO posthaste.due (tx_id, at) SELECT tx_id, publish_after FROM open
                         ON CONFLICT (tx_id) DO UPDATE SET at = excluded.at",
                        &[&tx_id.0, &attempts, &spacing.as_secs_f64(), &i32::from(counts)],
                    )
                    .await?;
                Ok(())
            })
            .await
    }
}
