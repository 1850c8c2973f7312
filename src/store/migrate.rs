//! The schema: the engine's own migrations, embedded, and the applications', from their configurations.
//! Every change runs under one advisory lock, so that several instances may start at once.

use std::path::Path;

use refinery::{Migration, Runner, Target};
use serde::Serialize;
use tokio_postgres::{Client, NoTls};

use super::pool::OWN_SCHEMA_HIDDEN;
use super::{PostgresSettings, StoreError};

/// The engine's migrations, in order.
const ENGINE: &[(&str, &str)] = &[
    ("V1__engine", include_str!("../../migrations/V1__engine.sql")),
    ("V2__decision", include_str!("../../migrations/V2__decision.sql")),
    ("V3__tables", include_str!("../../migrations/V3__tables.sql")),
    ("V4__take", include_str!("../../migrations/V4__take.sql")),
    ("V5__shared_decision", include_str!("../../migrations/V5__shared_decision.sql")),
    ("V6__lean", include_str!("../../migrations/V6__lean.sql")),
    ("V7__unsettled", include_str!("../../migrations/V7__unsettled.sql")),
    ("V8__home_copy", include_str!("../../migrations/V8__home_copy.sql")),
    ("V9__stopping", include_str!("../../migrations/V9__stopping.sql")),
];

/// The schema version that this binary needs: no other will do.
pub const SCHEMA_VERSION: i32 = 9;

/// Key of the advisory lock under which migrations run: "posthast" in ASCII.
const LOCK: i64 = 0x706f_7374_6861_7374;

/// A migration takes as long as it takes, whatever role and database say; a step of it may read what it has written.
const SESSION: &str = "SET synchronous_commit = on; SET application_name = 'posthaste:migrate'; SET statement_timeout = 0; \
                       SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
                       SET default_transaction_isolation = 'read committed'";

/// One configuration's migrations for one database.
#[derive(Debug, Clone)]
pub struct ApplicationMigrations<'a> {
    pub configuration: &'a str,
    pub files: &'a [std::path::PathBuf],
}

/// One migration that was applied, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// `engine`, or the configuration's name.
    pub of: String,
    pub migration: String,
}

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Nothing was changed.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    #[error("{file}: {reason}")]
    File { file: String, reason: String },
    /// The migration named was rolled back; those before it stand.
    #[error("migration of {of} failed: {reason}")]
    Failed { of: String, reason: String },
    #[error("configuration name {0:?} cannot name a table; use letters, digits, - and _ (at most 40)")]
    Name(String),
}

/// Brings one database up to date and answers what was applied; with `plan`, only what would be.
/// The engine's own tables are made in the home database alone.
pub async fn migrate(
    settings: &PostgresSettings,
    is_home: bool,
    applications: &[ApplicationMigrations<'_>],
    plan: bool,
) -> Result<Vec<Applied>, MigrateError> {
    let mut client = connect(settings).await?;
    let mut applied = Vec::new();
    let mut sets = Vec::new();
    if is_home {
        sets.push(("engine".to_owned(), "posthaste.schema_history".to_owned(), engine_migrations()?));
    }
    for application in applications {
        let table = history_table(application.configuration)?;
        sets.push((application.configuration.to_owned(), table, read_files(application.files)?));
    }
    if plan {
        for (of, table, migrations) in sets {
            applied.extend(pending(&client, &of, &table, &migrations).await?);
        }
        return Ok(applied);
    }
    let failed = |error: tokio_postgres::Error| MigrateError::Unreachable(StoreError::from(error).to_string());
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await.map_err(failed)?;
    client.batch_execute("CREATE SCHEMA IF NOT EXISTS posthaste").await.map_err(failed)?;
    for (of, table, migrations) in sets {
        let mut runner = Runner::new(&migrations).set_target(Target::Latest);
        runner.set_migration_table_name(&table);
        let report = runner
            .run_async(&mut client)
            .await
            .map_err(|error| MigrateError::Failed { of: of.clone(), reason: with_causes(&error) })?;
        let names = report.applied_migrations().iter().map(ToString::to_string);
        applied.extend(names.map(|migration| Applied { of: of.clone(), migration }));
    }
    Ok(applied)
}

/// Why `run` must not start on this database, or nothing.
pub async fn refuse_other_schema(
    settings: &PostgresSettings,
    is_home: bool,
    applications: &[ApplicationMigrations<'_>],
) -> Result<Option<String>, MigrateError> {
    let client = connect(settings).await?;
    if is_home {
        let found = newest(&client, "posthaste.schema_history").await?;
        if found != Some(SCHEMA_VERSION) {
            let found = found.map_or_else(|| "no schema".to_owned(), |version| format!("schema version {version}"));
            return Ok(Some(format!(
                "database {} ({}) has {found}; this binary needs version {SCHEMA_VERSION}: run `posthaste migrate` \
                 with the binary that you want to run",
                settings.name,
                settings.address()
            )));
        }
    }
    for application in applications {
        let table = history_table(application.configuration)?;
        let waiting = pending(&client, application.configuration, &table, &read_files(application.files)?).await?;
        if let Some(first) = waiting.first() {
            return Ok(Some(format!(
                "database {} lacks {} of configuration {}: run `posthaste migrate`",
                settings.name, first.migration, application.configuration
            )));
        }
    }
    Ok(None)
}

pub(super) async fn connect(settings: &PostgresSettings) -> Result<Client, MigrateError> {
    let unreachable = |reason: String| MigrateError::Unreachable(format!("{} ({reason})", settings.address()));
    let config =
        settings.client_config().map_err(|error| MigrateError::Unreachable(format!("{}: {error}", settings.name)))?;
    let (client, connection) = config
        .connect(NoTls)
        .await
        .map_err(|error| unreachable(settings.advice(&StoreError::from(error).to_string())))?;
    #[expect(clippy::disallowed_methods, reason = "ends with the client, a few lines below")]
    tokio::spawn(connection);
    client
        .batch_execute(&format!("{SESSION}; {OWN_SCHEMA_HIDDEN}"))
        .await
        .map_err(|error| unreachable(StoreError::from(error).to_string()))?;
    Ok(client)
}

fn history_table(configuration: &str) -> Result<String, MigrateError> {
    let fits = configuration.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if !fits || configuration.is_empty() || configuration.len() > 40 {
        return Err(MigrateError::Name(configuration.to_owned()));
    }
    Ok(format!("posthaste.\"schema_history_{configuration}\""))
}

fn engine_migrations() -> Result<Vec<Migration>, MigrateError> {
    ENGINE.iter().map(|(name, sql)| parse(name, sql)).collect()
}

fn read_files(files: &[std::path::PathBuf]) -> Result<Vec<Migration>, MigrateError> {
    files
        .iter()
        .map(|file| {
            let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let sql = read(file)?;
            parse(name, &sql)
        })
        .collect()
}

fn read(file: &Path) -> Result<String, MigrateError> {
    std::fs::read_to_string(file)
        .map_err(|error| MigrateError::File { file: file.display().to_string(), reason: error.to_string() })
}

fn parse(name: &str, sql: &str) -> Result<Migration, MigrateError> {
    Migration::unapplied(name, sql)
        .map_err(|error| MigrateError::File { file: name.to_owned(), reason: error.to_string() })
}

async fn newest(client: &Client, table: &str) -> Result<Option<i32>, MigrateError> {
    Ok(versions(client, table).await?.into_iter().max())
}

async fn versions(client: &Client, table: &str) -> Result<Vec<i32>, MigrateError> {
    let failed = |error: tokio_postgres::Error| MigrateError::Unreachable(StoreError::from(error).to_string());
    let exists = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await.map_err(failed)?;
    if !exists.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    // The table's name is made of a checked configuration name; it cannot be a parameter.
    let rows = client.query(&format!("SELECT version FROM {table}"), &[]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn pending(
    client: &Client,
    of: &str,
    table: &str,
    migrations: &[Migration],
) -> Result<Vec<Applied>, MigrateError> {
    let done = versions(client, table).await?;
    let open = migrations.iter().filter(|migration| !done.contains(&migration.version()));
    Ok(open.map(|migration| Applied { of: of.to_owned(), migration: migration.to_string() }).collect())
}

fn with_causes(error: &refinery::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = match cause.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.as_db_error()) {
            Some(db) => format!("{text}: {} (SQLSTATE {})", db.message(), db.code().code()),
            None => format!("{text}: {cause}"),
        };
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_version_is_the_number_of_the_last_engine_migration() {
        let migrations = engine_migrations().unwrap();
        assert_eq!(migrations.last().unwrap().version(), SCHEMA_VERSION);
        assert!(migrations.windows(2).all(|pair| pair[0].version() < pair[1].version()));
    }

    #[test]
    fn a_configuration_name_that_would_break_out_of_the_table_name_is_refused() {
        assert!(history_table("write-db").is_ok());
        for name in ["", "a\"b", "a;b", "a b", &"x".repeat(41)] {
            assert!(history_table(name).is_err(), "{name:?}");
        }
    }
}
