//! A group's whole transaction in one round trip: BEGIN, the compare-and-set, the rows of all, the probe, COMMIT, each sent
//! without waiting for the answer to the one before (protocol §7).

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done, poll_fn};
use tokio_postgres::Statement;
use uuid::Uuid;

use super::group::Request;
use super::pool::settings;
use super::step::{commit_untouched, send_commit};
use super::work::PROBE;
use super::{CommitError, InRows, Session, Store, StoreError, Wanted, WorkTransaction};
use crate::model::Destination;
use crate::txn::faults::{Point, reach};

/// Should it fail, what is sent behind it is refused: outside a transaction the sessions of this pool only read.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
/// The COMMIT behind it has the session's own time again.
const UNHURRIED: &str = "SET LOCAL statement_timeout = DEFAULT";
/// Of all rows or none; migrations/V10__named.sql. Refused with [`NOT_ALL`] or [`TOUCHED`].
const TAKE_ALL: &str = concat!(
    "/* take_all */ SELECT posthaste.take_all($1, $2, $3, ",
    settings!(),
    " OPERATOR(pg_catalog.=) pg_catalog.current_setting('posthaste.session'), $4)"
);
const NOT_ALL: &str = "PH001";
/// A step's function has left settings in the session: it is not used again.
pub(super) const TOUCHED: &str = "PH002";

impl CommitError {
    /// Nothing was done: somebody else has, had or may yet have some of the rows.
    #[must_use]
    pub fn is_not_all(&self) -> bool {
        matches!(self, Self::RolledBack(error) if error.sqlstate() == Some(NOT_ALL))
    }
}

impl Store {
    /// Takes these rows, which nobody has tried, does what their messages' steps do, and commits: all or nothing. Only for
    /// tables that [`Store::takes_rows`] has found plain: nothing there can touch the session. `bound`: of each statement, for
    /// once it is sent nothing can be cancelled any more.
    ///
    /// # Errors
    /// The first that failed; whose fault it is only each message by itself can tell.
    pub async fn commit_rows(
        &self,
        destination: &Destination,
        wanted: &[Wanted<'_>],
        rows: &InRows<'_>,
        bound: Duration,
    ) -> Result<(), CommitError> {
        let requests = rows.requests();
        let (session, statements) = self.prepare_rows(&requests).await.map_err(CommitError::RolledBack)?;
        let transaction = WorkTransaction::about_to_begin(session);
        let proof = transaction.begin_and_do(self, destination, wanted, &requests, &statements, bound);
        let proof = self.rows.bounded(proof);
        let sent = send_commit(proof, commit_untouched(&self.rows, transaction.session())).await;
        let ended = transaction.committed(self, sent, std::convert::identity).await;
        match reach(Point::DQ2).await {
            Ok(()) => ended,
            Err(injected) => Err(CommitError::Unknown(injected.into())),
        }
    }

    async fn prepare_rows(&self, requests: &[Request<'_>]) -> Result<(Session, Vec<Statement>), StoreError> {
        for point in [Point::DQ4, Point::DQ6, Point::DQ7, Point::DQ5, Point::DQ1] {
            reach(point).await?;
        }
        self.at_home()?;
        let session = self.rows.session().await?;
        let statements = async {
            let client = session.client()?;
            let mut statements = vec![client.prepare_cached(TAKE_ALL).await?];
            for request in requests {
                statements.push(request.prepare(client).await?);
            }
            Ok(statements)
        };
        let statements = self.rows.bounded(statements).await?;
        Ok((session, statements))
    }
}

impl WorkTransaction {
    async fn begin_and_do(
        &self,
        store: &Store,
        destination: &Destination,
        wanted: &[Wanted<'_>],
        requests: &[Request<'_>],
        statements: &[Statement],
        bound: Duration,
    ) -> Result<(), StoreError> {
        let client = self.session().client()?;
        let Some((take, statements)) = statements.split_first() else {
            return Err(StoreError::Unexpected("nothing was prepared".to_owned()));
        };
        let tx_ids: Vec<Uuid> = wanted.iter().map(|row| row.tx_id.0).collect();
        let hashes: Vec<&[u8]> = wanted.iter().map(|row| row.sha256).collect();
        let (tx_ids, hashes, destination) = (&tx_ids, &hashes, destination.as_str());
        let bound = i32::try_from(bound.as_millis().max(1)).unwrap_or(i32::MAX);
        let probe = format!("{PROBE}; {UNHURRIED}");
        let begin = async move { Ok(client.batch_execute(BEGIN).await?) };
        let take = async move { Ok(client.execute(take, &[tx_ids, hashes, &destination, &bound]).await.map(drop)?) };
        let mut calls = vec![begin.boxed(), take.boxed()];
        let rows = requests.iter().zip(statements);
        calls.extend(rows.map(|(request, statement)| self.send(store, request, statement).boxed()));
        calls.push(async move { Ok(client.batch_execute(&probe).await?) }.boxed());
        in_one_go(calls).await
    }
}

/// Begins these calls in this order, and waits for their answers. The client sends a request when it is first polled: one
/// that it cannot send is the last that is begun, and the answer at once.
async fn in_one_go(calls: Vec<BoxFuture<'_, Result<(), StoreError>>>) -> Result<(), StoreError> {
    let mut calls: Vec<MaybeDone<_>> = calls.into_iter().map(maybe_done).collect();
    poll_fn(|cx| {
        let mut begun = calls.iter_mut().map(|call| (call.poll_unpin(cx).is_ready(), call));
        let failed =
            begun.find_map(|(answered, call)| answered.then(|| Pin::new(call).output_mut()?.clone().err()).flatten());
        Poll::Ready(failed.map_or(Ok(()), Err))
    })
    .await?;
    for call in &mut calls {
        (&mut *call).await;
        Pin::new(call).take_output().unwrap_or(Ok(()))?;
    }
    Ok(())
}
