//! Bodies out of the database: how large they are, known before they are fetched, and the large ones in slices. An answer
//! stands in memory as it came and once more as it is read, and its connection keeps a buffer of that size.

use std::collections::BTreeMap;

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::names::Names;
use super::row::column;
use super::{Store, StoreError};
use crate::model::TxId;

/// The largest body that is fetched in one piece, in bytes.
pub(super) const WHOLE: i32 = 1 << 20;
/// More slices than these a body has not: PostgreSQL unpacks what it has compressed from its beginning for each.
const SLICES: i32 = 16;

/// Where a journal row's body stands: in the logged row, or apart.
macro_rules! with_body {
    () => {
        "posthaste.journal j
         LEFT JOIN :ibisstore l ON l.messagekey = j.log_key
         LEFT JOIN posthaste.payload p ON p.tx_id = j.tx_id AND j.log_key IS NULL"
    };
}
pub(super) use with_body;

/// How large the bodies are is told by their storage: none is read for it.
const SIZES: &str = concat!(
    "/* body_sizes */ SELECT j.tx_id, octet_length(coalesce(l.message, p.message)) AS bytes FROM ",
    with_body!(),
    " WHERE j.tx_id = ANY ($1)"
);
const OF_JOURNAL: &str = concat!(
    "/* body_slice */ SELECT substring(coalesce(l.message, p.message) FROM $2 FOR $3) FROM ",
    with_body!(),
    " WHERE j.tx_id = $1"
);
const OF_STORE: &str =
    "/* stored_slice */ SELECT substring(message FROM $2 FOR $3) FROM :ibisstore WHERE messagekey = $1";

impl Store {
    /// The bytes of these journal rows' bodies; a row whose message was deleted is left out.
    pub async fn body_sizes(&self, tx_ids: &[Uuid]) -> Result<BTreeMap<TxId, usize>, StoreError> {
        // Planned anew each time, as what claims them.
        let rows = self.house.run(async |client| Ok(client.query(&*self.sql(SIZES), &[&tx_ids]).await?)).await?;
        let mut sizes = BTreeMap::new();
        for row in &rows {
            if let Some(bytes) = column::<Option<i32>>(row, "bytes")? {
                sizes.insert(TxId(column(row, "tx_id")?), usize::try_from(bytes).unwrap_or(0));
            }
        }
        Ok(sizes)
    }
}

/// A journal row's body of so many bytes. `None`: it is not there any more.
pub(super) async fn of_journal(
    client: &ClientWrapper,
    names: &Names,
    tx_id: TxId,
    bytes: i32,
) -> Result<Option<Bytes>, StoreError> {
    let body = in_slices(client, &names.sql(OF_JOURNAL), (&tx_id.0, Type::UUID), bytes).await?;
    Ok(body.map(Bytes::from))
}

/// The same of a row of `ibisstore`.
pub(super) async fn of_store(
    client: &ClientWrapper,
    names: &Names,
    key: i64,
    bytes: i32,
) -> Result<Option<Vec<u8>>, StoreError> {
    in_slices(client, &names.sql(OF_STORE), (&key, Type::INT8), bytes).await
}

async fn in_slices(
    client: &ClientWrapper,
    sql: &str,
    key: (&(dyn ToSql + Sync), Type),
    bytes: i32,
) -> Result<Option<Vec<u8>>, StoreError> {
    let slice = (bytes / SLICES).max(WHOLE);
    let mut body = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    let mut read = 0;
    while read < bytes {
        let from = read + 1;
        let params = [(key.0, key.1.clone()), (&from, Type::INT4), (&slice, Type::INT4)];
        let rows = client.query_typed(sql, &params).await?;
        let part = rows.first().map(|row| row.try_get::<_, Option<&[u8]>>(0)).transpose()?.flatten();
        let Some(part) = part.filter(|part| !part.is_empty()) else { return Ok(None) };
        body.extend_from_slice(part);
        read = read.saturating_add(slice);
    }
    Ok(Some(body))
}
