//! The transaction of one attempt: compare-and-set first, then the steps, then COMMIT (protocol §5).

use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type};

use super::accept::Columns;
use super::decision::prepare_decision;
use super::entry::OUTGOING;
use super::one_trip::TOUCHED;
pub(super) use super::row::envelope_of;
use super::step::{Sent, Tidy, cancel, end_with, send_commit};
use super::{LogEntry, Outgoing, Plans, Pool, Session, Store, StoreError};
use crate::model::{Destination, Envelope, MessageId, TxId};
use crate::txn::faults::{Point, reach};

/// Which row an attempt claims, and what it saw of it.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    pub tx_id: TxId,
    pub destination: &'a Destination,
    /// The fence: `attempts` as the claimant saw it.
    pub attempts: i32,
    /// Whether a committed start counted this attempt already.
    pub started: bool,
    pub sha256: &'a [u8],
}

/// An open transaction. Dropped before `commit` or `roll_back`, its connection is closed and nothing was done.
#[derive(Debug)]
pub struct WorkTransaction {
    pub(super) session: Session,
    /// The last that it did was to prove itself whole.
    probed: AtomicBool,
    pub(super) plans: Plans,
}

/// How a COMMIT ended.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Rolled back: nothing was done.
    #[error("the transaction was rolled back: {0}")]
    RolledBack(StoreError),
    /// Only a new start, which locks the row, can tell (DQ2).
    #[error("the outcome of the commit is unknown: {0}")]
    Unknown(StoreError),
}

// In a transaction of steps the application's search path is in force: here, and wherever else something is said there, each
// function, operator and type is named with its schema (ADR 23).

/// Of rows that nobody has tried since; migrations/V10__named.sql.
pub(super) const TAKE: &str = "/* take */ SELECT tx_id, max_attempts FROM posthaste.take($1, $2, $3, $4)";

const TAKE_STARTED: &str = "/* take_started */
WITH taken AS (
    UPDATE posthaste.journal
    SET state = 'DONE', finished_at = pg_catalog.clock_timestamp(), owner = NULL, running_by = NULL
    WHERE tx_id OPERATOR(pg_catalog.=) $1 AND destination OPERATOR(pg_catalog.=) $2 AND attempts OPERATOR(pg_catalog.=) $3
      AND sha256 OPERATOR(pg_catalog.=) $4 AND state OPERATOR(pg_catalog.=) ANY ('{READY,PUBLISHED}')
      AND running_by OPERATOR(pg_catalog.=) $5
    RETURNING tx_id, max_attempts),
kept AS (
    UPDATE posthaste.attempt a SET outcome = 'SUCCEEDED', finished_at = pg_catalog.clock_timestamp()
    FROM taken WHERE a.tx_id OPERATOR(pg_catalog.=) taken.tx_id AND a.n OPERATOR(pg_catalog.=) $3),
freed AS (DELETE FROM posthaste.due d USING taken WHERE d.tx_id OPERATOR(pg_catalog.=) taken.tx_id)
SELECT max_attempts FROM taken";

const INSERT_LOG: &str = "/* insert_log */
INSERT INTO :ibisstore (type, slotid, host, messageid, correlationid, message, expirydate, dedup_key,
                        tx_id, root_id, content_type, headers, sha256)
VALUES ('A', $1, $2, $3, $4, $5,
        pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) ($6::double precision OPERATOR(pg_catalog.*) interval '1 second'),
        $7, $8, $9, $10, $11, $12)
ON CONFLICT (slotid, dedup_key) DO NOTHING";

/// Fails in a broken transaction, and takes back what a step's function may have done to these settings: an asynchronous
/// commit loses what was promised, and what another role has prepared its owner alone may finish. The role is the one that
/// every session of ours begins with, not the user's (ADR 15).
pub(super) const PROBE: &str = "SET LOCAL synchronous_commit = on; SET LOCAL role TO DEFAULT";

impl Store {
    /// Opens a transaction of a receiver, explicitly READ COMMITTED.
    pub async fn begin_work(&self) -> Result<WorkTransaction, StoreError> {
        self.begin_work_with(Plans::Kept).await
    }

    /// The same.
    pub async fn begin_work_with(&self, plans: Plans) -> Result<WorkTransaction, StoreError> {
        for point in [Point::DQ4, Point::DQ6, Point::DQ7] {
            reach(point).await?;
        }
        self.begin(&self.work, plans).await
    }

    /// Opens the transaction of an accepting pipeline.
    pub async fn begin_submit(&self, plans: Plans) -> Result<WorkTransaction, StoreError> {
        self.begin(&self.submit, plans).await
    }

    async fn begin(&self, pool: &Pool, plans: Plans) -> Result<WorkTransaction, StoreError> {
        self.at_home()?;
        let session = pool.session_with(plans).await?;
        let begun = async {
            session.client()?.batch_execute(session.begin()).await?;
            if !self.databases.is_empty() {
                // Before a step takes on a role that may not see their tables.
                prepare_decision(&session).await?;
            }
            Ok(())
        };
        pool.bounded(begun).await?;
        Ok(WorkTransaction { plans, ..WorkTransaction::about_to_begin(session) })
    }
}

impl WorkTransaction {
    /// In a session whose BEGIN is about to be sent.
    pub(super) fn about_to_begin(session: Session) -> Self {
        Self { session, probed: AtomicBool::new(false), plans: Plans::Kept }
    }

    /// The compare-and-set: answers the row's `max_attempts`. `None`: somebody else has, had or may yet have the row;
    /// roll back and look.
    pub async fn take(&self, store: &Store, claim: Claim<'_>) -> Result<Option<i32>, StoreError> {
        reach(Point::DQ5).await?;
        let client = self.session().client()?;
        let (tx_id, destination) = (claim.tx_id.0, claim.destination.as_str());
        let taken = async {
            let row = if claim.started {
                // Planned each time: a plan that was made while the journal was small reads all of it when it has grown.
                let params: [(&(dyn ToSql + Sync), Type); 5] = [
                    (&tx_id, Type::UUID),
                    (&destination, Type::TEXT),
                    (&claim.attempts, Type::INT4),
                    (&claim.sha256, Type::BYTEA),
                    (&store.incarnation.0, Type::UUID),
                ];
                client.query_typed(TAKE_STARTED, &params).await?.into_iter().next()
            } else {
                let statement = client.prepare_cached(TAKE).await?;
                let (tx_ids, hashes) = ([tx_id], [claim.sha256]);
                client.query_opt(&statement, &[&&tx_ids[..], &&hashes[..], &destination, &claim.attempts]).await?
            };
            Ok(row.map(|row| row.get("max_attempts")))
        };
        self.heed(store.work.bounded(taken).await)
    }

    /// Inserts the message log's row. `false`: the key is taken; roll back.
    pub async fn insert_log(
        &self,
        store: &Store,
        log: &LogEntry,
        envelope: &Envelope,
        host: &str,
    ) -> Result<bool, StoreError> {
        self.session().carries(envelope.body.len());
        let client = self.session().client()?;
        let sha256 = envelope.sha256();
        let headers = serde_json::json!(envelope.headers);
        let insert = async {
            let inserted = client
                .execute(
                    &*store.sql(INSERT_LOG),
                    &[
                        &log.slot_id.as_str(),
                        &host,
                        &envelope.message_id.as_str(),
                        &envelope.correlation_id.as_str(),
                        &&envelope.body[..],
                        &log.retention.as_secs_f64(),
                        &log.dedup_key.as_ref().map(MessageId::as_str),
                        &envelope.tx_id.0,
                        &envelope.root_id.0,
                        &envelope.content_type,
                        &headers,
                        &sha256.as_slice(),
                    ],
                )
                .await?;
            Ok(inserted == 1)
        };
        store.submit.bounded(insert).await
    }

    /// Journal rows for what the pipeline sends, all with this envelope's payload.
    pub async fn add_outgoing(&self, store: &Store, envelope: &Envelope, rows: &[Outgoing]) -> Result<(), StoreError> {
        let statement = self.session().client()?.prepare_cached(OUTGOING).await?;
        self.insert_outgoing(store, &statement, envelope, rows).await
    }

    pub(super) async fn insert_outgoing(
        &self,
        store: &Store,
        statement: &Statement,
        envelope: &Envelope,
        rows: &[Outgoing],
    ) -> Result<(), StoreError> {
        self.session().carries(envelope.body.len());
        let client = self.session().client()?;
        let columns = Columns::of(rows);
        client
            .execute(
                statement,
                &[
                    &columns.tx_ids,
                    &columns.modes,
                    &columns.destinations,
                    &columns.max_attempts,
                    &envelope.message_id.as_str(),
                    &envelope.correlation_id.as_str(),
                    &envelope.content_type,
                    &serde_json::json!(envelope.headers),
                    &&envelope.body[..],
                    &envelope.root_id.0,
                    &envelope.tx_id.0,
                    &envelope.sha256().as_slice(),
                    &store.incarnation.0,
                    &super::PUBLISH_AFTER.as_secs_f64(),
                ],
            )
            .await?;
        Ok(())
    }

    /// The decision.
    pub async fn commit(self, store: &Store) -> Result<(), CommitError> {
        let probed = self.probed.load(Ordering::Relaxed);
        let proof = async |client: &ClientWrapper| {
            if !probed {
                client.batch_execute(PROBE).await?;
            }
            Ok(())
        };
        self.commit_after(store, proof, std::convert::identity).await
    }

    /// The decision, with what is to be sent right before it: that must prove the transaction whole. `told`: how its
    /// failure is told.
    pub(super) async fn commit_after(
        self,
        store: &Store,
        proof: impl AsyncFnOnce(&ClientWrapper) -> Result<(), StoreError>,
        told: fn(StoreError) -> StoreError,
    ) -> Result<(), CommitError> {
        let proof = store.work.bounded(async { proof(self.session.client()?).await });
        // In boxes: together they are large, and moved more than once.
        let commit = Box::pin(end_with(&store.work, &self.session, "COMMIT"));
        let sent = send_commit(Box::pin(proof), commit).await;
        self.committed(store, sent, told).await
    }

    /// What became of a proof and its COMMIT.
    pub(super) async fn committed(
        self,
        store: &Store,
        sent: Sent,
        told: fn(StoreError) -> StoreError,
    ) -> Result<(), CommitError> {
        match sent {
            Sent::Nothing(error) => {
                // The refusal may be there before the COMMIT is sent.
                if error.sqlstate() == Some(TOUCHED) {
                    self.session.spoil();
                }
                self.roll_back(store).await;
                Err(CommitError::RolledBack(told(error)))
            }
            Sent::Both { proved: Err(broken @ StoreError::Refused { .. }), commit } => {
                self.session.heed(&broken);
                // A broken transaction can only be rolled back, whatever became of its COMMIT.
                if let Ok(Tidy::Yes) = commit
                    && broken.sqlstate() != Some(TOUCHED)
                {
                    self.session.release();
                }
                Err(CommitError::RolledBack(told(broken)))
            }
            Sent::Both { proved: Err(error), .. } => Err(CommitError::Unknown(error)),
            Sent::Both { proved: Ok(()), commit } => self.ended(store, commit).await,
        }
    }

    async fn ended(self, store: &Store, commit: Result<Tidy, StoreError>) -> Result<(), CommitError> {
        match commit {
            Ok(Tidy::Yes) => {
                self.session.release();
                Ok(())
            }
            Ok(Tidy::No) => Ok(()),
            // A COMMIT that was refused with the session alive was rolled back (a deferred constraint, say).
            Err(error @ StoreError::Refused { .. }) => {
                match store.work.settle_proved::<()>(self.session, Err(error)).await {
                    Err(StoreError::Unknown(reason)) => Err(CommitError::Unknown(StoreError::Unknown(reason))),
                    Err(error) => Err(CommitError::RolledBack(error)),
                    Ok(()) => Err(CommitError::Unknown(StoreError::Unexpected("no error".to_owned()))),
                }
            }
            Err(error) => Err(CommitError::Unknown(error)),
        }
    }

    /// Proves the transaction whole. Nothing may be sent between this and COMMIT.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        self.session.client()?.batch_execute(PROBE).await?;
        self.probed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Rolls back; a connection that does not answer is closed, which rolls back as well.
    pub async fn roll_back(self, store: &Store) {
        let answer = store.work.bounded(async { Ok(self.session.client()?.batch_execute("ROLLBACK").await?) }).await;
        match answer {
            Ok(()) => self.session.release(),
            Err(error) => tracing::debug!(%error, "rollback not confirmed; connection closed"),
        }
    }

    /// Asks the server to end the statement that runs, after a transaction time-out. Never sent during a COMMIT.
    pub async fn cancel(self) {
        cancel(&self.session).await;
    }

    /// For something more to be sent.
    pub(super) fn session(&self) -> &Session {
        self.probed.store(false, Ordering::Relaxed);
        &self.session
    }
}
