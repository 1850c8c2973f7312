//! Connections with known session settings, and the rule that an unread reply never goes back to a pool.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, QueueMode, Runtime, Timeouts};
use tokio_postgres::config::TargetSessionAttrs;

use super::abandoned::Places;
use super::connection::Manager;
use super::instance::application_name;
use super::names::Names;
use super::opening::{Opening, session_config};
use super::{Gate, Plans, PostgresSettings, Session, SessionTimeouts, StoreError, refusals};
use crate::model::Incarnation;

/// What steps may not leave behind, in one text. Names with their schema: the search path may be one that a step left.
macro_rules! settings {
    () => {
        "pg_catalog.concat_ws('|', pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('lock_timeout'), \
         pg_catalog.current_setting('statement_timeout'), pg_catalog.current_setting('idle_in_transaction_session_timeout'), \
         pg_catalog.current_setting('session_authorization'), pg_catalog.current_setting('role'), pg_catalog.current_setting('search_path'), \
         pg_catalog.current_setting('default_transaction_read_only'))"
    };
}
pub(super) use settings;

/// Keeps it for comparison, for as long as the session lives.
pub(super) const REMEMBER: &str =
    concat!("SELECT pg_catalog.set_config('posthaste.session', ", settings!(), ", false)");

/// For the rest of a transaction: a plan that was made while the journal was small reads all of it when it has grown.
pub(super) const PLANNED_ANEW: &str = "SET LOCAL plan_cache_mode = force_custom_plan";

/// Which database answers.
pub(super) const WHERE: &str =
    "/* place */ SELECT (pg_control_system()).system_identifier::text || '/' || current_database()";

/// Sessions at a time in which is tried again what stale plans have broken.
const FRESH_CONNECTIONS: usize = 2;

/// A pool for one purpose. Accepting, working and housekeeping have one each, so that none starves another.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: deadpool::managed::Pool<Manager>,
    /// The `postgres` entry.
    name: Arc<str>,
    /// Its sessions are used once each.
    fresh: deadpool::managed::Pool<Manager>,
    /// Longest wait of a caller for one answer: the server's own statement time-out comes first.
    pub(super) answer: Duration,
    places: Places,
    /// Shut when an answer does not come.
    gate: Gate,
}

impl Pool {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// `Unexpected` when the url cannot be read.
    pub fn new(
        settings: &PostgresSettings,
        incarnation: Incarnation,
        timeouts: SessionTimeouts,
        max_size: usize,
    ) -> Result<Self, StoreError> {
        Self::opening(settings, incarnation, timeouts, max_size, &Opening::default())
    }

    /// As `new`, for sessions of a home.
    ///
    /// # Errors
    /// The same.
    pub(super) fn home(
        settings: &PostgresSettings,
        incarnation: Incarnation,
        timeouts: SessionTimeouts,
        max_size: usize,
        names: &Names,
    ) -> Result<Self, StoreError> {
        let opening = Opening { names: Some(names.clone()), ..Opening::default() };
        Self::opening(settings, incarnation, timeouts, max_size, &opening)
    }

    /// As `home`, for sessions in which statements of applications are prepared before they begin, and that write only in
    /// transactions that say so: should a BEGIN fail, what was sent behind it does nothing.
    ///
    /// # Errors
    /// The same.
    pub(super) fn rows(
        settings: &PostgresSettings,
        incarnation: Incarnation,
        timeouts: SessionTimeouts,
        max_size: usize,
        names: &Names,
    ) -> Result<Self, StoreError> {
        let opening =
            Opening { reads_only: true, application_path: true, names: Some(names.clone()), ..Opening::default() };
        Self::opening(settings, incarnation, timeouts, max_size, &opening)
    }

    /// As `new`, for sessions of one database alone: a server that has taken its place gets none. `place` may be told
    /// later. A session never changes its server, and a primary stays on its timeline for as long as it runs.
    pub(super) fn at(
        settings: &PostgresSettings,
        incarnation: Incarnation,
        timeouts: SessionTimeouts,
        max_size: usize,
        place: &Arc<OnceLock<String>>,
    ) -> Result<Self, StoreError> {
        let only = Some((settings.name.as_str().into(), place.clone()));
        Self::opening(settings, incarnation, timeouts, max_size, &Opening { only, ..Opening::default() })
    }

    fn opening(
        settings: &PostgresSettings,
        incarnation: Incarnation,
        timeouts: SessionTimeouts,
        max_size: usize,
        opening: &Opening,
    ) -> Result<Self, StoreError> {
        let unreadable = |error: &dyn std::fmt::Display| StoreError::Unexpected(format!("{}: {error}", settings.name));
        let mut config = session_config(settings, timeouts).map_err(|error| unreadable(&error))?;
        config.application_name(application_name(incarnation));
        // A standby holds what its primary has prepared, and shows nothing of it.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        let second = Duration::from_secs(5);
        let build = |size| {
            deadpool::managed::Pool::builder(Manager { config: config.clone() })
                .max_size(size)
                // The few that are used most keep their plans and buffers warm; the others stay small.
                .queue_mode(QueueMode::Lifo)
                .runtime(Runtime::Tokio1)
                .post_create(opening.hook())
                .timeouts(Timeouts { wait: Some(second), create: Some(second), recycle: Some(second) })
                .build()
                .map_err(|error| unreadable(&error))
        };
        let (inner, fresh) = (build(max_size.max(1))?, build(FRESH_CONNECTIONS)?);
        let answer = timeouts.statement + Duration::from_secs(2);
        let (places, name) = (Places::of_pool(max_size), settings.name.as_str().into());
        Ok(Self { inner, name, fresh, answer, places, gate: Gate::default() })
    }

    /// Whoever gets no answer here shuts this gate.
    #[must_use]
    pub(super) fn shutting(self, gate: &Gate) -> Self {
        Self { gate: gate.clone(), ..self }
    }

    /// A connection that is closed, not pooled, unless it is released.
    ///
    /// # Errors
    /// `Unreachable`: there is none, or the server is still at work for too many that got no answer.
    pub async fn session(&self) -> Result<Session, StoreError> {
        self.session_with(Plans::Kept).await
    }

    /// # Errors
    /// As for `session`.
    pub(super) async fn session_with(&self, plans: Plans) -> Result<Session, StoreError> {
        let pool = match plans {
            Plans::Kept => &self.inner,
            Plans::New => &self.fresh,
        };
        let object = pool.get().await.inspect_err(|error| refusals::of_session(&self.name, error))?;
        let session = match self.places.take() {
            Some(place) => Session::new(object, place),
            None => self.places.look(Session::new(object, self.places.one_more())).await?,
        };
        if plans == Plans::New {
            session.spoil();
        }
        Ok(session)
    }

    /// Sessions that were closed without an answer, and that the server may be at work for.
    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.places.abandoned()
    }

    /// `work`, at most as long as the server itself may take for one statement and a little more.
    pub(super) async fn bounded<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match tokio::time::timeout(self.answer, work).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(self.unanswered()),
        }
    }

    fn unanswered(&self) -> StoreError {
        self.gate.shut();
        no_answer(self.answer)
    }

    pub(super) fn settle<T>(
        &self,
        session: Session,
        answer: Result<Result<T, StoreError>, tokio::time::error::Elapsed>,
    ) -> Result<T, StoreError> {
        match answer {
            Ok(Ok(value)) => {
                session.waited()?;
                session.release();
                Ok(value)
            }
            Ok(Err(error)) => {
                session.heed(&error);
                refusals::of_statement(&self.name, &error);
                if matches!(error, StoreError::Refused { .. } | StoreError::Unexpected(_)) {
                    session.release();
                }
                Err(error)
            }
            Err(_elapsed) => Err(self.unanswered()),
        }
    }

    /// As the answer is, but `Refused` only when the session answers again: otherwise the outcome is unknown.
    pub(super) async fn settle_proved<T>(
        &self,
        session: Session,
        answer: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match answer {
            Ok(value) => {
                session.waited()?;
                session.release();
                Ok(value)
            }
            Err(refused @ StoreError::Refused { .. }) => {
                session.heed(&refused);
                refusals::of_statement(&self.name, &refused);
                let proof = self.bounded(async { Ok(session.client()?.batch_execute("").await?) }).await;
                match proof {
                    Ok(()) => {
                        session.release();
                        Err(refused)
                    }
                    Err(_lost) => Err(StoreError::Unknown(format!("the session ended after: {refused}"))),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// In use, and the largest possible.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        let status = self.inner.status();
        (status.size.saturating_sub(status.available), status.max_size)
    }

    pub fn close(&self) {
        self.inner.close();
        self.fresh.close();
    }
}

/// Why a server is not the one that was admitted.
pub(super) fn another_server(name: &str, place: Option<&String>, found: &str) -> Option<String> {
    let place = place.filter(|place| *place != found)?;
    Some(format!(
        "database {name} was {place} and is another one now ({found}): when that is meant to be, restart the instance"
    ))
}

/// Commits, and takes no ROLLBACK for a commit: the client reports a COMMIT answered by the tag ROLLBACK as success,
/// so a statement before it must prove the transaction whole.
pub(super) async fn commit(client: &ClientWrapper) -> Result<(), StoreError> {
    client.batch_execute("SELECT 1").await?;
    client.batch_execute("COMMIT").await.map_err(StoreError::from)
}

pub(super) fn no_answer(bound: Duration) -> StoreError {
    StoreError::Unknown(format!("no answer within {bound:?}"))
}

/// What every session of ours has, as `pg_settings` shows it: times in milliseconds.
pub(super) fn session_settings(timeouts: SessionTimeouts) -> [(&'static str, String); 7] {
    [
        ("synchronous_commit", "on".to_owned()),
        ("default_transaction_isolation", "read committed".to_owned()),
        ("lock_timeout", timeouts.lock.as_millis().to_string()),
        ("statement_timeout", timeouts.statement.as_millis().to_string()),
        ("idle_in_transaction_session_timeout", timeouts.idle_in_transaction.as_millis().to_string()),
        ("client_encoding", "UTF8".to_owned()),
        ("TimeZone", "UTC".to_owned()),
    ]
}

/// The server ends an idle session whose network has gone silent within 11 s, and with it the locks that others wait for;
/// one that is inside a statement ends with it. On a Unix socket they mean nothing.
const SILENCE: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "10000"),
];

/// The same and [`SILENCE`] as start-up options, in which a space is written with a backslash.
pub(super) fn session_options(timeouts: SessionTimeouts) -> String {
    let option = |(name, value): (&str, &str)| format!("-c {name}={}", value.replace(' ', "\\ "));
    let settings = session_settings(timeouts);
    let settings = settings.iter().map(|(name, value)| (*name, value.as_str()));
    settings.chain(SILENCE).map(option).collect::<Vec<_>>().join(" ")
}
