//! The statement that accepts many messages at once: the rows of each, or nothing of it (protocol §7).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use uuid::Uuid;

use super::accept::{AcceptRequest, Inserted, PUBLISH_AFTER};
use super::{LogEntry, SessionTimeouts, Store, StoreError};
use crate::model::{MessageId, TxId};

/// Whoever waits for another's id holds up the whole group: alone it may wait longer.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// A group that takes longer is undone, and its messages are tried one by one.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// For each message what `accept_logged` does. Groups that overlap take their keys in one order, whatever order the
/// messages came in: otherwise they would wait for each other. Of two with the same key the first in the group wins.
const GROUP: &str = r#"/* accept_group */
WITH log AS (
    INSERT INTO ibisstore (type, slotid, host, messageid, correlationid, message, expirydate, dedup_key,
                           tx_id, root_id, content_type, headers, sha256)
    SELECT 'A', slotid, $1, messageid, correlationid, message, clock_timestamp() + retention * interval '1 second',
           dedup_key, tx_id, root_id, content_type, headers, sha256
    FROM unnest($2::text[], $3::text[], $4::text[], $5::bytea[], $6::float8[], $7::text[], $8::uuid[], $9::uuid[],
                $10::text[], $11::jsonb[], $12::bytea[]) WITH ORDINALITY
         given(slotid, messageid, correlationid, message, retention, dedup_key, tx_id, root_id,
               content_type, headers, sha256, place)
    WHERE tx_id >= (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint - 60000), 12, '0') || repeat('0', 20))::uuid
    ORDER BY slotid COLLATE "C", dedup_key COLLATE "C", place
    ON CONFLICT (slotid, dedup_key) WHERE dedup_key IS NOT NULL DO NOTHING
    RETURNING messagekey, tx_id, root_id, sha256),
sent AS (
    SELECT log.messagekey, log.root_id, log.tx_id AS parent_id, log.sha256,
           one.tx_id, one.mode, one.destination, one.max_attempts
    FROM log JOIN unnest($13::uuid[], $14::uuid[], $15::text[], $16::text[], $17::int4[])
                  one(parent_id, tx_id, mode, destination, max_attempts) ON one.parent_id = log.tx_id),
kin AS (
    INSERT INTO posthaste.lineage (root_id, tx_id, parent_id, cause)
    SELECT root_id, tx_id, parent_id, 'OUTGOING' FROM sent WHERE tx_id <> root_id),
job AS (
    INSERT INTO posthaste.journal (tx_id, root_id, log_key, sha256, mode, destination, max_attempts, owner, publish_after)
    SELECT tx_id, root_id, messagekey, sha256, mode, destination, max_attempts, $18,
           clock_timestamp() + $19 * interval '1 second'
    FROM sent)
SELECT tx_id FROM log"#;

/// What sessions that accept groups have instead.
pub(super) fn timeouts(timeouts: SessionTimeouts) -> SessionTimeouts {
    SessionTimeouts { lock: LOCK_TIMEOUT, statement: STATEMENT_TIMEOUT, ..timeouts }
}

impl Store {
    /// Sends the accepting statement once for all of them, each with a log entry. Its implicit COMMIT is the decision
    /// about all; one answer each, in their order. What `Conflict` means is told at [`Store::accept`].
    ///
    /// # Errors
    /// `Refused` is only answered when the session answered again afterwards: the whole group is undone.
    pub async fn accept_group(&self, group: &[Arc<AcceptRequest>]) -> Result<Vec<Inserted>, StoreError> {
        let owner = self.incarnation.0;
        self.decide(&self.group, async |client| {
            let inserted = insert(client, group, owner).await?;
            Ok(deal_out(group.iter().map(|request| request.envelope.tx_id), &inserted))
        })
        .await
    }
}

async fn insert(
    client: &ClientWrapper,
    group: &[Arc<AcceptRequest>],
    owner: Uuid,
) -> Result<BTreeSet<TxId>, StoreError> {
    let Some(host) = group.first().map(|request| &*request.host) else { return Ok(BTreeSet::new()) };
    let logs: Vec<&LogEntry> = group.iter().filter_map(|request| request.log.as_ref()).collect();
    if logs.len() != group.len() {
        return Err(StoreError::Unexpected("only what is logged is accepted in groups".to_owned()));
    }
    let envelopes = || group.iter().map(|request| &request.envelope);
    let sent = || group.iter().flat_map(|request| request.outgoing.iter().map(|row| (request.envelope.tx_id.0, row)));
    let statement = client.prepare_cached(GROUP).await?;
    let rows = client
        .query(
            &statement,
            &[
                &host,
                &column(logs.iter().map(|log| log.slot_id.as_str())),
                &column(envelopes().map(|envelope| envelope.message_id.as_str())),
                &column(envelopes().map(|envelope| envelope.correlation_id.as_str())),
                &column(envelopes().map(|envelope| &envelope.body[..])),
                &column(logs.iter().map(|log| log.retention.as_secs_f64())),
                &column(logs.iter().map(|log| log.dedup_key.as_ref().map(MessageId::as_str))),
                &column(envelopes().map(|envelope| envelope.tx_id.0)),
                &column(envelopes().map(|envelope| envelope.root_id.0)),
                &column(envelopes().map(|envelope| envelope.content_type.as_deref())),
                &column(envelopes().map(|envelope| serde_json::json!(envelope.headers))),
                &column(group.iter().map(|request| request.sha256.as_slice())),
                &column(sent().map(|(parent, _)| parent)),
                &column(sent().map(|(_, row)| row.tx_id.0)),
                &column(sent().map(|(_, row)| row.mode.as_str())),
                &column(sent().map(|(_, row)| row.destination.as_str())),
                &column(sent().map(|(_, row)| row.max_attempts)),
                &owner,
                &PUBLISH_AFTER.as_secs_f64(),
            ],
        )
        .await?;
    Ok(rows.iter().map(|row| TxId(row.get(0))).collect())
}

/// As `unnest` takes it.
fn column<T>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.collect()
}

/// Each asker's own answer.
fn deal_out(asked: impl Iterator<Item = TxId>, inserted: &BTreeSet<TxId>) -> Vec<Inserted> {
    asked.map(|tx_id| if inserted.contains(&tx_id) { Inserted::Yes } else { Inserted::Conflict }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_asker_is_told_about_its_own_row_in_the_order_of_asking() {
        let ids: Vec<TxId> = (1..=4).map(|n| TxId(Uuid::from_u128(n))).collect();
        let inserted = BTreeSet::from([ids[3], ids[0]]);
        let asked = [ids[2], ids[0], ids[1], ids[3]];
        let wanted = [Inserted::Conflict, Inserted::Yes, Inserted::Conflict, Inserted::Yes];
        assert_eq!(deal_out(asked.into_iter(), &inserted), wanted);
        assert_eq!(deal_out(asked.into_iter(), &BTreeSet::new()), [Inserted::Conflict; 4]);
        assert_eq!(deal_out(std::iter::empty(), &inserted), []);
    }
}
