//! What `doctor` reads of a PostgreSQL server (B5). Nothing is written: after the first question the session is
//! read-only.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::{Client, NoTls};

use super::error::no_session;
use super::grants;
use super::instance::{LIVE_INSTANCES, check_home_sql, epoch_of, home_check_of, instance_of};
use super::migrate::{ApplicationMigrations, MigrateError, refuse_other_schema};
use super::names::{self, stranger};
use super::opening::session_config;
use super::pool::session_settings;
use super::privileges::FUNCTIONS;
use super::{HomeCheck, Instance, PostgresSettings, SessionTimeouts, StoreError};
use crate::model::Epoch;

/// All questions to one server together.
const BOUND: Duration = Duration::from_secs(20);

/// One server as it answers now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    pub version: String,
    pub database: String,
    /// The one in force.
    pub role: String,
    /// The user, for whom settings and memberships are.
    pub login: String,
    /// Users of live sessions of ours, of other instances too, that this session may not end.
    pub beyond_reach: Vec<String>,
    /// A standby takes no writes.
    pub in_recovery: bool,
    /// Which cluster it is; `None`: the role may not ask.
    pub system: Option<String>,
    pub clock: ClockReading,
    /// As a plain session of this role in this database has them, by name. One that the version does not know is absent.
    pub settings: BTreeMap<String, Setting>,
    /// What became of the settings that our sessions ask for.
    pub session: Vec<SessionSetting>,
    pub standbys: Standbys,
    /// Functions that the program may need and the role may not execute.
    pub refused_functions: Vec<String>,
    /// What `run` needs here and the role has not, as GRANT writes it.
    pub missing: Vec<String>,
    pub schema: SchemaFacts,
    /// Where others could put something in the way of a name or an operator.
    pub open_schemas: Vec<OpenSchema>,
    /// Of the home database alone.
    pub home: Option<HomeFacts>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Without its unit, as `pg_settings` shows it.
    pub value: String,
    /// `default`, `configuration file`, `user` (the role), `database`, `database user`, `client` (the url), …
    pub source: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSetting {
    pub name: &'static str,
    pub wanted: String,
    pub found: Option<String>,
}

/// A schema of the search path, or one that would be in it, which others than its owner may create in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSchema {
    pub name: String,
    /// `false`: it is not there, and they may make it.
    pub exists: bool,
    /// Neither superusers nor roles that ours is a member of; `PUBLIC` are all.
    pub roles: Vec<String>,
}

/// The server's clock against this process's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// Microseconds that the server is ahead.
    pub ahead: i64,
    /// Microseconds by which the reading may be wrong: half of the question's round trip.
    pub uncertain: i64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standbys {
    pub all: i64,
    /// Those that COMMIT waits for; `None`: the role may not see.
    pub synchronous: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaFacts {
    Fits,
    /// Why `run` would not start.
    Refused(String),
    Unseen(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeFacts {
    /// Each error says why it could not be read.
    pub moved: Result<HomeCheck, String>,
    /// What its brokers should show.
    pub epoch: Option<Epoch>,
    pub live: Result<Vec<Instance>, String>,
    /// Our tables for which autovacuum is switched off.
    pub never_vacuumed: Vec<String>,
}

const SETTINGS: &str = "/* doctor_settings */ SELECT name, setting, source FROM pg_settings WHERE name = ANY($1)";

/// What is asked of the server and the role, apart from what sessions set themselves.
const NAMES: &[&str] = &[
    "autovacuum",
    "fsync",
    "full_page_writes",
    "idle_session_timeout",
    "max_prepared_transactions",
    "synchronous_commit",
    "transaction_read_only",
    "transaction_timeout",
];

const READ_ONLY: &str = "/* doctor_begin */ SET default_transaction_read_only = on; SET statement_timeout = '10s'";

const SERVER: &str = "/* doctor_server */
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS in_recovery, current_user::text AS role,
       session_user::text AS login, current_database()::text AS database";

/// As [`super::ending`] asks it.
const BEYOND_REACH: &str = "/* doctor_beyond_reach */
SELECT DISTINCT usename::text FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'posthaste:%' AND NOT pg_has_role(session_user, usesysid, 'USAGE')
  AND NOT pg_has_role(session_user, 'pg_signal_backend', 'USAGE')
  AND NOT pg_has_role(current_user, usesysid, 'USAGE') AND NOT pg_has_role(current_user, 'pg_signal_backend', 'USAGE')
ORDER BY 1";

const SYSTEM: &str = "/* doctor_system */ SELECT (pg_control_system()).system_identifier::text";

const CLOCK: &str = "/* doctor_clock */ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

const STANDBYS: &str = "/* doctor_standbys */
SELECT count(*), count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')), count(sync_state) FROM pg_stat_replication";

const REFUSED: &str = "/* doctor_functions */
SELECT DISTINCT f.name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
CROSS JOIN LATERAL (VALUES (CASE n.nspname WHEN 'pg_catalog' THEN '' ELSE n.nspname || '.' END || p.proname)) f(name)
WHERE f.name = ANY($1) AND NOT has_function_privilege(p.oid, 'EXECUTE') ORDER BY 1";

/// Who may create in a schema of the search path; and in the database, where `"$user"` is in it and means no schema yet. An
/// owner is trusted: he may drop what is there.
const OPEN_SCHEMAS: &str = concat!(
    "/* doctor_open_schemas */
WITH place (name, there, owner, acl, turn) AS (
    SELECT n.nspname::text, true, n.nspowner, n.nspacl, 1
    FROM unnest(current_setting('posthaste.schemas')::name[]) AS path (name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = path.name
    UNION ALL
    SELECT current_user::text, false, d.datdba, coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba)), 2
    FROM pg_catalog.pg_database d
    WHERE d.datname = pg_catalog.current_database()
      AND strpos(current_setting('posthaste.search_path'), '$user') > 0 AND current_user <> 'posthaste'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = current_user))
SELECT p.name, p.there, array_agg(coalesce(r.rolname::text, 'PUBLIC') ORDER BY r.rolname)
FROM place p CROSS JOIN LATERAL pg_catalog.aclexplode(p.acl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE a.privilege_type = 'CREATE' AND a.grantee <> p.owner
  AND (a.grantee = 0 OR ",
    stranger!(),
    ")
GROUP BY p.name, p.there, p.turn ORDER BY p.turn, p.name"
);

const NEVER_VACUUMED: &str = "/* doctor_vacuum */
SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (n.nspname = 'posthaste' OR c.relname = 'ibisstore') AND c.relkind = 'r'
  AND EXISTS (SELECT FROM pg_options_to_table(c.reloptions) o
              WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean)
ORDER BY 1";

/// Asks one server everything. `is_home`: also about our own tables.
///
/// # Errors
/// `Unreachable`: no connection, or no answer in time.
pub async fn server_facts(
    settings: &PostgresSettings,
    is_home: bool,
    applications: &[ApplicationMigrations<'_>],
) -> Result<ServerFacts, StoreError> {
    let late = |_elapsed| StoreError::Unreachable(format!("no answer within {} s", BOUND.as_secs()));
    tokio::time::timeout(BOUND, Box::pin(ask(settings, is_home, applications))).await.map_err(late)?
}

async fn ask(
    settings: &PostgresSettings,
    is_home: bool,
    applications: &[ApplicationMigrations<'_>],
) -> Result<ServerFacts, StoreError> {
    let client = open(settings, None).await?;
    let found = settings_of(&client, NAMES).await?;
    client.batch_execute(READ_ONLY).await?;
    let row = client.query_one(SERVER, &[]).await?;
    let refused_functions = client.query(REFUSED, &[&FUNCTIONS]).await?.iter().map(|row| row.get(0)).collect();
    let (all, synchronous, seen) = {
        let row = client.query_one(STANDBYS, &[]).await?;
        (row.get::<_, i64>(0), row.get(1), row.get::<_, i64>(2))
    };
    Ok(ServerFacts {
        version: row.get("version"),
        database: row.get("database"),
        role: row.get("role"),
        login: row.get("login"),
        beyond_reach: client.query(BEYOND_REACH, &[]).await?.iter().map(|row| row.get(0)).collect(),
        in_recovery: row.get("in_recovery"),
        system: client.query_one(SYSTEM, &[]).await.ok().map(|row| row.get(0)),
        clock: clock(&client).await?,
        settings: found,
        session: own_session(settings).await?,
        standbys: Standbys { all, synchronous: (seen == all).then_some(synchronous) },
        refused_functions,
        missing: grants::to_run(&client, is_home, applications).await?,
        schema: match refuse_other_schema(settings, is_home, applications).await {
            Ok(None) => SchemaFacts::Fits,
            Ok(Some(reason)) => SchemaFacts::Refused(reason),
            Err(error @ (MigrateError::Refused(_) | MigrateError::Failed { .. })) => {
                SchemaFacts::Refused(error.to_string())
            }
            Err(error @ MigrateError::Unreachable(_)) => SchemaFacts::Unseen(error.to_string()),
        },
        open_schemas: open_schemas(&client).await?,
        home: if is_home { Some(home(&client).await?) } else { None },
    })
}

async fn open_schemas(client: &Client) -> Result<Vec<OpenSchema>, StoreError> {
    let rows = client.query(OPEN_SCHEMAS, &[]).await?;
    let open = |row: &tokio_postgres::Row| OpenSchema { name: row.get(0), exists: row.get(1), roles: row.get(2) };
    Ok(rows.iter().map(open).collect())
}

async fn open(settings: &PostgresSettings, timeouts: Option<SessionTimeouts>) -> Result<Client, StoreError> {
    let unreachable = |error| StoreError::Unreachable(settings.advice(&no_session(&error)));
    let config = match timeouts {
        Some(timeouts) => session_config(settings, timeouts),
        None => settings.client_config(),
    };
    let mut config = config.map_err(unreachable)?;
    config.application_name("posthaste:doctor");
    let (client, connection) = config.connect(NoTls).await.map_err(unreachable)?;
    #[expect(clippy::disallowed_methods, reason = "ends with the client, when the questions are answered")]
    tokio::spawn(connection);
    names::open(&client).await.map_err(unreachable)?;
    Ok(client)
}

async fn settings_of(client: &Client, names: &[&str]) -> Result<BTreeMap<String, Setting>, StoreError> {
    let rows = client.query(SETTINGS, &[&names]).await?;
    let setting = |row: &tokio_postgres::Row| (row.get(0), Setting { value: row.get(1), source: row.get(2) });
    Ok(rows.iter().map(setting).collect())
}

/// A session made as our pools make theirs: what stands between may drop its start-up options.
async fn own_session(settings: &PostgresSettings) -> Result<Vec<SessionSetting>, StoreError> {
    let timeouts = SessionTimeouts::default();
    let client = open(settings, Some(timeouts)).await?;
    let wanted = session_settings(timeouts);
    let found = settings_of(&client, &wanted.each_ref().map(|(name, _)| *name)).await?;
    let setting = |(name, wanted): (&'static str, String)| {
        let found = found.get(name).map(|setting| setting.value.clone());
        SessionSetting { name, wanted, found }
    };
    Ok(wanted.into_iter().map(setting).collect())
}

async fn clock(client: &Client) -> Result<ClockReading, StoreError> {
    // Prepared first, so that the reading is one round trip.
    let statement = client.prepare(CLOCK).await?;
    let before = Timestamp::now().as_microsecond();
    let server: i64 = client.query_one(&statement, &[]).await?.get(0);
    let uncertain = (Timestamp::now().as_microsecond() - before) / 2;
    Ok(ClockReading { ahead: server - before - uncertain, uncertain })
}

async fn home(client: &Client) -> Result<HomeFacts, StoreError> {
    let why = |error: tokio_postgres::Error| StoreError::from(error).to_string();
    let row = client.query_one(&check_home_sql(), &[]).await.map_err(why);
    let epoch = row.as_ref().ok().map(epoch_of);
    let moved = row.map(|row| home_check_of(&row));
    let live = match client.query(LIVE_INSTANCES, &[]).await {
        Ok(rows) => rows.iter().map(|row| instance_of(row).map_err(|error| error.to_string())).collect(),
        Err(error) => Err(why(error)),
    };
    let never_vacuumed = client.query(NEVER_VACUUMED, &[]).await?.iter().map(|row| row.get(0)).collect();
    Ok(HomeFacts { moved, epoch, live, never_vacuumed })
}
