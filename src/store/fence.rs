//! Fencing an instance that seems dead (protocol §6): from then on it decides nothing any more.

use super::decision::fence_key;
use super::ending::end_sessions;
use super::pool::application_name;
use super::{Store, StoreError};
use crate::model::Incarnation;
use crate::txn::faults::{Point, reach};

/// Exclusive: waits until no decision of that incarnation is on its way, at most the session's lock time-out.
const FENCE_EXCLUSIVE: &str = "/* fence_exclusive */ SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
const FENCE: &str = "/* fence */
UPDATE posthaste.instance SET state = 'FENCED', fenced_at = clock_timestamp(), fenced_by = $3
WHERE incarnation = $1 AND heartbeat = $2 AND state = 'LIVE'";
const SIGN_OFF: &str = "/* sign_off */
UPDATE posthaste.instance SET state = 'FENCED', fenced_at = clock_timestamp(), fenced_by = incarnation
WHERE incarnation = $1 AND state = 'LIVE'";
/// A process that stands still inside a decision would keep everybody waiting for ever.
const SESSIONS: &str = "/* sessions_of */
SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()
  AND EXISTS (SELECT FROM posthaste.instance WHERE incarnation = $2 AND heartbeat = $3 AND state = 'LIVE')";

impl Store {
    /// Fences an instance whose counter still stands where it stood for a whole lease. `false`: it lives after all.
    /// A decision that is on its way is waited for; after that its sessions are ended, and waited for again.
    pub async fn fence(&self, incarnation: Incarnation, heartbeat: i64) -> Result<bool, StoreError> {
        reach(Point::RC1).await?;
        let fenced = match self.fence_once(incarnation, heartbeat).await {
            Err(error) if error.sqlstate() == Some("55P03") => {
                let name = application_name(incarnation);
                let ended = self
                    .house
                    .transaction(async |client| {
                        let those = client.query(SESSIONS, &[&name, &incarnation.0, &heartbeat]).await?;
                        let pids: Vec<i32> = those.iter().map(|row| row.get(0)).collect();
                        end_sessions(client, &pids, &name).await
                    })
                    .await?;
                tracing::warn!(instance = %incarnation, ended, "ended the sessions of an instance that stands still");
                self.fence_once(incarnation, heartbeat).await?
            }
            answer => answer?,
        };
        reach(Point::RC2).await?;
        Ok(fenced)
    }

    /// At the end of a graceful stop: whatever we left is nobody's now. A decision that is still on its way refuses it;
    /// then the lease ends by itself.
    pub async fn sign_off(&self) -> Result<(), StoreError> {
        let key = fence_key(self.incarnation);
        self.house
            .transaction(async |client| {
                client.query_one(FENCE_EXCLUSIVE, &[&key]).await?;
                Ok(client.execute(SIGN_OFF, &[&self.incarnation.0]).await.map(drop)?)
            })
            .await
    }

    async fn fence_once(&self, incarnation: Incarnation, heartbeat: i64) -> Result<bool, StoreError> {
        let key = fence_key(incarnation);
        self.house
            .transaction(async |client| {
                client.query_one(FENCE_EXCLUSIVE, &[&key]).await?;
                let fenced = client.execute(FENCE, &[&incarnation.0, &heartbeat, &self.incarnation.0]).await?;
                Ok(fenced == 1)
            })
            .await
    }
}
