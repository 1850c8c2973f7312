//! Reading columns without panics.

use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use uuid::Uuid;

use super::StoreError;
use super::lifecourse::{Attempt, AttemptOutcome};
use crate::model::{Incarnation, StoreType, TxId};

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

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A row of `posthaste.attempt`.
pub(super) fn attempt(row: &Row) -> Result<Attempt, StoreError> {
    let outcome: &str = column(row, "outcome")?;
    Ok(Attempt {
        tx_id: TxId(column(row, "tx_id")?),
        n: column(row, "n")?,
        adapter: column(row, "adapter")?,
        step: column(row, "step")?,
        started_at: column(row, "started_at")?,
        finished_at: column(row, "finished_at")?,
        outcome: AttemptOutcome::from_text(outcome)
            .ok_or_else(|| StoreError::Unexpected(format!("attempt.outcome is {outcome:?}")))?,
        error: column(row, "error")?,
        instance: column::<Option<Uuid>>(row, "instance")?.map(Incarnation),
    })
}
