//! Fencing an instance that seems dead (protocol §6): from then on it decides nothing any more.

use super::decision::fence_key;
use super::ending::end_sessions;
use super::instance::application_name;
use super::{Store, StoreError};
use crate::model::Incarnation;
use crate::txn::faults::{Point, reach};

/// Exclusive: waits until no decision of that incarnation is on its way, at most the session's lock time-out.
const FENCE_EXCLUSIVE: &str = "/* fence_exclusive */ SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
const FENCE: &str = "/* fence */
UPDATE posthaste.instance SET state = 'FENCED', fenced_at = clock_timestamp(), fenced_by = $3
WHERE incarnation = $1 AND heartbeat = $2 AND state = 'LIVE'";
const SIGN_OFF: &str = "/* sign_off */
UPDATE posthaste.instance
SET state = 'FENCED', fenced_at = clock_timestamp(), fenced_by = incarnation,
    stopping_at = coalesce(stopping_at, clock_timestamp())
WHERE incarnation = $1 AND state = 'LIVE'";
const ANNOUNCE_STOP: &str = "/* announce_stop */
UPDATE posthaste.instance SET stopping_at = coalesce(stopping_at, clock_timestamp())
WHERE incarnation = $1 AND state = 'LIVE'";
/// A statement goes on after its client has gone, and keeps its locks.
const END_OWN_SESSIONS: &str = "/* end_own_sessions */
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = $1 AND datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
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

    /// At the beginning of a stop: from now on no attempt that this instance leaves behind counts, however it ends.
    pub async fn announce_stop(&self) -> Result<(), StoreError> {
        self.beat.run(async |client| Ok(client.execute(ANNOUNCE_STOP, &[&self.incarnation.0]).await.map(drop)?)).await
    }

    /// At the end of a graceful stop: whatever we left is nobody's now. A decision that is still on its way refuses it;
    /// then the lease ends by itself. What still runs for us there is ended: whoever goes on with it need not wait.
    pub async fn sign_off(&self) -> Result<(), StoreError> {
        let (key, name) = (fence_key(self.incarnation), application_name(self.incarnation));
        let ended = self.house.run(async |client| Ok(client.query(END_OWN_SESSIONS, &[&name]).await?.len())).await;
        match ended {
            Ok(0) => {}
            Ok(ended) => tracing::info!(ended, "ended sessions of our own that were still at work"),
            Err(error) => tracing::debug!(%error, "sessions of our own may still be at work"),
        }
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
