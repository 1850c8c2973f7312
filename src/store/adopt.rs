//! Messages of others on our queues (protocol §5, "Foreign messages").

use super::entry::journal_rows;
use super::{Store, StoreError};
use crate::model::{Destination, Envelope};

const ADOPT: &str = concat!(
    "/* adopt */
WITH seen AS (
    INSERT INTO posthaste.inbox (queue, message_id, tx_id) SELECT $1, $2::text, $3 WHERE $2::text IS NOT NULL
    ON CONFLICT DO NOTHING RETURNING tx_id),
fresh AS (SELECT $3::uuid AS tx_id WHERE $2::text IS NULL OR EXISTS (SELECT FROM seen)),
body AS (
    INSERT INTO posthaste.payload (tx_id, message_id, correlation_id, content_type, headers, message)
    SELECT tx_id, $4, $5, $6, $7, $8 FROM fresh),
",
    journal_rows!(
        last,
        "tx_id, root_id, sha256, mode, destination, max_attempts, owner, publish_after",
        "SELECT tx_id, tx_id, $9, 'DIRECT', $1, $10, $11, clock_timestamp() + $12 * interval '1 second' FROM fresh"
    )
);

impl Store {
    /// Takes over a message that came without a journal row of ours: inbox, payload and a DIRECT row in one statement.
    /// `false`: a message with this id was adopted from this queue before. Without `foreign_id` nobody can tell.
    pub async fn adopt(
        &self,
        envelope: &Envelope,
        foreign_id: Option<&str>,
        destination: &Destination,
        max_attempts: i32,
    ) -> Result<bool, StoreError> {
        self.at_home()?;
        let adopted = self
            .work
            .run_with(envelope.body.len(), async |client| {
                let statement = client.prepare_cached(ADOPT).await?;
                let adopted = client
                    .execute(
                        &statement,
                        &[
                            &destination.as_str(),
                            &foreign_id,
                            &envelope.tx_id.0,
                            &envelope.message_id.as_str(),
                            &envelope.correlation_id.as_str(),
                            &envelope.content_type,
                            &serde_json::json!(envelope.headers),
                            &&envelope.body[..],
                            &envelope.sha256().as_slice(),
                            &max_attempts,
                            &self.incarnation.0,
                            &super::PUBLISH_AFTER.as_secs_f64(),
                        ],
                    )
                    .await?;
                Ok(adopted == 1)
            })
            .await?;
        if !adopted {
            // Nothing was written, and the broker forgets the message next.
            self.durable().await?;
        }
        Ok(adopted)
    }
}
