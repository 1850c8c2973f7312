//! Where a migration's names are looked up, and where `ibisstore` is.

use tokio_postgres::Client;

use super::PostgresSettings;
use super::migrate::MigrateError;
use super::names::{self, APPLICATION_PATH, default_schema};

/// What a migration names without a schema is looked up as whoever wrote it means it: our own only where `ibisstore` is, or
/// is to be.
pub(super) async fn take_path(client: &Client, engine: bool) -> Result<(), MigrateError> {
    let place = match (engine, names::find(client).await?) {
        (false, _) => return Ok(client.batch_execute(APPLICATION_PATH).await?),
        (true, Some(table)) => table.schema,
        (true, None) => client.query_one(DEFAULT_SCHEMA, &[]).await?.get::<_, Option<String>>(0).unwrap_or_default(),
    };
    if place.is_empty() {
        return Err(MigrateError::Refused(vec![NO_SCHEMA.to_owned()]));
    }
    let strange = names::in_the_way(client, &place).await?;
    if !strange.is_empty() {
        return Err(MigrateError::Refused(vec![format!(
            "schema {place} holds what could be taken for PostgreSQL's own: {}; drop it, or let its owner be trusted",
            strange.join(", ")
        )]));
    }
    Ok(client.batch_execute(&format!("SET search_path = {place}, pg_temp")).await?)
}

const DEFAULT_SCHEMA: &str = concat!("/* default_schema */ SELECT quote_ident(", default_schema!(), "::text)");
const NO_SCHEMA: &str = "no schema of the search path exists: nobody knows where `ibisstore` is to be made";

/// No table of that name could be the one that was made with the others.
pub(super) fn no_table(settings: &PostgresSettings) -> MigrateError {
    MigrateError::Refused(vec![format!(
        "database {} has no table ibisstore that belongs to the owner of posthaste.journal: ALTER TABLE … OWNER TO that role",
        settings.name
    )])
}
