//! What a server refuses is told in its own words, once in a while for each kind: most callers say it nowhere, since they come
//! again.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use deadpool_postgres::{HookError, PoolError};

use super::StoreError;
use super::error::no_session;
use crate::model::Seldom;

/// Of all pools of this process: they speak to the same servers.
static TOLD: LazyLock<Mutex<Seldom>> = LazyLock::new(Mutex::default);

/// No session could be had.
pub(super) fn of_session(database: &str, error: &PoolError) {
    let (PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error))) = error else { return };
    // Who does not answer refuses nothing: that is told by whoever misses it.
    let Some(sqlstate) = error.as_db_error().map(|db| db.code().code()) else { return };
    if let Some(untold) = admit(database, "session", sqlstate) {
        let reason = no_session(error);
        tracing::warn!(database, sqlstate, reason, untold, "PostgreSQL refused a session");
    }
}

/// A statement did nothing, and would have done nothing for others.
pub(super) fn of_statement(database: &str, error: &StoreError) {
    let StoreError::Refused { sqlstate, message, .. } = error else { return };
    if !error.concerns_every_message() || error.may_be_stale_plan() {
        return;
    }
    if let Some(untold) = admit(database, "statement", sqlstate) {
        tracing::warn!(database, sqlstate, reason = message, untold, "PostgreSQL refused a statement");
    }
}

/// Whether to tell it now: how often it was not told since the last time.
fn admit(database: &str, what: &str, sqlstate: &str) -> Option<u64> {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    told.admit(&format!("{database} {what} {sqlstate}"), Instant::now())
}
