//! What several messages do in a branch that they share (protocol §7): as in the home's transaction, see `group`.

use std::time::Instant;

use tokio_postgres::Statement;

use super::branch::WROTE;
use super::group::{Request, in_order};
use super::step::execute_prepared;
use super::together::TAKES_ROWS;
use super::{BranchTransaction, FailedCall, InRows, StepCall, StoreError};

impl BranchTransaction {
    /// As [`super::WorkTransaction::execute_all`], but for the proof: PREPARE is sent behind one.
    ///
    /// # Errors
    /// The same.
    pub async fn execute_all(&mut self, calls: &[&StepCall<'_>]) -> Result<(), FailedCall> {
        let requests: Vec<Request<'_>> = calls.iter().map(|call| Request::of(call)).collect();
        self.execute_requests(&requests).await
    }

    /// Whether the tables behave alike whether their rows come in one statement or in many; as they were a second ago at
    /// most.
    pub async fn takes_rows(&self, rows: &InRows<'_>) -> Result<bool, StoreError> {
        let (tables, database) = (rows.tables(), self.database());
        if tables.is_empty() {
            return Ok(false);
        }
        if let Some(plain) = database.plain_tables.known(&tables) {
            return Ok(plain);
        }
        let client = self.session()?.client()?;
        let began = Instant::now();
        let asked = async {
            let statement = client.prepare_cached(TAKES_ROWS).await?;
            Ok(client.query_one(&statement, &[&tables]).await?.get(0))
        };
        let plain = database.work.bounded(asked).await?;
        database.plain_tables.learn(&tables, plain, began);
        Ok(plain)
    }

    /// As [`super::WorkTransaction::execute_in_rows`].
    ///
    /// # Errors
    /// The same.
    pub async fn execute_in_rows(&mut self, rows: &InRows<'_>) -> Result<(), StoreError> {
        self.execute_requests(&rows.requests()).await.map_err(|failed| failed.error)
    }

    /// Sends all, and behind them the question what there is to commit.
    async fn execute_requests(&mut self, requests: &[Request<'_>]) -> Result<(), FailedCall> {
        let after = |error: StoreError| FailedCall { at: requests.len(), error };
        let client = self.session().and_then(|session| session.client()).map_err(after)?;
        let wrote = client.prepare_cached(WROTE).await.map_err(|error| after(error.into()))?;
        let mut statements: Vec<Statement> = Vec::with_capacity(requests.len());
        for (at, request) in requests.iter().enumerate() {
            let prepared = match request {
                Request::Query(sql, _) => client.prepare_cached(sql).await.map_err(StoreError::from),
                Request::Send(..) => Err(StoreError::Unexpected("messages are sent by the home alone".to_owned())),
            };
            statements.push(self.heed(prepared).map_err(|error| FailedCall { at, error })?);
        }
        let sent = requests.iter().zip(&statements).map(|(request, statement)| async move {
            match request {
                Request::Query(_, params) => execute_prepared(client, statement, params).await,
                Request::Send(..) => Ok(0),
            }
        });
        let (answers, wrote) = tokio::join!(biased; in_order(sent), client.query_one(&wrote, &[]));
        for (at, answer) in answers.into_iter().enumerate() {
            self.heed(answer).map_err(|error| FailedCall { at, error })?;
        }
        let wrote = wrote.map_err(|error| after(error.into()))?;
        self.learn(&wrote).map_err(after)
    }
}
