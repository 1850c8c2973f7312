//! How a session of ours begins: its start-up options, and what is done in it before anybody gets it.

use std::sync::{Arc, OnceLock};

use deadpool_postgres::HookError;
use tokio_postgres::Config;

use super::connection::{Connection, Hook};
use super::names::{self, Names};
use super::pool::{REMEMBER, WHERE, another_server, session_options};
use super::{PostgresSettings, SessionTimeouts};

/// In which session a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plans {
    /// One of the pool, with the plans that it has kept.
    Kept,
    /// A new one, for this alone: what fails there is no stale plan's fault.
    New,
}

/// As start-up options our settings win over whatever role and database say, and survive a RESET.
pub(super) fn session_config(
    settings: &PostgresSettings,
    timeouts: SessionTimeouts,
) -> Result<Config, tokio_postgres::Error> {
    let mut config = settings.client_config()?;
    let given = config.get_options().map(|given| format!("{given} ")).unwrap_or_default();
    config.options(format!("{given}{}", session_options(timeouts)));
    Ok(config)
}

/// What the sessions of one pool have in common.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening {
    /// They write only in transactions that say so.
    pub reads_only: bool,
    /// The application's search path is always in force, not only where its steps run.
    pub application_path: bool,
    /// To be told where `ibisstore` is.
    pub names: Option<Names>,
    /// Of this database, by its name and, once it is told, its place.
    pub only: Option<(Arc<str>, Arc<OnceLock<String>>)>,
}

impl Opening {
    pub(super) fn hook(&self) -> Hook {
        let opening = self.clone();
        Hook::async_fn(move |client: &mut Connection, _metrics| {
            let opening = opening.clone();
            Box::pin(async move { opening.open(client).await })
        })
    }

    async fn open(&self, client: &mut Connection) -> Result<(), HookError> {
        // The first that is said there: whatever follows means what we mean.
        client.kept = names::open(client).await.map_err(HookError::Backend)?;
        if let Some(names) = &self.names {
            names.learn(client).await.map_err(HookError::Backend)?;
        }
        if self.reads_only {
            // Not as a start-up option: the client would take the server for a standby.
            client.batch_execute("SET default_transaction_read_only = on").await.map_err(HookError::Backend)?;
        }
        if let Some((name, place)) = &self.only {
            let found: String = client.query_one(WHERE, &[]).await.map_err(HookError::Backend)?.get(0);
            if let Some(reason) = another_server(name, place.get(), &found) {
                return Err(HookError::message(reason));
            }
        }
        if self.application_path {
            client.batch_execute(names::APPLICATION_PATH).await.map_err(HookError::Backend)?;
        }
        client.batch_execute(REMEMBER).await.map_err(HookError::Backend)
    }
}
