//! Deleting from the stores: a person's act, on record.

use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::audit::append_audit;
use super::names::Names;
use super::row::{column, store_type};
use super::stored::hex;
use super::{AuditEntry, Store, StoreError};
use crate::model::{MessageKey, RootId, SlotId, StoreType};

/// Types of rows of which nothing else stands for the message: where one is deleted, nothing becomes of it any more.
pub(super) const WAITING: [&str; 4] = ["E", "H", "I", "M"];

/// What became of a wish to delete one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    Removed,
    NotFound,
    /// Somebody else works on the row this very moment.
    Busy,
    /// A row of a message log that still serves: without it a repeat would be accepted a second time (I4). Forcing
    /// deletes it.
    Kept {
        reason: String,
    },
    /// A row whose message is still on its way, and whose body stands nowhere else (I1). Not even forcing deletes it.
    InUse,
}

/// Who deletes, why, and whether log rows inside their retention go too.
#[derive(Debug, Clone)]
pub struct RemovalRequest<'a> {
    pub who: &'a str,
    pub why: Option<&'a str>,
    pub force: bool,
}

impl Store {
    /// Deletes one row and puts it on record, in one transaction. An error leaves the row; `Unknown` may not.
    pub async fn remove_message(
        &self,
        slot: &SlotId,
        key: MessageKey,
        request: &RemovalRequest<'_>,
    ) -> Result<Removal, StoreError> {
        let removal =
            self.house.transaction(async |client| remove(client, &self.names, slot, key, request).await).await;
        match removal {
            Err(error) if error.sqlstate() == Some("55P03") => Ok(Removal::Busy),
            other => other,
        }
    }
}

async fn remove(
    client: &ClientWrapper,
    names: &Names,
    slot: &SlotId,
    key: MessageKey,
    request: &RemovalRequest<'_>,
) -> Result<Removal, StoreError> {
    let locked = client
        .query_opt(
            &*names.sql(
                "/* remove_lock */ SELECT type, messageid, correlationid, root_id, expirydate, sha256,
                    octet_length(message) AS size, expirydate <= clock_timestamp() AS expired
             FROM :ibisstore WHERE messagekey = $1 AND slotid = $2 FOR UPDATE NOWAIT",
            ),
            &[&key.0, &slot.as_str()],
        )
        .await?;
    let Some(row) = locked else { return Ok(Removal::NotFound) };
    let kind = store_type(column(&row, "type")?)?;
    let root_id: Uuid = column(&row, "root_id")?;
    match kind {
        StoreType::Log | StoreType::SenderLog => {
            let (open, waiting) = still_needed(client, names, root_id, key).await?;
            if open {
                return Ok(Removal::InUse);
            }
            let expired: Option<bool> = column(&row, "expired")?;
            if !request.force && (waiting || expired != Some(true)) {
                return Ok(Removal::Kept { reason: kept_reason(waiting, column(&row, "expirydate")?) });
            }
        }
        StoreType::Error | StoreType::Waiting | StoreType::InProcess | StoreType::Hold => {}
    }
    client.execute(&*names.sql("/* remove_message */ DELETE FROM :ibisstore WHERE messagekey = $1"), &[&key.0]).await?;
    let detail = json!({
        "type": kind.as_str(),
        "messageId": column::<&str>(&row, "messageid")?,
        "correlationId": column::<Option<&str>>(&row, "correlationid")?,
        "size": column::<i32>(&row, "size")?,
        "sha256": hex(column(&row, "sha256")?),
        "force": request.force,
    });
    let target = format!("{slot}/{key}");
    let entry = AuditEntry {
        who: request.who,
        what: "delete",
        target: &target,
        why: request.why,
        root_id: Some(RootId(root_id)),
        outcome: Some("succeeded"),
        detail,
    };
    append_audit(client, &entry).await?;
    Ok(Removal::Removed)
}

/// Whether an open journal row takes its body from this row, and whether a row of the same root waits for a person.
async fn still_needed(
    client: &ClientWrapper,
    names: &Names,
    root_id: Uuid,
    key: MessageKey,
) -> Result<(bool, bool), StoreError> {
    let row = client
        .query_one(
            &*names.sql(
                "/* remove_still_needed */ SELECT
                 EXISTS (SELECT FROM posthaste.journal j
                         WHERE j.tx_id = ANY($1::uuid || ARRAY(SELECT tx_id FROM posthaste.lineage WHERE root_id = $1))
                           AND j.log_key = $2 AND j.state IN ('READY', 'PUBLISHED')) AS open,
                 EXISTS (SELECT FROM :ibisstore s
                         WHERE s.root_id = $1 AND s.type IN ('E', 'H', 'I', 'M')) AS waiting",
            ),
            &[&root_id, &key.0],
        )
        .await?;
    Ok((column(&row, "open")?, column(&row, "waiting")?))
}

fn kept_reason(waiting: bool, expiry: Option<Timestamp>) -> String {
    match (waiting, expiry) {
        (true, _) => "the message still stands in an error store or on hold; its log row detects repeats".to_owned(),
        (false, Some(expiry)) => {
            format!("it detects repeats of this message until {expiry}; deleting it would let one in")
        }
        (false, None) => {
            "it detects repeats of this message and never expires; deleting it would let one in".to_owned()
        }
    }
}
