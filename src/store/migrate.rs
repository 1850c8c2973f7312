//! The schema: the engine's own migrations, embedded, and the applications', from their configurations.
//! Every change runs under one advisory lock, so that several instances may start at once.

use std::path::Path;

use refinery::{Runner, Target};
use serde::Serialize;
use tokio_postgres::{Client, NoTls};

use super::error::no_session;
use super::grants::{self, quoted};
use super::migration::{MigrationFile, Recorded, compare, explained};
use super::migration_path::{no_table, take_path};
use super::names::{self, OWN_PATH};
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
    ("V10__named", include_str!("../../migrations/V10__named.sql")),
];

/// The schema version that this binary needs: no other will do.
pub const SCHEMA_VERSION: i32 = 10;

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
    /// All that stands in the way. Nothing was changed.
    #[error("{}", .0.join("; "))]
    Refused(Vec<String>),
    /// The migration named was rolled back; those before it stand.
    #[error("migration of {of} failed: {reason}")]
    Failed { of: String, reason: String },
}

impl From<tokio_postgres::Error> for MigrateError {
    fn from(error: tokio_postgres::Error) -> Self {
        match StoreError::from(error) {
            error @ StoreError::Refused { .. } => Self::Refused(vec![error.to_string()]),
            error @ (StoreError::Unreachable(_) | StoreError::Unknown(_) | StoreError::Unexpected(_)) => {
                Self::Unreachable(error.to_string())
            }
        }
    }
}

/// The migrations of one history.
struct Set {
    of: String,
    /// The history's table in the schema `posthaste`.
    table: String,
    files: Vec<MigrationFile>,
}

/// One history against its files.
struct Judged<'a> {
    set: &'a Set,
    pending: Vec<&'a MigrationFile>,
    history: Vec<Recorded>,
}

impl Judged<'_> {
    fn applied(&self, file: &MigrationFile) -> Applied {
        Applied { of: self.set.of.clone(), migration: file.name() }
    }
}

/// What `migrate` would apply to one database; nothing is changed.
///
/// # Errors
/// It would not, and why.
pub async fn plan(
    settings: &PostgresSettings,
    is_home: bool,
    applications: &[ApplicationMigrations<'_>],
) -> Result<Vec<Applied>, MigrateError> {
    let client = connect(settings).await?;
    let sets = sets(is_home, applications)?;
    let judged = fit_to_apply(&client, settings, &sets).await?;
    Ok(judged.iter().flat_map(|one| one.pending.iter().map(|file| one.applied(file))).collect())
}

/// Brings one database up to date; what was applied is added to `applied`, also before an error. The engine's own tables
/// are made in the home database alone.
pub async fn migrate(
    settings: &PostgresSettings,
    is_home: bool,
    applications: &[ApplicationMigrations<'_>],
    applied: &mut Vec<Applied>,
) -> Result<(), MigrateError> {
    let mut client = connect(settings).await?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    let sets = sets(is_home, applications)?;
    for one in fit_to_apply(&client, settings, &sets).await? {
        for file in &one.pending {
            apply(&mut client, one.set, file).await?;
            applied.push(one.applied(file));
        }
    }
    Ok(())
}

/// As [`judged`], when the role may apply what is pending.
async fn fit_to_apply<'a>(
    client: &Client,
    settings: &PostgresSettings,
    sets: &'a [Set],
) -> Result<Vec<Judged<'a>>, MigrateError> {
    let judged = judged(client, settings, sets).await?;
    let new = judged.iter().any(|one| one.set.table == ENGINE_HISTORY && one.history.is_empty());
    if judged.iter().any(|one| !one.pending.is_empty()) {
        let missing = grants::to_migrate(client, new).await?;
        if !missing.is_empty() {
            return Err(MigrateError::Refused(missing));
        }
    }
    Ok(judged)
}

async fn apply(client: &mut Client, set: &Set, file: &MigrationFile) -> Result<(), MigrateError> {
    // With IF NOT EXISTS, PostgreSQL asks for the right to make one also where there is one.
    if client.query_opt(SCHEMA, &[]).await?.is_none() {
        client.batch_execute("CREATE SCHEMA IF NOT EXISTS posthaste").await?;
    }
    take_path(client, set.table == ENGINE_HISTORY).await?;
    // Which files are applied, and whether they are those that were, is judged before.
    let runner = Runner::new(std::slice::from_ref(file.migration())).set_target(Target::Latest);
    let mut runner = runner.set_abort_missing(false).set_abort_divergent(false);
    runner.set_migration_table_name(format!("posthaste.\"{}\"", set.table));
    let done = runner.run_async(client).await;
    let Err(error) = done else { return Ok(client.batch_execute(OWN_PATH).await?) };
    // What it has set was rolled back with it, or not; the connection may be gone.
    let _own_again = client.batch_execute(OWN_PATH).await;
    let (reason, refused_right) = explained(&error, file);
    let grants = if refused_right { grants::to_migrate(client, true).await.unwrap_or_default() } else { Vec::new() };
    let reason = std::iter::once(reason).chain(grants).collect::<Vec<_>>().join("; ");
    Err(MigrateError::Failed { of: set.of.clone(), reason: format!("{}: {reason}", file.name()) })
}

/// Why `run` must not start on this database, or nothing.
pub async fn refuse_other_schema(
    settings: &PostgresSettings,
    is_home: bool,
    applications: &[ApplicationMigrations<'_>],
) -> Result<Option<String>, MigrateError> {
    let client = connect(settings).await?;
    let sets = sets(is_home, applications)?;
    let mut lacking = Vec::new();
    for one in judged(&client, settings, &sets).await? {
        if one.pending.is_empty() {
            continue;
        }
        if one.set.table == ENGINE_HISTORY {
            return Ok(Some(other_version(settings, one.history.iter().map(|row| row.version).max())));
        }
        let names: Vec<String> = one.pending.into_iter().map(MigrationFile::name).collect();
        lacking.push(format!("{} of configuration {}", names.join(", "), one.set.of));
    }
    if lacking.is_empty() && is_home && names::find(&client).await?.is_none() {
        return Ok(Some(no_table(settings).to_string()));
    }
    Ok((!lacking.is_empty())
        .then(|| format!("database {} lacks {}: run `posthaste migrate`", settings.name, lacking.join("; "))))
}

fn other_version(settings: &PostgresSettings, found: Option<i32>) -> String {
    let found = found.map_or_else(|| "no schema".to_owned(), |version| format!("schema version {version}"));
    format!(
        "database {} ({}) has {found}; this binary needs version {SCHEMA_VERSION}: run `posthaste migrate` with the \
         binary that you want to run",
        settings.name,
        settings.address()
    )
}

/// What is pending in each.
///
/// # Errors
/// `Refused`: the histories and the files do not fit.
async fn judged<'a>(
    client: &Client,
    settings: &PostgresSettings,
    sets: &'a [Set],
) -> Result<Vec<Judged<'a>>, MigrateError> {
    let (mut found, mut mistakes) = (Vec::new(), Vec::new());
    for set in sets {
        let history = history(client, &set.table).await?;
        let newest = history.iter().map(|row| row.version).max();
        if set.table == ENGINE_HISTORY && newest > Some(SCHEMA_VERSION) {
            return Err(MigrateError::Refused(vec![other_version(settings, newest)]));
        }
        match compare(&set.files, &history) {
            Ok(pending) => found.push(Judged { set, pending, history }),
            Err(more) => mistakes.extend(more),
        }
    }
    if mistakes.is_empty() { Ok(found) } else { Err(MigrateError::Refused(mistakes)) }
}

pub(super) async fn connect(settings: &PostgresSettings) -> Result<Client, MigrateError> {
    let unreachable = |reason: String| MigrateError::Unreachable(format!("{} ({reason})", settings.address()));
    let config =
        settings.client_config().map_err(|error| MigrateError::Unreachable(format!("{}: {error}", settings.name)))?;
    let (client, connection) =
        config.connect(NoTls).await.map_err(|error| unreachable(settings.advice(&no_session(&error))))?;
    #[expect(clippy::disallowed_methods, reason = "ends with the client, a few lines below")]
    tokio::spawn(connection);
    let told = |error| unreachable(StoreError::from(error).to_string());
    client.batch_execute(SESSION).await.map_err(told)?;
    names::open(&client).await.map_err(told)?;
    Ok(client)
}

/// The longest configuration's name with migrations: PostgreSQL cuts off names of tables at 63 bytes.
pub const LONGEST_NAME: usize = 63 - HISTORY_OF.len();
const HISTORY_OF: &str = "schema_history_";
const ENGINE_HISTORY: &str = "schema_history";

/// The table, in the schema `posthaste`, that tells which migrations of a configuration are applied.
pub(super) fn history_table(configuration: &str) -> Result<String, MigrateError> {
    let fits = configuration.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !fits || configuration.is_empty() || configuration.len() > LONGEST_NAME {
        return Err(MigrateError::Refused(vec![format!(
            "configuration name {configuration:?} cannot name a table; use letters, digits, -, _ and . (at most \
             {LONGEST_NAME})"
        )]));
    }
    Ok(format!("{HISTORY_OF}{configuration}"))
}

fn sets(is_home: bool, applications: &[ApplicationMigrations<'_>]) -> Result<Vec<Set>, MigrateError> {
    let refused = |place: &str, reason: String| MigrateError::Refused(vec![format!("{place}: {reason}")]);
    let mut sets = Vec::new();
    if is_home {
        let read = |(stem, sql): &(&str, &str)| {
            MigrationFile::read(stem, stem, sql.as_bytes()).map_err(|reason| refused(stem, reason))
        };
        let files = ENGINE.iter().map(read).collect::<Result<_, _>>()?;
        sets.push(Set { of: "engine".to_owned(), table: ENGINE_HISTORY.to_owned(), files });
    }
    for application in applications {
        let read =
            |path: &std::path::PathBuf| read_migration(path).map_err(|why| refused(&path.to_string_lossy(), why));
        let table = history_table(application.configuration)?;
        let files = application.files.iter().map(read).collect::<Result<_, _>>()?;
        sets.push(Set { of: application.configuration.to_owned(), table, files });
    }
    Ok(sets)
}

/// Reads one `V<n>__<what>.sql`.
///
/// # Errors
/// Why it is no migration.
pub fn read_migration(path: &Path) -> Result<MigrationFile, String> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let bytes = std::fs::read(path).map_err(|error| format!("it cannot be read: {error}"))?;
    MigrationFile::read(&path.to_string_lossy(), stem, &bytes)
}

const SCHEMA: &str = "/* own_schema */ SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'posthaste'";
/// By oid: a name in a schema that is closed to the role cannot be resolved.
const READABLE: &str = "/* history_readable */
SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'),
       current_user::text
FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid
WHERE n.nspname = 'posthaste' AND c.relname = $1::text";

async fn history(client: &Client, table: &str) -> Result<Vec<Recorded>, MigrateError> {
    let Some(row) = client.query_opt(READABLE, &[&table]).await? else { return Ok(Vec::new()) };
    if !row.get::<_, bool>(0) {
        let role = quoted(row.get(1));
        return Err(MigrateError::Refused(vec![format!(
            "{role} may not read which migrations are applied: GRANT USAGE ON SCHEMA posthaste TO {role}; GRANT SELECT ON \
             posthaste.{} TO {role}",
            quoted(table)
        )]));
    }
    // A table's name cannot be a parameter.
    let sql = format!("SELECT version, name::text, checksum::text FROM posthaste.{} ORDER BY version", quoted(table));
    let rows = client.query(&sql, &[]).await?;
    let recorded = |row: &tokio_postgres::Row| Recorded {
        version: row.get(0),
        name: row.get(1),
        checksum: row.get::<_, &str>(2).parse().unwrap_or_default(),
    };
    Ok(rows.iter().map(recorded).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_version_is_the_number_of_the_last_engine_migration() {
        let sets = sets(true, &[]).unwrap();
        let versions: Vec<i32> = sets[0].files.iter().map(MigrationFile::version).collect();
        assert_eq!(versions, (1..=SCHEMA_VERSION).collect::<Vec<_>>());
    }

    #[test]
    fn a_configuration_name_that_would_break_out_of_the_table_name_is_refused() {
        for name in ["write-db", "billing.v2", &"x".repeat(LONGEST_NAME)] {
            assert!(history_table(name).is_ok(), "{name:?}");
        }
        for name in ["", "a\"b", "a;b", "a b", &"x".repeat(LONGEST_NAME + 1)] {
            assert!(history_table(name).is_err(), "{name:?}");
        }
    }
}
