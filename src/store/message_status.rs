//! Where a message stands, for the one who sent it.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::durable::standby;
use super::lifecourse::{MessageState, state_of};
use super::row::{column, store_type};
use super::stored::rows_of_id;
use super::trace::leg;
use super::{Store, StoreError};
use crate::model::{MessageId, SlotId, TxId};

/// What the sender of a message may know of it: the receipt's fields and a state, never the body.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageStatus {
    pub slot_id: SlotId,
    pub message_id: MessageId,
    pub correlation_id: Option<String>,
    pub state: MessageState,
    pub received_at: Timestamp,
}

impl Store {
    /// Where the message stands that was logged under this id; None when none was, or it has expired. One statement, on
    /// the pool that accepts: whoever may post may also ask.
    pub async fn message_status(
        &self,
        slot: &SlotId,
        message_id: &MessageId,
    ) -> Result<Option<MessageStatus>, StoreError> {
        let sql = format!(
            "/* message_status */ WITH s AS MATERIALIZED ({}), log AS (\
             SELECT * FROM s WHERE slotid = $1 AND type = 'A' ORDER BY messagekey DESC LIMIT 1\
             ), leg AS (\
             SELECT root_id AS tx_id, NULL AS cause, NULL::uuid AS parent_id FROM log \
             UNION ALL \
             SELECT l.tx_id, l.cause, l.parent_id FROM posthaste.lineage l JOIN log USING (root_id)\
             ) SELECT log.correlationid, log.messagedate, ARRAY(SELECT type::text \
             FROM :ibisstore WHERE root_id = log.root_id AND type IN ('E', 'H', 'I', 'M')) AS waiting, \
             EXISTS (SELECT FROM posthaste.audit WHERE root_id = log.root_id AND what = 'delete' \
             AND detail ->> 'type' IN ('E', 'H', 'I', 'M')) AS deleted, \
             leg.cause, leg.parent_id, j.tx_id, j.mode, j.state, j.attempts, {standby} FROM log CROSS JOIN leg \
             LEFT JOIN LATERAL (SELECT * FROM posthaste.journal WHERE tx_id = leg.tx_id OFFSET 0) j ON true LIMIT 1000",
            rows_of_id("*", "$2"),
            standby = standby!()
        );
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&slot.as_str(), &message_id.as_str()];
        let rows = self.accept.run(async |client| Ok(client.query(&self.names.of(&sql), &params).await?)).await?;
        let rows = self.durable.rows(rows).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let waiting = column::<Vec<&str>>(first, "waiting")?;
        let waiting = waiting.into_iter().map(store_type).collect::<Result<Vec<_>, _>>()?;
        let mut legs = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(tx_id) = column::<Option<Uuid>>(row, "tx_id")? {
                legs.push(leg(row, TxId(tx_id))?);
            }
        }
        Ok(Some(MessageStatus {
            slot_id: slot.clone(),
            message_id: message_id.clone(),
            correlation_id: column(first, "correlationid")?,
            state: state_of(&waiting, column(first, "deleted")?, &legs),
            received_at: column(first, "messagedate")?,
        }))
    }
}
