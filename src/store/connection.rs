//! One connection: who serves it, and what its server says beside its answers.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use futures_util::future::poll_fn;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Config, Error, NoTls, SimpleQueryMessage};

use super::names::Kept;

pub(super) type Hook = managed::Hook<Manager>;
pub(super) type Object = managed::Object<Manager>;

/// The server's process behind a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pid: i32,
    /// When it was started, in microseconds since 1970: a pid comes again. `None`: this role may not see it.
    pub(super) started: Option<i64>,
}

const WHO_SERVES: &str = "/* who_serves */
SELECT pid, (pg_catalog.date_part('epoch', backend_start) OPERATOR(pg_catalog.*) 1000000)::bigint
FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())";

/// A client with its connection's task.
#[derive(Debug)]
pub(super) struct Connection {
    client: ClientWrapper,
    /// `None`: the server did not say; it is not one that we know.
    pub(super) backend: Option<Backend>,
    waits_cancelled: Arc<AtomicU64>,
    pub(super) kept: Kept,
}

impl Connection {
    /// How often this server has said that a commit did not wait for its standby to the end. What it says comes before the
    /// answer that it speaks of.
    pub(super) fn waits_cancelled(&self) -> u64 {
        self.waits_cancelled.load(Ordering::Acquire)
    }
}

impl Deref for Connection {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        &mut self.client
    }
}

/// Makes connections.
#[derive(Debug)]
pub(super) struct Manager {
    pub(super) config: Config,
}

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Error;

    async fn create(&self) -> Result<Connection, Error> {
        // In a box: every caller of a pool would carry it.
        Box::pin(self.connect()).await
    }

    async fn recycle(&self, connection: &mut Connection, _metrics: &Metrics) -> RecycleResult<Error> {
        if connection.is_closed() { Err(RecycleError::message("the connection is closed")) } else { Ok(()) }
    }
}

impl Manager {
    async fn connect(&self) -> Result<Connection, Error> {
        let (client, mut connection) = self.config.connect(NoTls).await?;
        let waits_cancelled = Arc::<AtomicU64>::default();
        let heard = waits_cancelled.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with its client, and a stop waits for those who use that"
        )]
        let task = tokio::spawn(async move {
            // Who asks over a connection that is lost is told by the client.
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message
                    && cancels_a_wait(notice.parsed_severity(), notice.code().code(), notice.routine())
                {
                    heard.fetch_add(1, Ordering::Release);
                }
            }
        });
        let client = ClientWrapper::new(client, task);
        let backend = client.simple_query(WHO_SERVES).await?.iter().find_map(backend_of);
        Ok(Connection { client, backend, waits_cancelled, kept: Kept::default() })
    }
}

fn backend_of(message: &SimpleQueryMessage) -> Option<Backend> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    let pid = row.get(0)?.parse().ok()?;
    Some(Backend { pid, started: row.get(1).and_then(|text| text.parse().ok()) })
}

/// Functions of PostgreSQL that warn under the same SQLSTATE and wait for nothing.
const OTHERS: [&str; 3] = ["exec_stmt_raise", "pg_signal_backend", "pg_terminate_backend"];

/// Whether a commit was answered although its standby may not have it: PostgreSQL says so by a mere warning (01000 after
/// `pg_cancel_backend`, 57P01 after `pg_terminate_backend`), translated. Whatever else warns so is taken for it: then an
/// outcome counts as unknown that was known.
fn cancels_a_wait(severity: Option<Severity>, sqlstate: &str, routine: Option<&str>) -> bool {
    matches!(severity, Some(Severity::Warning) | None)
        && matches!(sqlstate, "01000" | "57P01")
        && !routine.is_some_and(|routine| OTHERS.contains(&routine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_that_a_wait_was_cancelled_is_known_by_its_sqlstate() {
        for sqlstate in ["01000", "57P01"] {
            for routine in [Some("SyncRepWaitForLSN"), Some("of_a_fork"), None] {
                assert!(cancels_a_wait(Some(Severity::Warning), sqlstate, routine), "{sqlstate} {routine:?}");
            }
        }
    }

    #[test]
    fn what_steps_raise_and_other_notices_say_nothing_about_a_wait() {
        assert!(!cancels_a_wait(Some(Severity::Warning), "01000", Some("exec_stmt_raise")));
        assert!(!cancels_a_wait(Some(Severity::Warning), "01000", Some("pg_signal_backend")));
        assert!(!cancels_a_wait(Some(Severity::Warning), "25P01", Some("WarnNoTransactionBlock")));
        assert!(!cancels_a_wait(Some(Severity::Notice), "00000", Some("DropErrorMsgNonExistent")));
    }
}
