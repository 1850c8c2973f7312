//! Which databases may be used: those that answer and are fit. The home must be; the others are waited for one by one,
//! so that one that is down holds up nothing but what needs it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use super::boot::{RunError, Troubles, applications, refusal};
use crate::config::Settings;
use crate::lifecycle::Lifecycle;
use crate::store::migrate::{MigrateError, refuse_other_schema};
use crate::store::{
    PostgresSettings, PreparedLimit, Store, StoreError, grants_to_run, no_sessions, prepared_limit, refuse_small_limits,
};

/// Between two looks at those that are waited for.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest wait for one that is looked at.
const ANSWER: Duration = Duration::from_secs(5);

/// Why a database is not used now.
pub(super) enum Wait {
    /// It answers, and must not be used as it is.
    Refuse(RunError),
    Later(String),
}

impl From<StoreError> for Wait {
    fn from(error: StoreError) -> Self {
        Self::Later(error.to_string())
    }
}

/// What the servers that were reached allow, by entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Reached(BTreeMap<String, PreparedLimit>);

impl Reached {
    fn refuse(&self, settings: &Settings) -> Result<(), Wait> {
        let known = settings.postgres.iter().filter_map(|entry| Some((entry, self.0.get(&entry.name)?.clone())));
        match refuse_small_limits(&settings.instance.home, &known.collect::<Vec<_>>()) {
            Some(reason) => Err(Wait::Refuse(RunError::Configuration(reason))),
            None => Ok(()),
        }
    }
}

/// Looks at all of them once. The home must be reached; what was reached and must not be used is refused, all at once.
pub(super) async fn look(settings: &Settings, store: &Store) -> Result<Reached, Wait> {
    let mut reached = Reached::default();
    let (mut refused, mut later) = (Troubles::default(), None);
    let looks = join_all(settings.postgres.iter().map(|entry| look_at(settings, entry))).await;
    for (entry, look) in settings.postgres.iter().zip(looks) {
        match look {
            Ok(limit) => drop(reached.0.insert(entry.name.clone(), limit)),
            Err(Wait::Later(reason)) if entry.name != settings.instance.home => {
                store.databases.keep_out(&entry.name, reason);
            }
            Err(Wait::Later(reason)) => later = Some(reason),
            Err(Wait::Refuse(error)) => refused.add(error),
        }
    }
    refused.into_result().map_err(Wait::Refuse)?;
    if let Some(reason) = later {
        return Err(Wait::Later(reason));
    }
    reached.refuse(settings)?;
    Ok(reached)
}

/// Whether its schema is the right one, and what its server allows.
async fn look_at(settings: &Settings, entry: &PostgresSettings) -> Result<PreparedLimit, Wait> {
    let is_home = entry.name == settings.instance.home;
    let waits = |error: MigrateError| match refusal(entry, error) {
        RunError::Unreachable(reason) => Wait::Later(format!("waiting for {reason}")),
        error => Wait::Refuse(error),
    };
    let applications = applications(settings, &entry.name);
    let look = async {
        if let Some(reason) = no_sessions(entry)
            .await
            .map_err(|error| Wait::Later(format!("waiting for database {}: {error}", entry.name)))?
        {
            let place = format!("postgres entry {} ({})", entry.name, entry.address());
            return Err(Wait::Refuse(RunError::Configuration(format!("{place}: {reason}"))));
        }
        let grants = grants_to_run(entry, is_home, &applications).await.map_err(waits)?;
        if !grants.is_empty() {
            let reason = format!("database {}: the role lacks rights: {}", entry.name, grants.join("; "));
            return Err(Wait::Refuse(RunError::Schema(reason)));
        }
        match refuse_other_schema(entry, is_home, &applications).await.map_err(waits)? {
            None => prepared_limit(entry).await.map_err(waits),
            Some(reason) => Err(Wait::Refuse(RunError::Schema(reason))),
        }
    };
    // A server that takes connections and answers nothing is waited for like one that is down.
    tokio::time::timeout(ANSWER, look).await.unwrap_or_else(|_elapsed| Err(Wait::Later(silent(&entry.name))))
}

fn silent(name: &str) -> String {
    format!("waiting for database {name}: no answer within {ANSWER:?}")
}

/// Takes those into use that were reached; to be called before this incarnation is known to others, for it may take a
/// while.
pub(super) async fn admit(store: &Store, reached: &Reached) {
    // One after the other: of two that lead to one database, the first by name is used.
    for name in reached.0.keys() {
        if let Err(reason) = take_in(store, name).await {
            store.databases.keep_out(name, reason);
        }
    }
}

/// Answers why it is not used.
async fn take_in(store: &Store, name: &str) -> Result<(), String> {
    match tokio::time::timeout(ANSWER, store.admit(name)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("waiting for database {name}: {error}")),
        Err(_elapsed) => Err(silent(name)),
    }
}

/// Looks again at those that are waited for until all are in use, or the stop. One that turns out unfit by now is kept
/// out, and `/readyz` says why: the others go on.
pub(super) async fn wait_for_the_rest(
    settings: &Settings,
    store: &Store,
    lifecycle: &Lifecycle,
    reached: &mut Reached,
) {
    let rest = take_up_the_rest(settings, store, lifecycle, reached);
    let _stopped = lifecycle.soft.run_until_cancelled(rest).await;
}

async fn take_up_the_rest(settings: &Settings, store: &Store, lifecycle: &Lifecycle, reached: &mut Reached) {
    let mut told = BTreeMap::new();
    loop {
        lifecycle.watch.turn("databases");
        let waiting = store.databases.waiting();
        if waiting.is_empty() {
            return;
        }
        for (name, reason) in &waiting {
            if told.insert(name.clone(), reason.clone()).as_ref() != Some(reason) {
                tracing::warn!(database = name, reason, "a database is not used yet");
            }
        }
        tokio::time::sleep(AGAIN).await;
        let entries = settings.postgres.iter().filter(|entry| waiting.iter().any(|(name, _)| *name == entry.name));
        let looks = join_all(entries.map(async |entry| (entry, look_at(settings, entry).await))).await;
        for (entry, look) in looks {
            match take_up(settings, store, entry, look, reached).await {
                Ok(()) => tracing::info!(database = entry.name, "a database is in use now"),
                Err(Wait::Later(reason)) => store.databases.keep_out(&entry.name, reason),
                Err(Wait::Refuse(error)) => store.databases.keep_out(&entry.name, error.to_string()),
            }
        }
    }
}

async fn take_up(
    settings: &Settings,
    store: &Store,
    entry: &PostgresSettings,
    look: Result<PreparedLimit, Wait>,
    reached: &mut Reached,
) -> Result<(), Wait> {
    let mut with = reached.clone();
    with.0.insert(entry.name.clone(), look?);
    with.refuse(settings)?;
    take_in(store, &entry.name).await.map_err(Wait::Later)?;
    *reached = with;
    Ok(())
}
