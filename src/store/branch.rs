//! An attempt's transaction in a database beside the home: work, PREPARE, and the end (protocol §6).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_postgres::Row;

use super::database::Database;
use super::durable::cover;
use super::ending::end_sessions;
use super::step::{Tidy, bytes_of, cancel, end_with, execute_prepared, step_params};
use super::work::PROBE;
use super::{Plans, Pool, Session, StoreError};
use crate::txn::Gid;
use crate::txn::faults::{Point, reach};
use crate::txn::ports::{Finished, Mark, Participant, Prepared};
use crate::txn::protocol::Outcome;

/// An open branch. Dropped before its end, its connection is closed: what was not prepared is rolled back, what was is
/// the janitor's.
#[derive(Debug)]
pub struct BranchTransaction {
    database: Database,
    /// `None` once it was lost.
    session: Option<Session>,
    /// The server's process behind the session, as the last step has left it.
    backend: i32,
    /// What there is to commit since the last step.
    mark: Option<Mark>,
    /// Something was sent to end it, and its answer is not known.
    asked: bool,
}

/// Sent with each step: what it has left to commit, and who serves it.
pub(super) const WROTE: &str = "/* branch_wrote */
SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text, pg_catalog.pg_backend_pid(),
       ('x' OPERATOR(pg_catalog.||) pg_catalog.lpad(pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8),
                               16, '0'))::bit(64)::bigint";
/// Nobody but its owner may finish a prepared transaction: the role in which it was prepared.
const OWNER: &str = "/* branch_owner */ SELECT owner::text FROM pg_catalog.pg_prepared_xacts WHERE gid = $1";
const AS_OWNER: &str = "/* as_owner */ SELECT pg_catalog.set_config('role', $1, false)";
const BACKEND_LIVES: &str = "/* backend_lives */
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND application_name = $2)";
/// Between two looks whether a server process has ended.
const LOOK: Duration = Duration::from_millis(20);
/// Looks before somebody else must look later.
const LOOKS: u32 = 100;

impl BranchTransaction {
    pub(super) async fn begin(database: &Database, plans: Plans) -> Result<Self, StoreError> {
        let session = database.work.session_with(plans).await?;
        // By itself: a step that is sent with a BEGIN that fails would be a transaction of its own.
        let begun = async { Ok(session.client()?.batch_execute(session.begin()).await?) };
        database.work.bounded(begun).await?;
        Ok(Self { database: database.clone(), session: Some(session), backend: 0, mark: None, asked: false })
    }

    /// As [`super::WorkTransaction::execute_step`].
    ///
    /// # Errors
    /// The same.
    pub async fn execute_step(&mut self, sql: &str, params: &[Option<Bytes>]) -> Result<u64, StoreError> {
        self.session()?.carries(bytes_of(params));
        let client = self.session()?.client()?;
        let step = async {
            let (step, wrote) = (client.prepare_cached(sql).await?, client.prepare_cached(WROTE).await?);
            // Sent together, executed one after the other.
            let params = step_params(params);
            let (rows, wrote) =
                tokio::join!(biased; execute_prepared(client, &step, &params), client.query_one(&wrote, &[]));
            Ok((rows?, wrote?))
        };
        let (rows, wrote) = self.heed(step.await)?;
        self.learn(&wrote)?;
        Ok(rows)
    }

    pub(super) fn heed<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        answer.inspect_err(|error| self.session.iter().for_each(|session| session.heed(error)))
    }

    pub(super) fn take_session(&mut self) -> Option<Session> {
        self.session.take()
    }

    /// What [`WROTE`] was answered.
    pub(super) fn learn(&mut self, wrote: &Row) -> Result<(), StoreError> {
        let xid: Option<&str> = wrote.get(0);
        let xid = xid.map(str::parse).transpose();
        let xid = xid.map_err(|error| StoreError::Unexpected(format!("pg_current_xact_id: {error}")))?;
        self.mark = xid.map(|xid| Mark { xid, timeline: wrote.get(2) });
        self.backend = wrote.get(1);
        Ok(())
    }

    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn session(&self) -> Result<&Session, StoreError> {
        self.session.as_ref().ok_or_else(|| StoreError::Unexpected("the branch has ended".to_owned()))
    }

    /// Asks the server to end the statement that runs, after a transaction time-out.
    pub async fn cancel(&self) {
        if let Some(session) = &self.session {
            cancel(session).await;
        }
    }

    async fn say(&self, word: &str) -> Result<Tidy, StoreError> {
        end_with(&self.database.work, self.session()?, word).await
    }

    /// PREPARE TRANSACTION would silently roll back a broken transaction: the probe that is sent before it tells.
    async fn prove_and_prepare(&self, gid: &Gid) -> Result<Tidy, StoreError> {
        let word = format!("PREPARE TRANSACTION '{gid}'");
        let probe = async { Ok(self.session()?.client()?.batch_execute(PROBE).await?) };
        let (proved, prepared) = tokio::join!(biased; self.database.work.bounded(probe), self.say(&word));
        match (proved, prepared) {
            // What came of it after a broken transaction is no PREPARE.
            (Err(broken @ StoreError::Refused { .. }), Ok(_) | Err(StoreError::Refused { .. })) => Err(broken),
            (_, Err(error)) | (Err(error), Ok(_)) => Err(error),
            (Ok(()), Ok(tidy)) => Ok(tidy),
        }
    }

    fn release(&mut self) {
        if let Some(session) = self.session.take() {
            session.release();
        }
    }

    /// The session's connection is closed, not pooled.
    fn lose_session(&mut self) {
        drop(self.session.take());
    }

    async fn close(&mut self, word: &str) {
        match self.say(word).await {
            Ok(Tidy::Yes) => self.release(),
            Ok(Tidy::No) => self.lose_session(),
            Err(error) => {
                tracing::debug!(%error, database = self.database.name, "branch not ended in words; connection closed");
                self.lose_session();
            }
        }
    }

    /// Ends the server process of a lost session, and waits until it is gone: what it was told last could still happen.
    async fn end_backend(&self) -> Result<(), String> {
        let name = &self.database.application_name;
        let house = &self.database.house;
        let asked = house.transaction(async |client| end_sessions(client, &[self.backend], name).await);
        asked.await.map_err(|error| error.to_string())?;
        let ended = house.run(async |client| {
            for _look in 0..LOOKS {
                let lives: bool = client.query_one(BACKEND_LIVES, &[&self.backend, name]).await?.get(0);
                if !lives {
                    return Ok(true);
                }
                tokio::time::sleep(LOOK).await;
            }
            Ok(false)
        });
        match ended.await {
            Ok(true) => Ok(()),
            Ok(false) => Err("the server has not ended the session that was lost".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The session, or another once the old one is gone.
    async fn any_session(&mut self) -> Result<Session, String> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        self.end_backend().await?;
        self.database.house.session().await.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Participant for BranchTransaction {
    type Error = StoreError;

    fn place(&self) -> &str {
        self.database.located()
    }

    async fn wrote(&mut self) -> Result<Option<Mark>, StoreError> {
        reach(Point::MD1).await?;
        Ok(self.mark)
    }

    async fn end(&mut self) {
        self.close("COMMIT").await;
    }

    async fn roll_back(&mut self) {
        self.close("ROLLBACK").await;
    }

    async fn prepare(&mut self, gid: &Gid) -> Prepared<StoreError> {
        let sent = self.prove_and_prepare(gid).await;
        let answer = match reach(Point::MD3).await {
            Ok(()) => sent,
            Err(injected) => Err(injected.into()),
        };
        match answer {
            Ok(tidy) => {
                if tidy == Tidy::No {
                    self.lose_session();
                }
                match reach(Point::MD2).await {
                    Ok(()) => Prepared::Yes,
                    Err(injected) => Prepared::Unknown(injected.into()),
                }
            }
            // A refused PREPARE rolls back; the session must prove that it lives.
            Err(refused @ StoreError::Refused { .. }) => match self.say("ROLLBACK").await {
                Ok(Tidy::Yes) => {
                    self.session.iter().for_each(|session| session.heed(&refused));
                    self.release();
                    Prepared::Refused(refused)
                }
                Ok(Tidy::No) | Err(_) => {
                    self.lose_session();
                    Prepared::Unknown(refused)
                }
            },
            Err(error) => {
                self.lose_session();
                Prepared::Unknown(error)
            }
        }
    }

    async fn finish(&mut self, gid: &Gid, outcome: Outcome) -> Finished {
        if outcome == Outcome::Commit {
            for point in [Point::MD5, Point::MD6, Point::MD9] {
                if let Err(injected) = reach(point).await {
                    return Finished::NotYet(injected.to_string());
                }
            }
        }
        let session = match self.any_session().await {
            Ok(session) => session,
            Err(reason) => return Finished::NotYet(reason),
        };
        // Whether a refused PREPARE left nothing behind is no surprise either.
        let first = !std::mem::replace(&mut self.asked, true) && outcome == Outcome::Commit;
        let end = finish_on(&self.database.house, session, gid, outcome).await;
        let end = match reach(Point::MD5).await {
            Ok(()) => end,
            Err(injected) => Err(injected.to_string()),
        };
        match end {
            Ok((Finished::Missing { .. }, session)) => {
                session.release();
                Finished::Missing { first }
            }
            Ok((end @ Finished::NotYet(_), session)) => {
                self.session = Some(session);
                end
            }
            Ok((Finished::Done, session)) => {
                session.release();
                Finished::Done
            }
            Err(reason) => Finished::NotYet(reason),
        }
    }
}

/// COMMIT PREPARED or ROLLBACK PREPARED. The session comes back when it lives.
pub(super) async fn finish_on(
    pool: &Pool,
    session: Session,
    gid: &(dyn fmt::Display + Sync),
    outcome: Outcome,
) -> Result<(Finished, Session), String> {
    let word = match outcome {
        Outcome::Commit => "COMMIT",
        Outcome::Abort => "ROLLBACK",
    };
    let sql = format!("{word} PREPARED '{gid}'");
    session.expect_no_warning();
    let mut answer = pool.bounded(async { Ok(session.client()?.batch_execute(&sql).await?) }).await;
    if let Err(refused @ StoreError::Refused { .. }) = &answer
        && refused.sqlstate() == Some("42501")
    {
        answer = as_owner(pool, &session, &gid.to_string(), &sql).await;
    }
    match answer {
        Ok(()) => session.waited().map(|()| (Finished::Done, session)).map_err(|error| error.to_string()),
        // Somebody was faster: what he did must not be lost when nobody remembers it any more.
        Err(StoreError::Refused { sqlstate, .. }) if sqlstate == "42704" => match pool.bounded(cover(&session)).await {
            Ok(()) => Ok((Finished::Missing { first: false }, session)),
            Err(error) => Err(error.to_string()),
        },
        Err(refused @ StoreError::Refused { .. }) => Ok((Finished::NotYet(refused.to_string()), session)),
        Err(error) => Err(error.to_string()),
    }
}

/// By an instance before this one, which had another role: as its owner, if this session's user may be it.
async fn as_owner(pool: &Pool, session: &Session, gid: &str, sql: &str) -> Result<(), StoreError> {
    session.spoil();
    let done = async {
        let client = session.client()?;
        // Gone meanwhile: the word says so itself.
        let owner: Option<String> = client.query_opt(OWNER, &[&gid]).await?.map(|row| row.get(0));
        if let Some(owner) = owner {
            client.query(AS_OWNER, &[&owner]).await.map_err(|error| belongs_to(&owner, error.into()))?;
        }
        Ok(client.batch_execute(sql).await?)
    };
    pool.bounded(done).await
}

fn belongs_to(owner: &str, error: StoreError) -> StoreError {
    match error {
        StoreError::Refused { sqlstate, message, constraint } => StoreError::Refused {
            message: format!(
                "it belongs to the role {owner}, which this entry's user may not take on: GRANT \"{owner}\" TO that user, \
                 and give the entry the key role, the same for all instances ({message}"
            ) + ")",
            sqlstate,
            constraint,
        },
        error @ (StoreError::Unreachable(_) | StoreError::Unknown(_) | StoreError::Unexpected(_)) => error,
    }
}
