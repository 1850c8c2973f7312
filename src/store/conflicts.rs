//! Known ids that came again with another body: what is on record of them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;

use super::row::column;
use super::stored::hex;
use super::{Store, StoreError};
use crate::model::{MessageKey, SlotId};

/// One other body under a known id. The body itself was not kept.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflict {
    /// The message log's.
    pub slot_id: SlotId,
    /// The id by which repeats are recognised there.
    pub id: String,
    /// Of the other body, in hexadecimal.
    pub sha256: String,
    /// Bytes of the other body.
    pub size: i64,
    pub times: i64,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// None: its log row is gone by now.
    pub accepted: Option<AcceptedBody>,
}

/// The message that was accepted under the id.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AcceptedBody {
    pub key: MessageKey,
    pub message_id: String,
    pub message_date: Timestamp,
    pub sha256: String,
    pub size: i32,
}

/// Absent conditions hold for every conflict.
#[derive(Debug, Clone, Default)]
pub struct ConflictFilter {
    pub slot: Option<SlotId>,
    pub id: Option<String>,
}

/// Where the next page begins: behind this slot, id and body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConflictCursor(String, String, Vec<u8>);

impl ConflictCursor {
    /// The opaque text that clients hand back.
    #[must_use]
    pub fn encode(&self) -> String {
        let Self(slot, id, sha256) = self;
        URL_SAFE_NO_PAD.encode(serde_json::json!([slot, id, sha256]).to_string())
    }

    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let (slot, id, sha256) = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let cursor = Self(slot, id, sha256);
        // PostgreSQL takes no NUL in a text.
        (!cursor.0.contains('\0') && !cursor.1.contains('\0')).then_some(cursor)
    }
}

const CONFLICTS: &str = "/* browse_conflicts */
    SELECT c.slotid, c.dedup_key, c.sha256, c.size, c.times, c.first_seen, c.last_seen, s.messagekey, s.messageid,
           s.messagedate, s.sha256 AS accepted_sha256, s.accepted_size
    FROM posthaste.conflict c LEFT JOIN LATERAL (
        SELECT messagekey, messageid, messagedate, sha256, octet_length(message) AS accepted_size
        FROM :ibisstore WHERE dedup_key = c.dedup_key AND slotid = c.slotid OFFSET 0) s ON true
    WHERE (c.slotid, c.dedup_key, c.sha256) > ($1::text, $2::text, $3::bytea)
      AND ($4::text IS NULL OR c.slotid = $4) AND ($5::text IS NULL OR c.dedup_key = $5)
    ORDER BY c.slotid, c.dedup_key, c.sha256 LIMIT $6";

impl Store {
    /// One page of what is on record, by slot, id and body; and where the next one begins.
    pub async fn browse_conflicts(
        &self,
        filter: &ConflictFilter,
        after: Option<ConflictCursor>,
        limit: i64,
    ) -> Result<(Vec<Conflict>, Option<ConflictCursor>), StoreError> {
        let ConflictCursor(slot, id, sha256) = after.unwrap_or_default();
        let (only_slot, only_id) = (filter.slot.as_ref().map(SlotId::as_str), filter.id.as_deref());
        let most = limit + 1;
        let rows = self
            .house
            .run(async |client| {
                Ok(client.query(&*self.sql(CONFLICTS), &[&slot, &id, &sha256, &only_slot, &only_id, &most]).await?)
            })
            .await?;
        let shown = usize::try_from(limit).unwrap_or(usize::MAX);
        let conflicts = rows.iter().take(shown).map(conflict).collect::<Result<Vec<_>, _>>()?;
        let last = if rows.len() > shown { rows.iter().take(shown).next_back() } else { None };
        let next = last.map(|row| {
            Ok::<_, StoreError>(ConflictCursor(
                column(row, "slotid")?,
                column(row, "dedup_key")?,
                column(row, "sha256")?,
            ))
        });
        Ok((conflicts, next.transpose()?))
    }
}

fn conflict(row: &Row) -> Result<Conflict, StoreError> {
    let accepted = match column::<Option<i64>>(row, "messagekey")? {
        Some(key) => Some(AcceptedBody {
            key: MessageKey(key),
            message_id: column(row, "messageid")?,
            message_date: column(row, "messagedate")?,
            sha256: hex(column(row, "accepted_sha256")?),
            size: column(row, "accepted_size")?,
        }),
        None => None,
    };
    Ok(Conflict {
        slot_id: SlotId::new(column(row, "slotid")?),
        id: column(row, "dedup_key")?,
        sha256: hex(column(row, "sha256")?),
        size: column(row, "size")?,
        times: column(row, "times")?,
        first_seen: column(row, "first_seen")?,
        last_seen: column(row, "last_seen")?,
        accepted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went_and_anything_else_is_none() {
        let cursor = ConflictCursor("slot \"a\"".to_owned(), "id".to_owned(), vec![0, 255]);
        assert_eq!(ConflictCursor::decode(&cursor.encode()), Some(cursor));
        let with_nul = ConflictCursor("a\0".to_owned(), "id".to_owned(), Vec::new()).encode();
        for text in ["", "42", "azQy!", "W10", &with_nul] {
            assert_eq!(ConflictCursor::decode(text), None, "{text}");
        }
    }
}
