//! A transaction that several messages share: one compare-and-set, their steps without waiting in between, or a savepoint
//! for each (protocol §7).

use std::pin::Pin;

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use futures_util::future::{maybe_done, poll_fn};
use std::task::Poll;
use tokio_postgres::Statement;
use uuid::Uuid;

use super::entry::OUTGOING;
use super::step::{execute_prepared, step_params};
use super::work::TAKE;
use super::{InsertRows, Outgoing, StepParam, Store, StoreError, WorkTransaction};
use crate::model::{Destination, Envelope, TxId};
use crate::txn::faults::{Point, reach};

/// A row that a group wants, with its body's SHA-256.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub tx_id: TxId,
    pub sha256: &'a [u8],
}

/// What a step does in the home's transaction, known before anything is sent.
#[derive(Debug)]
pub enum StepCall<'a> {
    /// Its own statement; `rows`: it only inserts one.
    Query { sql: &'a str, params: Vec<Option<Bytes>>, rows: Option<&'a InsertRows> },
    /// A journal row for what it sends: this envelope's payload.
    Send { envelope: Envelope, outgoing: Outgoing },
}

/// The step whose call failed, by its place in the list, and why.
#[derive(Debug)]
pub struct FailedCall {
    pub at: usize,
    pub error: StoreError,
}

/// One statement with its parameters.
pub(super) enum Request<'a> {
    Query(&'a str, Vec<StepParam<'a>>),
    Send(&'a Envelope, &'a Outgoing),
}

impl<'a> Request<'a> {
    pub(super) fn of(call: &'a StepCall<'_>) -> Self {
        match call {
            StepCall::Query { sql, params, .. } => Self::Query(sql, step_params(params)),
            StepCall::Send { envelope, outgoing } => Self::Send(envelope, outgoing),
        }
    }

    pub(super) async fn prepare(&self, client: &ClientWrapper) -> Result<Statement, StoreError> {
        let sql = match self {
            Self::Query(sql, _) => sql,
            Self::Send(..) => OUTGOING,
        };
        Ok(client.prepare_cached(sql).await?)
    }
}

impl WorkTransaction {
    /// The compare-and-set of a group whose rows nobody has tried: answers those that it took, with their
    /// `max_attempts`. Of the others somebody else has, had or may yet have the row; look.
    pub async fn take_group(
        &self,
        store: &Store,
        destination: &Destination,
        wanted: &[Wanted<'_>],
    ) -> Result<Vec<(TxId, i32)>, StoreError> {
        reach(Point::DQ5).await?;
        let client = self.session().client()?;
        let tx_ids: Vec<Uuid> = wanted.iter().map(|row| row.tx_id.0).collect();
        let hashes: Vec<&[u8]> = wanted.iter().map(|row| row.sha256).collect();
        let taken = async {
            let statement = client.prepare_cached(TAKE).await?;
            let rows = client.query(&statement, &[&tx_ids, &hashes, &destination.as_str(), &0_i32]).await?;
            Ok(rows.iter().map(|row| (TxId(row.get(0)), row.get(1))).collect())
        };
        self.heed(store.work.bounded(taken).await)
    }

    /// Runs these calls one after the other, and proves the transaction whole; each is sent without waiting for the answer
    /// to the one before.
    ///
    /// # Errors
    /// The first that failed; what came after it did nothing, or comes to nothing with the transaction.
    pub async fn execute_all(&self, store: &Store, calls: &[&StepCall<'_>]) -> Result<(), FailedCall> {
        let requests: Vec<Request<'_>> = calls.iter().map(|call| Request::of(call)).collect();
        self.execute_requests(store, &requests).await
    }

    pub(super) async fn execute_requests(&self, store: &Store, requests: &[Request<'_>]) -> Result<(), FailedCall> {
        let mut statements: Vec<Statement> = Vec::with_capacity(requests.len());
        for (at, request) in requests.iter().enumerate() {
            let prepared = async { request.prepare(self.session().client()?).await };
            statements.push(self.heed(prepared.await).map_err(|error| FailedCall { at, error })?);
        }
        let sent = requests.iter().zip(&statements).map(|(request, statement)| self.send(store, request, statement));
        let (answers, probed) = tokio::join!(biased; in_order(sent), self.probe());
        for (at, answer) in answers.into_iter().enumerate() {
            self.heed(answer).map_err(|error| FailedCall { at, error })?;
        }
        probed.map_err(|error| FailedCall { at: requests.len(), error })
    }

    pub(super) async fn send(
        &self,
        store: &Store,
        request: &Request<'_>,
        statement: &Statement,
    ) -> Result<(), StoreError> {
        match request {
            Request::Query(_, params) => execute_prepared(self.session().client()?, statement, params).await.map(drop),
            Request::Send(envelope, outgoing) => {
                self.insert_outgoing(store, statement, envelope, std::slice::from_ref(outgoing)).await
            }
        }
    }

    /// What follows can be undone by itself.
    pub async fn save(&self, store: &Store) -> Result<(), StoreError> {
        self.say(store, "SAVEPOINT message").await
    }

    /// Keeps what was done since `save`, unless the transaction as a whole is undone.
    pub async fn keep(&self, store: &Store) -> Result<(), StoreError> {
        self.say(store, "RELEASE SAVEPOINT message").await
    }

    /// Undoes what was done since `save`.
    pub async fn undo(&self, store: &Store) -> Result<(), StoreError> {
        self.say(store, "ROLLBACK TO SAVEPOINT message; RELEASE SAVEPOINT message").await
    }

    async fn say(&self, store: &Store, words: &str) -> Result<(), StoreError> {
        store.work.bounded(async { Ok(self.session().client()?.batch_execute(words).await?) }).await
    }
}

/// Begins them in this order, then waits for all. The client sends a request when it is first polled.
pub(super) async fn in_order<T, F: Future<Output = T>>(calls: impl Iterator<Item = F>) -> Vec<T> {
    let mut calls: Vec<Pin<Box<_>>> = calls.map(|call| Box::pin(maybe_done(call))).collect();
    poll_fn(|cx| {
        for call in &mut calls {
            let _begun = call.as_mut().poll(cx).is_ready();
        }
        Poll::Ready(())
    })
    .await;
    let mut answers = Vec::with_capacity(calls.len());
    for call in &mut calls {
        call.as_mut().await;
        answers.extend(call.as_mut().take_output());
    }
    answers
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::in_order;

    #[tokio::test]
    async fn every_call_is_begun_in_order_before_any_answer_is_awaited() {
        let said = Mutex::new(Vec::new());
        let said = &said;
        let calls = (0..100).map(|number| async move {
            said.lock().unwrap().push(format!("begun {number}"));
            tokio::task::yield_now().await;
            said.lock().unwrap().push(format!("answered {number}"));
            number
        });
        assert_eq!(in_order(calls).await, (0..100).collect::<Vec<_>>());
        let said = said.lock().unwrap();
        let begun: Vec<String> = (0..100).map(|number| format!("begun {number}")).collect();
        assert_eq!(said[..100], begun);
    }
}
