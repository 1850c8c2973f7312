//! One row of `ibisstore`, with or without its body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;

use super::bodies::{WHOLE, of_store};
use super::row::{column, store_type};
use super::{Store, StoreError};
use crate::model::{MessageKey, RootId, SlotId, StoreType, TxId};

/// One row of `ibisstore` without its body.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredMessage {
    /// `messagekey`.
    pub key: MessageKey,
    pub slot_id: SlotId,
    #[serde(rename = "type")]
    pub kind: StoreType,
    pub message_id: String,
    pub correlation_id: Option<String>,
    pub message_date: Timestamp,
    pub expiry_date: Option<Timestamp>,
    pub comments: Option<String>,
    pub label: Option<String>,
    pub host: Option<String>,
    pub content_type: Option<String>,
    /// Bytes of the body.
    pub size: i32,
    pub attempts: i32,
    pub tx_id: TxId,
    pub root_id: RootId,
}

/// One row with its body: text as it is, anything else in base64, and text that is mostly control characters.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FullMessage {
    #[serde(flatten)]
    pub row: StoredMessage,
    pub headers: serde_json::Value,
    pub context: serde_json::Value,
    /// SHA-256 of the body, in hexadecimal.
    pub sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_base64: Option<String>,
}

pub(super) const STORED_COLUMNS: &str =
    "messagekey, slotid, type, messageid, correlationid, messagedate, expirydate, comments, label,
       host, content_type, octet_length(message) AS size, attempts, tx_id, root_id";

/// Selects the rows of a message id, which `$id` is, in whatever slot. Most ids are keys of `ibisstore_dedup`, and
/// `ibisstore_messageid` holds the others alone.
pub(super) fn rows_of_id(columns: &str, id: &str) -> String {
    format!(
        "SELECT {columns} FROM :ibisstore WHERE dedup_key = {id} AND messageid = {id} UNION ALL \
         SELECT {columns} FROM :ibisstore WHERE messageid = {id} AND dedup_key IS DISTINCT FROM messageid"
    )
}

impl Store {
    /// One row without its body.
    pub async fn stored_row(&self, slot: &SlotId, key: MessageKey) -> Result<Option<StoredMessage>, StoreError> {
        let sql =
            format!("/* stored_row */ SELECT {STORED_COLUMNS} FROM :ibisstore WHERE messagekey = $1 AND slotid = $2");
        let row = self
            .house
            .run(async |client| Ok(client.query_opt(&self.names.of(&sql), &[&key.0, &slot.as_str()]).await?))
            .await?;
        row.as_ref().map(stored_message).transpose()
    }

    /// One row with its body.
    pub async fn stored_message(&self, slot: &SlotId, key: MessageKey) -> Result<Option<FullMessage>, StoreError> {
        let sql = format!(
            "/* stored_message */ SELECT {STORED_COLUMNS}, headers, context, sha256,
                    CASE WHEN octet_length(message) <= $3 THEN message END AS message
             FROM :ibisstore WHERE messagekey = $1 AND slotid = $2"
        );
        self.house
            .run(async |client| {
                let Some(row) = client.query_opt(&self.names.of(&sql), &[&key.0, &slot.as_str(), &WHOLE]).await? else {
                    return Ok(None);
                };
                let body = match column::<Option<Vec<u8>>>(&row, "message")? {
                    Some(body) => Some(body),
                    None => of_store(client, &self.names, key.0, column(&row, "size")?).await?,
                };
                // Without one it was deleted meanwhile.
                body.map(|body| full_message(&row, body)).transpose()
            })
            .await
    }
}

/// Reads [`STORED_COLUMNS`].
pub(super) fn stored_message(row: &Row) -> Result<StoredMessage, StoreError> {
    Ok(StoredMessage {
        key: MessageKey(column(row, "messagekey")?),
        slot_id: SlotId::new(column(row, "slotid")?),
        kind: store_type(column(row, "type")?)?,
        message_id: column(row, "messageid")?,
        correlation_id: column(row, "correlationid")?,
        message_date: column(row, "messagedate")?,
        expiry_date: column(row, "expirydate")?,
        comments: column(row, "comments")?,
        label: column(row, "label")?,
        host: column(row, "host")?,
        content_type: column(row, "content_type")?,
        size: column(row, "size")?,
        attempts: column(row, "attempts")?,
        tx_id: TxId(column(row, "tx_id")?),
        root_id: RootId(column(row, "root_id")?),
    })
}

fn full_message(row: &Row, body: Vec<u8>) -> Result<FullMessage, StoreError> {
    let (message, message_base64) = match String::from_utf8(body) {
        Ok(text) if !more_than_doubles(&text) => (Some(text), None),
        Ok(text) => (None, Some(STANDARD.encode(text))),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    };
    Ok(FullMessage {
        row: stored_message(row)?,
        headers: column(row, "headers")?,
        context: column(row, "context")?,
        sha256: hex(column(row, "sha256")?),
        message,
        message_base64,
    })
}

/// Whether JSON makes more than twice of it: a control character without a short form takes six bytes.
fn more_than_doubles(text: &str) -> bool {
    let cost = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1_usize,
    };
    text.as_bytes().iter().map(cost).sum::<usize>() > text.len().saturating_mul(2)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_text_unless_it_would_take_more_than_twice_its_size() {
        for text in ["", "plain", "\"\\\n\r\t\u{8}\u{c}", "caf\u{e9} \0", "\u{7f}\u{80}"] {
            assert!(!more_than_doubles(text), "{text:?}");
            assert!(serde_json::to_string(text).unwrap().len() - 2 <= 2 * text.len());
        }
        for text in ["\0", "\u{1}\u{1f}abc"] {
            assert!(more_than_doubles(text), "{text:?}");
            assert!(serde_json::to_string(text).unwrap().len() - 2 > 2 * text.len());
        }
    }
}
