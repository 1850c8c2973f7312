//! Whether what one session prepares another can finish: tried for real, before a database is used and by `doctor`
//! (protocol §6, ADR 15).

use std::fmt;

use tokio_postgres::Row;
use uuid::Uuid;

use super::branch::finish_on;
use super::work::PROBE;
use super::{Pool, PostgresSettings, Session, SessionTimeouts, StoreError};
use crate::model::Incarnation;
use crate::txn::faults::{Point, reach};
use crate::txn::ports::Finished;
use crate::txn::protocol::Outcome;

/// What the gids begin with. No branch's gid does, and nothing depends on what is prepared under them.
pub(super) const REHEARSAL: &str = "posthaste-rehearsal:";

/// One at a time in a database, for as long as this session lives: whatever is found prepared meanwhile, its process was
/// killed in the middle.
const ALONE: &str =
    "/* rehearsal */ SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended('posthaste:rehearsal', 0))";
const LEFT: &str = "/* rehearsals_left */
SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() AND gid LIKE 'posthaste-rehearsal:%'";

struct RehearsalGid(Uuid);

impl fmt::Display for RehearsalGid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{REHEARSAL}{}", self.0)
    }
}

/// In sessions of their own, as an instance has them.
///
/// # Errors
/// As `rehearse`.
pub async fn rehearse_at(settings: &PostgresSettings) -> Result<(), StoreError> {
    let pool = || Pool::new(settings, Incarnation::mint(), SessionTimeouts::default(), 1);
    let (one, other) = (pool()?, pool()?);
    let answer = rehearse(&one, &other).await;
    one.close();
    other.close();
    answer
}

/// Prepares two empty transactions in a session of `one`; a session of `other` commits the first and rolls back the
/// second.
///
/// # Errors
/// `Unexpected`: what is prepared here could not be finished, and what to change. Others: it could not be tried.
pub(super) async fn rehearse(one: &Pool, other: &Pool) -> Result<(), StoreError> {
    let session = one.session().await?;
    // Its lock goes with it.
    session.spoil();
    one.bounded(async { Ok(session.client()?.query(ALONE, &[]).await.map(drop)?) }).await?;
    let left = one.bounded(async { Ok(session.client()?.query(LEFT, &[]).await?) }).await?;
    for gid in left.iter().map(|row: &Row| row.get::<_, String>(0)) {
        if let Err(error) = finish(other, &gid, Outcome::Abort).await {
            tracing::warn!(gid, %error, "a rehearsal that was killed has left this prepared");
        }
    }
    for outcome in [Outcome::Commit, Outcome::Abort] {
        let gid = RehearsalGid(Uuid::new_v4());
        prepare(one, &session, &gid).await?;
        reach(Point::RH1).await.map_err(|injected| StoreError::Unknown(injected.to_string()))?;
        if let Err(error) = finish(other, &gid, outcome).await {
            // Who prepared it may finish it; should this fail, too, the next rehearsal finds it.
            let _left_behind = say(one, &session, &format!("ROLLBACK PREPARED '{gid}'")).await.is_err();
            return Err(error);
        }
    }
    session.release();
    Ok(())
}

async fn prepare(pool: &Pool, session: &Session, gid: &RehearsalGid) -> Result<(), StoreError> {
    say(pool, session, "BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    say(pool, session, PROBE).await?;
    say(pool, session, &format!("PREPARE TRANSACTION '{gid}'")).await
}

async fn say(pool: &Pool, session: &Session, words: &str) -> Result<(), StoreError> {
    pool.bounded(async { Ok(session.client()?.batch_execute(words).await?) }).await
}

async fn finish(pool: &Pool, gid: &(dyn fmt::Display + Sync), outcome: Outcome) -> Result<(), StoreError> {
    match finish_on(pool, pool.session().await?, gid, outcome).await {
        Ok((Finished::Done, session)) => {
            session.release();
            Ok(())
        }
        Ok((Finished::Missing { .. }, _)) => Err(StoreError::Unexpected(format!(
            "what one session prepares another does not find ({gid}): let every connection of this entry lead to the \
             same server and database"
        ))),
        Ok((Finished::NotYet(reason), _)) => {
            Err(StoreError::Unexpected(format!("what one session prepares another may not finish: {reason}")))
        }
        Err(reason) => Err(StoreError::Unknown(reason)),
    }
}
