//! Reading columns without panics.

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::StoreError;
use crate::model::StoreType;

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
