//! Whether a plan that a session has kept is to blame for a value that does not fit: a parameter has the type that its
//! column had when the statement was prepared.

use super::{BranchTransaction, Plans, Pool, Session, Store, StoreError, WorkTransaction};

impl WorkTransaction {
    #[must_use]
    pub fn plans(&self) -> Plans {
        self.plans
    }

    pub(super) fn heed<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        answer.inspect_err(|error| self.session.heed(error))
    }

    /// Whether this statement, prepared anew, has other parameters or results than when its plan was made. To be asked
    /// where nothing is broken any more.
    pub async fn is_outdated(&self, store: &Store, sql: &str) -> bool {
        is_outdated(&store.work, self.session(), sql).await
    }

    /// Rolls back, and answers the same.
    pub async fn roll_back_after(self, store: &Store, sql: &str) -> bool {
        roll_back_and_look(&store.work, self.session, sql).await
    }
}

impl BranchTransaction {
    /// As [`WorkTransaction::roll_back_after`].
    pub async fn roll_back_after(&mut self, sql: &str) -> bool {
        let Some(session) = self.take_session() else { return false };
        roll_back_and_look(&self.database().work, session, sql).await
    }
}

/// In a transaction of its own: there the statement means what it means to the application.
async fn roll_back_and_look(pool: &Pool, session: Session, sql: &str) -> bool {
    let again = format!("ROLLBACK; {}", session.begin());
    if pool.bounded(async { Ok(session.client()?.batch_execute(&again).await?) }).await.is_err() {
        return false;
    }
    let outdated = is_outdated(pool, &session, sql).await;
    if pool.bounded(async { Ok(session.client()?.batch_execute("ROLLBACK").await?) }).await.is_ok() {
        session.release();
    }
    outdated
}

async fn is_outdated(pool: &Pool, session: &Session, sql: &str) -> bool {
    let look = async {
        let client = session.client()?;
        let (kept, now) = (client.prepare_cached(sql).await?, client.prepare(sql).await?);
        let results = |statement: &tokio_postgres::Statement| -> Vec<_> {
            statement.columns().iter().map(|column| column.type_().clone()).collect()
        };
        Ok(kept.params() != now.params() || results(&kept) != results(&now))
    };
    let outdated = pool.bounded(look).await.unwrap_or(false);
    if outdated {
        session.spoil();
    }
    outdated
}
