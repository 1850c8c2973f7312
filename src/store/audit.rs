//! Who did what, when and why.

use deadpool_postgres::ClientWrapper;
use serde_json::Value;

use super::{Store, StoreError};
use crate::model::RootId;

/// Longest name of an actor or target, and longest reason, in characters.
const MAX_NAME: usize = 200;
const MAX_WHY: usize = 1000;

/// One act of an operator. `detail` holds no payload.
#[derive(Debug, Clone)]
pub struct AuditEntry<'a> {
    pub who: &'a str,
    /// The act: `start`, `stop`, `delete`, `resend` …
    pub what: &'a str,
    /// What it was done to: an adapter's name, `slot/key`.
    pub target: &'a str,
    pub why: Option<&'a str>,
    /// The message concerned; its trace shows the act.
    pub root_id: Option<RootId>,
    pub outcome: Option<&'a str>,
    pub detail: Value,
}

impl Store {
    /// Puts an act on record, alone.
    pub async fn audit(&self, entry: &AuditEntry<'_>) -> Result<(), StoreError> {
        self.house.run(async |client| append_audit(client, entry).await).await
    }
}

/// Puts an act on record in the transaction that does it: both stand or neither.
pub(super) async fn append_audit(client: &ClientWrapper, entry: &AuditEntry<'_>) -> Result<(), StoreError> {
    let who = printable(entry.who, MAX_NAME);
    let target = printable(entry.target, MAX_NAME);
    let why = entry.why.map(|why| printable(why, MAX_WHY)).filter(|why| !why.is_empty());
    let root_id = entry.root_id.map(|root| root.0);
    client
        .execute(
            "/* append_audit */ INSERT INTO posthaste.audit (who, what, target, why, root_id, outcome, detail)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[&who, &entry.what, &target, &why, &root_id, &entry.outcome, &entry.detail],
        )
        .await?;
    Ok(())
}

/// Text that PostgreSQL takes and a terminal bears: no control characters, at most `max` characters.
fn printable(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_reason_loses_its_control_characters_and_what_is_too_long() {
        assert_eq!(printable("a\0b\u{1b}[31m\n ", 100), "ab[31m");
        assert_eq!(printable("ééé", 2), "éé");
    }
}
