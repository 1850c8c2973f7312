//! What a step does in a session, and how its transaction ends there: alike in the home and in branches.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use futures_util::future::poll_fn;
use tokio_postgres::Statement;

use super::names;
use super::pool::{REMEMBER, settings};
use super::{Pool, Session, StepParam, StoreError, WorkTransaction};

/// Whether the session's settings are what they were when it was made. What a step's function did to them must not reach
/// the next user of the connection; a rollback undoes it itself.
const UNTOUCHED: &str = concat!(
    "/* untouched */ SELECT ",
    settings!(),
    " OPERATOR(pg_catalog.=) pg_catalog.current_setting('posthaste.session')"
);
const TIDY: &str = "RESET synchronous_commit; RESET lock_timeout; RESET statement_timeout;
    RESET idle_in_transaction_session_timeout; RESET SESSION AUTHORIZATION; RESET ROLE; RESET search_path; RESET default_transaction_read_only";

impl WorkTransaction {
    /// Runs a step's statement with its parameters bound.
    ///
    /// # Errors
    /// Any `Refused` leaves the transaction broken: roll back.
    pub async fn execute_step(&self, sql: &str, params: &[Option<Bytes>]) -> Result<u64, StoreError> {
        self.session().carries(bytes_of(params));
        let client = self.session().client()?;
        let step = async {
            let statement = client.prepare_cached(sql).await?;
            execute_prepared(client, &statement, &step_params(params)).await
        };
        self.heed(step.await)
    }
}

pub(super) fn bytes_of(params: &[Option<Bytes>]) -> usize {
    params.iter().flatten().map(Bytes::len).sum()
}

pub(super) fn step_params(values: &[Option<Bytes>]) -> Vec<StepParam<'_>> {
    values.iter().map(|value| StepParam(value.as_deref())).collect()
}

pub(super) async fn execute_prepared(
    client: &ClientWrapper,
    statement: &Statement,
    params: &[StepParam<'_>],
) -> Result<u64, StoreError> {
    if statement.params().len() != params.len() {
        return Err(StoreError::Unexpected(format!(
            "the statement has {} parameters, the step gives {}",
            statement.params().len(),
            params.len()
        )));
    }
    let values: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = params.iter().map(|value| value as _).collect();
    Ok(client.execute(statement, &values).await?)
}

/// Whether a session may go back to its pool after its transaction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tidy {
    Yes,
    No,
}

/// Ends the transaction with this word. The answer is the word's own: what goes wrong after it, such as a statement
/// time-out that fires once a slow COMMIT is through, is told apart.
pub(super) async fn end_with(pool: &Pool, session: &Session, word: &str) -> Result<Tidy, StoreError> {
    let both = async {
        let client = session.client()?;
        session.expect_no_warning();
        // Sent with the word, not after it.
        Ok(tokio::join!(client.batch_execute(word), tidy(client)))
    };
    let (ended, tidied) = pool.bounded(both).await?;
    ended?;
    session.waited()?;
    Ok(if tidied.is_ok() { Tidy::Yes } else { Tidy::No })
}

/// What came of a proof and the COMMIT behind it.
pub(super) enum Sent {
    /// The proof could not be sent.
    Nothing(StoreError),
    Both {
        proved: Result<(), StoreError>,
        commit: Result<Tidy, StoreError>,
    },
}

/// COMMIT alone, where no step can have touched the session's settings.
pub(super) async fn commit_untouched(pool: &Pool, session: &Session) -> Result<Tidy, StoreError> {
    session.expect_no_warning();
    pool.bounded(async { Ok(session.client()?.batch_execute("COMMIT").await?) }).await?;
    session.waited()?;
    Ok(Tidy::Yes)
}

/// Sends COMMIT behind a proof without waiting for it: a broken transaction answers COMMIT with ROLLBACK, which the client
/// reports as success, and the proof tells. `commit` sends it when it is first polled.
pub(super) async fn send_commit(
    proof: impl Future<Output = Result<(), StoreError>>,
    commit: impl Future<Output = Result<Tidy, StoreError>>,
) -> Sent {
    let mut proof = pin!(proof);
    // The client sends a request when it is first polled; what it cannot send must not be followed by a COMMIT.
    let first = poll_fn(|cx| Poll::Ready(proof.as_mut().poll(cx))).await;
    if let Poll::Ready(Err(error)) = first {
        return Sent::Nothing(error);
    }
    let proof = async {
        match first {
            Poll::Ready(proved) => proved,
            Poll::Pending => proof.await,
        }
    };
    let (proved, commit) = tokio::join!(proof, commit);
    Sent::Both { proved, commit }
}

async fn tidy(client: &ClientWrapper) -> Result<(), tokio_postgres::Error> {
    let statement = client.prepare_cached(UNTOUCHED).await?;
    if client.query_one(&statement, &[]).await?.get(0) {
        return Ok(());
    }
    client.batch_execute(TIDY).await?;
    names::open(client).await?;
    client.batch_execute(REMEMBER).await
}

/// Asks the server to end the statement that runs.
pub(super) async fn cancel(session: &Session) {
    let Ok(client) = session.client() else { return };
    let token = client.cancel_token();
    let sent = tokio::time::timeout(Duration::from_secs(2), token.cancel_query(tokio_postgres::NoTls));
    if !matches!(sent.await, Ok(Ok(()))) {
        tracing::debug!("cancel request not delivered; the statement's own time-out ends it");
    }
}
