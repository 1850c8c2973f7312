//! Which adapters an operator wants stopped. It outlives restarts.

use jiff::Timestamp;
use serde_json::json;

use super::audit::append_audit;
use super::row::column;
use super::{AuditEntry, Store, StoreError};
use crate::model::{AdapterName, AdapterState};

/// What an operator asked for. An adapter without one is wanted STARTED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Started,
    Stopped,
}

impl Wish {
    const fn state(self) -> AdapterState {
        match self {
            Self::Started => AdapterState::Started,
            Self::Stopped => AdapterState::Stopped,
        }
    }

    const fn act(self) -> &'static str {
        match self {
            Self::Started => "start",
            Self::Stopped => "stop",
        }
    }

    fn from_text(text: &str) -> Result<Self, StoreError> {
        match AdapterState::from_text(text) {
            Some(AdapterState::Started) => Ok(Self::Started),
            Some(AdapterState::Stopped) => Ok(Self::Stopped),
            Some(AdapterState::Starting | AdapterState::Stopping | AdapterState::Error) | None => {
                Err(StoreError::Unexpected(format!("adapter_state.wanted is {text:?}")))
            }
        }
    }
}

/// A wish on record.
#[derive(Debug, Clone)]
pub struct AdapterWish {
    pub adapter: AdapterName,
    pub wish: Wish,
    pub changed_at: Timestamp,
    pub changed_by: String,
}

impl Store {
    /// All wishes on record, also of adapters that no configuration has any more.
    pub async fn adapter_wishes(&self) -> Result<Vec<AdapterWish>, StoreError> {
        let sql = "/* adapter_wishes */ SELECT adapter, wanted, changed_at, changed_by FROM posthaste.adapter_state
                   ORDER BY adapter";
        let rows = self.house.run(async |client| Ok(client.query(sql, &[]).await?)).await?;
        rows.iter()
            .map(|row| {
                Ok(AdapterWish {
                    adapter: AdapterName::new(column(row, "adapter")?),
                    wish: Wish::from_text(column(row, "wanted")?)?,
                    changed_at: column(row, "changed_at")?,
                    changed_by: column(row, "changed_by")?,
                })
            })
            .collect()
    }

    /// Records a wish and who had it, in one transaction.
    pub async fn wish_adapter(
        &self,
        adapter: &AdapterName,
        wish: Wish,
        who: &str,
        why: Option<&str>,
    ) -> Result<(), StoreError> {
        let entry = AuditEntry {
            who,
            what: wish.act(),
            target: adapter.as_str(),
            why,
            root_id: None,
            outcome: None,
            detail: json!({}),
        };
        self.house
            .transaction(async |client| {
                client
                    .execute(
                        "/* wish_adapter */ INSERT INTO posthaste.adapter_state (adapter, wanted, changed_by)
                         VALUES ($1, $2, $3)
                         ON CONFLICT (adapter) DO UPDATE
                         SET wanted = EXCLUDED.wanted, changed_by = EXCLUDED.changed_by,
                             changed_at = clock_timestamp()",
                        &[&adapter.as_str(), &wish.state().as_str(), &who],
                    )
                    .await?;
                append_audit(client, &entry).await
            })
            .await
    }
}
