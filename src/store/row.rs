//! Reading columns without panics.

use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::StoreError;
use crate::model::{Envelope, Headers, MessageId, RootId, StoreType, TxId};

/// One column by name.
///
/// # Errors
/// `Unexpected` when the schema differs from what this program was built for.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, name: &str) -> Result<T, StoreError> {
    row.try_get(name).map_err(|error| StoreError::Unexpected(format!("column {name}: {error}")))
}

/// `ibisstore.type`.
pub(super) fn store_type(text: &str) -> Result<StoreType, StoreError> {
    StoreType::from_text(text).ok_or_else(|| StoreError::Unexpected(format!("ibisstore.type is {text:?}")))
}

/// A message as the database holds it; one that is too large to be fetched in one piece without its body.
pub(super) fn envelope_of(row: &tokio_postgres::Row) -> Result<Envelope, StoreError> {
    let bad = |what: &str| StoreError::Unexpected(format!("column {what}"));
    let message_id: String = row.try_get("message_id")?;
    let message_id = MessageId::parse(&message_id).map_err(|_error| bad("message_id"))?;
    let correlation_id: Option<String> = row.try_get("correlation_id")?;
    let correlation_id = match correlation_id {
        Some(text) => MessageId::parse(&text).map_err(|_error| bad("correlation_id"))?,
        None => message_id.clone(),
    };
    let headers: serde_json::Value = row.try_get("headers")?;
    let headers: Headers = serde_json::from_value(headers).map_err(|_error| bad("headers"))?;
    Ok(Envelope {
        tx_id: TxId(row.try_get("tx_id")?),
        root_id: RootId(row.try_get("root_id")?),
        message_id,
        correlation_id,
        content_type: row.try_get("content_type")?,
        headers,
        body: row.try_get::<_, Option<Vec<u8>>>("message")?.map(Bytes::from).unwrap_or_default(),
    })
}
