//! Whether what a read has found outlives a fail-over (protocol §3, "What a read is worth").
//!
//! Under a synchronous standby a row may be visible before the standby has it: its commit's wait was cancelled, or the
//! primary was restarted in the midst of it. A write of our own that is sent afterwards waits for the standby, and all that
//! was visible before stands before it in the write-ahead log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_postgres::Row;
use tokio_util::task::TaskTracker;

use super::{Pool, Session, StoreError};

/// For a statement's own list of columns, so that nobody else pays for it: whether commits wait for a standby now.
macro_rules! standby {
    () => {
        "pg_catalog.current_setting('synchronous_standby_names') <> '' AS standby"
    };
}
pub(super) use standby;

/// A write where commits wait for a standby, and nothing where they do not. It touches no row that somebody may hold.
const WRITE: &str = "/* durable */
SELECT CASE WHEN pg_catalog.current_setting('synchronous_standby_names') <> ''
            THEN pg_catalog.pg_logical_emit_message(true, 'posthaste', '') END::text";

/// Longest wait of one who has read something. The write goes on without him.
const BOUND: Duration = Duration::from_secs(5);

/// Writes for all that wait: whoever comes while one write is on its way waits for the next. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Durable {
    pool: Pool,
    line: Arc<Mutex<Line>>,
    /// No stop waits for them: it waits for whoever waits for their answers.
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Line {
    waiting: Vec<oneshot::Sender<Result<(), StoreError>>>,
    /// Somebody writes for those that wait.
    writing: bool,
}

impl Durable {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, line: Arc::default(), tasks: TaskTracker::new() }
    }

    /// What was found may be answered with: rows that were read with [`standby!`].
    ///
    /// # Errors
    /// It is not known.
    pub(super) async fn rows(&self, rows: Vec<Row>) -> Result<Vec<Row>, StoreError> {
        match rows.first() {
            Some(first) if first.try_get("standby")? => self.write().await?,
            Some(_) | None => {}
        }
        Ok(rows)
    }

    /// The same for whatever was read until now.
    ///
    /// # Errors
    /// The same.
    pub(super) async fn write(&self) -> Result<(), StoreError> {
        let (tell, told) = oneshot::channel();
        if self.enter(tell) {
            self.tasks.spawn(self.clone().write_for_all());
        }
        let unknown = |reason: &str| StoreError::Unknown(format!("whether the standby has what was found: {reason}"));
        match tokio::time::timeout(BOUND, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_dropped)) => Err(unknown("the write was given up")),
            Err(_elapsed) => Err(unknown(&format!("not known within {BOUND:?}"))),
        }
    }

    /// Answers whether the caller has to see to the write.
    fn enter(&self, tell: oneshot::Sender<Result<(), StoreError>>) -> bool {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.waiting.push(tell);
        !std::mem::replace(&mut line.writing, true)
    }

    fn next(&self) -> Option<Vec<oneshot::Sender<Result<(), StoreError>>>> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.writing = !line.waiting.is_empty();
        line.writing.then(|| std::mem::take(&mut line.waiting))
    }

    async fn write_for_all(self) {
        while let Some(waiting) = self.next() {
            let pool = self.pool.clone();
            // In a task of its own: whatever becomes of it, the next ones are served.
            let written = self.tasks.spawn(async move { pool.run(async |client| write_on(client).await).await });
            let answer = written.await.unwrap_or_else(|error| Err(StoreError::Unknown(error.to_string())));
            for tell in waiting {
                // Nobody may wait any more.
                let _told = tell.send(answer.clone()).is_ok();
            }
        }
    }
}

/// The same in a session that has just read something.
pub(super) async fn cover(session: &Session) -> Result<(), StoreError> {
    session.expect_no_warning();
    write_on(session.client()?).await?;
    session.waited()
}

async fn write_on(client: &deadpool_postgres::ClientWrapper) -> Result<(), StoreError> {
    client.query_typed(WRITE, &[]).await?;
    Ok(())
}
