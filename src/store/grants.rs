//! Which rights a role lacks, as the GRANT that gives them.

use tokio_postgres::Client;

use super::PostgresSettings;
use super::migrate::{ApplicationMigrations, MigrateError, connect};
use super::names::{default_schema, find};
use super::privileges::{Privilege, TABLES};

/// The schema that is ours, and the one in which unqualified tables are made.
const TO_MIGRATE: &str = concat!(
    "/* grants_to_migrate */
SELECT current_user::text, pg_catalog.current_database()::text,
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
       (SELECT pg_catalog.has_schema_privilege(oid, 'CREATE') AND pg_catalog.has_schema_privilege(oid, 'USAGE')
        FROM pg_catalog.pg_namespace WHERE nspname = 'posthaste'),
       s.name::text, pg_catalog.has_schema_privilege(s.name::text, 'CREATE')
FROM (SELECT ",
    default_schema!(),
    " AS name) s"
);

/// What the role of this session lacks to apply migrations. `tables`: it makes tables in the default schema, too.
pub(super) async fn to_migrate(client: &Client, tables: bool) -> Result<Vec<String>, MigrateError> {
    let row = client.query_one(TO_MIGRATE, &[]).await?;
    let (role, database): (String, String) = (quoted(row.get(0)), quoted(row.get(1)));
    let mut missing = Vec::new();
    match row.get::<_, Option<bool>>(3) {
        Some(true) => {}
        Some(false) => missing.push(format!("GRANT USAGE, CREATE ON SCHEMA posthaste TO {role}")),
        None if row.get::<_, bool>(2) => {}
        None => missing.push(format!("GRANT CREATE ON DATABASE {database} TO {role}")),
    }
    if let (true, Some(schema), Some(false)) = (tables, row.get::<_, Option<&str>>(4), row.get::<_, Option<bool>>(5)) {
        missing.push(format!("GRANT CREATE ON SCHEMA {} TO {role}", quoted(schema)));
    }
    Ok(missing.into_iter().map(|grant| format!("{role} may not make what is needed: {grant}")).collect())
}

const USAGE: &str = "/* doctor_usage */
SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'posthaste'";

/// Asked by oid: a name in a schema that is closed to the role cannot be resolved.
const MISSING: &str = "/* doctor_privileges */
SELECT w.name, w.privilege FROM unnest($1::text[], $2::text[]) AS w (name, privilege)
JOIN pg_class c ON c.relname = w.name JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (n.nspname = 'posthaste' OR c.oid = $3)
  AND NOT has_table_privilege(c.oid, w.privilege)
ORDER BY 1, 2";

/// What the role of this entry lacks for `run`, as the statements that give it.
///
/// # Errors
/// It did not answer.
pub async fn grants_to_run(
    settings: &PostgresSettings,
    is_home: bool,
    applications: &[ApplicationMigrations<'_>],
) -> Result<Vec<String>, MigrateError> {
    let client = connect(settings).await?;
    let missing = to_run(&client, is_home, applications).await?;
    let role: String = client.query_one("SELECT current_user::text", &[]).await?.get(0);
    Ok(missing.into_iter().map(|what| format!("GRANT {what} TO {}", quoted(&role))).collect())
}

/// Our tables are in the home database alone, the history of an application's migrations wherever its tables are.
pub(super) async fn to_run(
    client: &Client,
    is_home: bool,
    applications: &[ApplicationMigrations<'_>],
) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut needs: Vec<(String, &str)> = Vec::new();
    if is_home {
        let of_table = |(table, needs): &'static (&str, &[Privilege])| {
            needs.iter().map(|need| ((*table).to_owned(), Privilege::as_str(*need)))
        };
        needs.extend(TABLES.iter().flat_map(of_table));
    }
    let histories = applications.iter().map(|one| (format!("schema_history_{}", one.configuration), "SELECT"));
    needs.extend(histories);
    let (tables, privileges): (Vec<String>, Vec<&str>) = needs.into_iter().unzip();
    let mut missing = Vec::new();
    if !tables.is_empty() && client.query_opt(USAGE, &[]).await?.is_some_and(|row| !row.get::<_, bool>(0)) {
        missing.push("USAGE ON SCHEMA posthaste".to_owned());
    }
    let table = find(client).await?.map(|table| table.oid);
    for row in client.query(MISSING, &[&tables, &privileges, &table]).await? {
        let (table, privilege): (&str, &str) = (row.get(0), row.get(1));
        missing.push(match table {
            "ibisstore" => format!("{privilege} ON ibisstore"),
            // A configuration's name may hold what a bare name may not.
            _ if table.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') => {
                format!("{privilege} ON posthaste.{table}")
            }
            _ => format!("{privilege} ON posthaste.{}", quoted(table)),
        });
    }
    Ok(missing)
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
