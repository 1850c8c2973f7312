//! How much waits for a person in each error store, and for how long: for figures.

use super::browse::COUNT_CAP;
use super::row::{column, store_type};
use super::{Store, StoreError};
use crate::model::{SlotId, StoreType};

/// What waits in one slot.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorDepth {
    pub slot_id: SlotId,
    /// Errors, or what is on hold.
    pub kind: StoreType,
    /// At most [`COUNT_CAP`]: then there may be more.
    pub count: i64,
    /// Age of the oldest, in seconds by the database's clock; 0 when there is none.
    pub oldest_seconds: f64,
}

/// Types that wait for a person.
const KINDS: [StoreType; 2] = [StoreType::Error, StoreType::Hold];

/// Whatever the statistics say, rows are found by the index in its order: without any, PostgreSQL would read and sort all of
/// them. What takes long is not worth it.
const LOCAL: &str = "SET LOCAL statement_timeout = '5s'; SET LOCAL jit = off; SET LOCAL enable_seqscan = off; \
                     SET LOCAL enable_bitmapscan = off";

/// By the browse index alone, as in `browse`: of each slot and type at most so many entries, and one row.
const DEPTHS: &str = "/* error_depths */
SELECT wanted.slotid, wanted.type, counted.n,
       greatest(coalesce(extract(epoch FROM clock_timestamp() - oldest.messagedate), 0), 0)::float8 AS age
FROM (SELECT slotid, type FROM unnest($1::text[]) slotid CROSS JOIN unnest($2::text[]) type) wanted
CROSS JOIN LATERAL (
    SELECT count(*) AS n FROM (
        SELECT 1 FROM :ibisstore i
        WHERE (i.slotid, i.type, i.messagekey) >= (wanted.slotid, wanted.type::char(1), -9223372036854775808)
          AND (i.slotid, i.type, i.messagekey) <= (wanted.slotid, wanted.type::char(1), 9223372036854775807)
        ORDER BY i.slotid, i.type, i.messagekey LIMIT $3) capped) counted
LEFT JOIN LATERAL (
    SELECT i.messagedate FROM :ibisstore i
    WHERE (i.slotid, i.type, i.messagekey) >= (wanted.slotid, wanted.type::char(1), -9223372036854775808)
      AND (i.slotid, i.type, i.messagekey) <= (wanted.slotid, wanted.type::char(1), 9223372036854775807)
    ORDER BY i.slotid, i.type, i.messagekey LIMIT 1) oldest ON true";

impl Store {
    /// What waits for a person in each of these slots, by type. At most [`COUNT_CAP`] index entries are read of each.
    pub async fn error_depths(&self, slots: &[SlotId]) -> Result<Vec<ErrorDepth>, StoreError> {
        let (slots, kinds) = (slots.iter().map(SlotId::as_str).collect::<Vec<_>>(), KINDS.map(StoreType::as_str));
        let rows = self.house.transaction(async |client| {
            client.batch_execute(LOCAL).await?;
            Ok(client.query(&*self.sql(DEPTHS), &[&slots, &&kinds[..], &COUNT_CAP]).await?)
        });
        rows.await?
            .iter()
            .map(|row| {
                Ok(ErrorDepth {
                    slot_id: SlotId::new(column(row, "slotid")?),
                    kind: store_type(column(row, "type")?)?,
                    count: column(row, "n")?,
                    oldest_seconds: column(row, "age")?,
                })
            })
            .collect()
    }
}
