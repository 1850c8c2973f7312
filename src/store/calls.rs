//! Work in a session that goes back to its pool when every reply was read.

use deadpool_postgres::ClientWrapper;

use super::pool::commit;
use super::{Pool, Session, StoreError};

impl Pool {
    /// Runs `work` outside an explicit transaction and pools the connection when every reply was read.
    pub async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&ClientWrapper) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.run_with(0, work).await
    }

    /// The same, which carries so many bytes of bodies at once.
    pub(super) async fn run_with<T>(
        &self,
        bytes: usize,
        work: impl AsyncFnOnce(&ClientWrapper) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let session = self.session_for(bytes).await?;
        let answer = tokio::time::timeout(self.answer, work(session.client()?)).await;
        self.settle(session, answer)
    }

    /// Runs `work` in a READ COMMITTED transaction and commits it; an error rolls back.
    pub async fn transaction<T>(
        &self,
        work: impl AsyncFnOnce(&ClientWrapper) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.transaction_with(0, work).await
    }

    /// The same, which carries so many bytes of bodies at once.
    pub(super) async fn transaction_with<T>(
        &self,
        bytes: usize,
        work: impl AsyncFnOnce(&ClientWrapper) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let session = self.session_for(bytes).await?;
        let answer = tokio::time::timeout(self.answer, async {
            let client = session.client()?;
            client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
            match work(client).await {
                Ok(value) => match commit(client).await {
                    Ok(()) => Ok(value),
                    Err(error) => roll_back(client, error).await,
                },
                Err(error) => roll_back(client, error).await,
            }
        })
        .await;
        self.settle(session, answer)
    }

    async fn session_for(&self, bytes: usize) -> Result<Session, StoreError> {
        let session = self.session().await?;
        session.carries(bytes);
        Ok(session)
    }
}

/// Leaves no transaction open behind a refusal, whatever it was that was refused.
async fn roll_back<T>(client: &ClientWrapper, error: StoreError) -> Result<T, StoreError> {
    match error {
        StoreError::Refused { .. } | StoreError::Unexpected(_) => client.batch_execute("ROLLBACK").await?,
        // The connection is closed, not asked.
        StoreError::Unreachable(_) | StoreError::Unknown(_) => {}
    }
    Err(error)
}
