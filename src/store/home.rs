//! What an operator says of a home database that has moved: it took the other's place, or the other lives on
//! (protocol §5, "Clones and point-in-time recovery").

use serde::Serialize;
use tokio_postgres::Transaction;

use super::StoreError;
use super::home_place::{FOUND, Facts, KNOWN, OF_HOME, moved};
use super::instance::{check_home_sql, epoch_from, epoch_of};
use super::migrate::{MigrateError, connect};
use super::migration_path::no_table;
use super::names::{find, put};
use super::settings::PostgresSettings;
use crate::model::{Epoch, HomeId};

/// The operator's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HomeDecision {
    /// A fail-over or a restored backup: the other is gone, and this database goes on in its place.
    Same,
    /// A copy: the original lives on and owns what was under way.
    Copy,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HomeSettled {
    pub home: HomeId,
    pub decision: &'static str,
    /// Messages that were under way and are now on hold.
    pub on_hold: u64,
    /// To be shown at the brokers.
    #[serde(skip)]
    pub epoch: Epoch,
}

/// The epoch that a home's database holds.
///
/// # Errors
/// It could not be asked.
pub async fn home_epoch(settings: &PostgresSettings) -> Result<Epoch, MigrateError> {
    let row = connect(settings).await?.query_one(&check_home_sql(), &[]).await.map_err(failed)?;
    Ok(epoch_of(&row))
}

/// Writes down where it lives now.
const PLACE: &str = "/* home_place */
UPDATE posthaste.home h
SET system_identifier = found[1], timeline = found[2]::bigint, database_oid = found[3]::oid, database_name = found[4],
    table_oid = found[5]::oid
FROM (SELECT $1::text[] AS found) f";

const WITNESS: &str = "/* home_witness */
INSERT INTO posthaste.home_witness (inserted_by) VALUES (pg_current_xact_id()::xid)
ON CONFLICT (singleton) DO UPDATE SET inserted_by = excluded.inserted_by";

/// Two further than any that was seen: whoever goes on with the other database raises it by one, and sees that it is old.
const NEW_EPOCH: &str = "/* home_same */
UPDATE posthaste.home SET epoch = greatest(epoch, $1) + 2, epoch_token = gen_random_uuid()
RETURNING id, epoch, epoch_token";

const NEW_ID: &str = "/* home_copy */
UPDATE posthaste.home SET id = gen_random_uuid(), epoch = 1, epoch_token = gen_random_uuid()
RETURNING id, epoch, epoch_token";

/// Instances that this copy knows of serve the original.
const FENCE_ALL: &str = "/* home_copy_fence */
UPDATE posthaste.instance SET state = 'FENCED', fenced_at = clock_timestamp(), fenced_by = incarnation
WHERE state = 'LIVE'";

/// A message that was being resent goes back under its own messagekey.
const HOLD: &str = "/* home_copy_hold */
WITH open AS (
    UPDATE posthaste.journal SET state = 'ERROR', owner = NULL, running_by = NULL, finished_at = clock_timestamp()
    WHERE state IN ('READY', 'PUBLISHED') RETURNING tx_id, root_id, log_key, destination, sha256, attempts),
unwatched AS (DELETE FROM posthaste.due d USING open WHERE d.tx_id = open.tx_id)
INSERT INTO :ibisstore (messagekey, type, slotid, messageid, correlationid, comments, message, tx_id, root_id,
                       content_type, headers, context, sha256, attempts)
SELECT coalesce(p.messagekey, nextval(pg_get_serial_sequence($name$:ibisstore$name$, 'messagekey'))), 'H',
       left(open.destination, 100), coalesce(l.messageid, p.message_id), coalesce(l.correlationid, p.correlation_id),
       'this database is a copy: the original installation owns this message and goes on with it; it was under way to '
           || left(open.destination, 300),
       coalesce(l.message, p.message), open.tx_id, open.root_id,
       CASE WHEN l.messagekey IS NULL THEN p.content_type ELSE l.content_type END,
       coalesce(l.headers, p.headers), coalesce(l.context, p.context), open.sha256, open.attempts
FROM open LEFT JOIN :ibisstore l ON l.messagekey = open.log_key
LEFT JOIN posthaste.payload p ON p.tx_id = open.tx_id AND open.log_key IS NULL
WHERE coalesce(l.message, p.message) IS NOT NULL";

const AUDIT: &str = "/* home_audit */
INSERT INTO posthaste.audit (who, what, target, outcome, detail)
VALUES ($1, 'home', $2, 'succeeded', jsonb_build_object('decision', $3::text, 'was', $4::text, 'is', $5::text,
                                                        'onHold', $6::bigint))";

/// Does what the operator says, in one transaction and on record. Safe to repeat. `newest`: the newest epoch of this home that
/// a broker was shown.
///
/// # Errors
/// Nothing was changed.
pub async fn settle_home(
    settings: &PostgresSettings,
    decision: HomeDecision,
    newest: u64,
    who: &str,
) -> Result<HomeSettled, MigrateError> {
    let mut client = connect(settings).await?;
    let table = find(&client).await.map_err(failed)?.ok_or_else(|| no_table(settings))?;
    let transaction = client.transaction().await.map_err(failed)?;
    let settled = settle(&transaction, &table.name, decision, newest, who).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(settled)
}

fn failed(error: tokio_postgres::Error) -> MigrateError {
    MigrateError::Failed { of: "home".to_owned(), reason: StoreError::from(error).to_string() }
}

async fn settle(
    transaction: &Transaction<'_>,
    table: &str,
    decision: HomeDecision,
    newest: u64,
    who: &str,
) -> Result<HomeSettled, tokio_postgres::Error> {
    let look = format!("/* home_look */ SELECT h.id, {KNOWN}, {FOUND} FROM {OF_HOME} FOR UPDATE OF h");
    let row = transaction.query_one(&look, &[]).await?;
    let (known, found): (Facts, Facts) = (row.get(1), row.get(2));
    let (was, is) = match moved(&known, &found) {
        Some(moved) => (moved.known, moved.found),
        None => ("as it is".to_owned(), "as it was".to_owned()),
    };
    transaction.execute(PLACE, &[&found]).await?;
    transaction.execute(WITNESS, &[]).await?;
    let newest = i64::try_from(newest).unwrap_or(i64::MAX - 2);
    let (word, row, on_hold) = match decision {
        HomeDecision::Same => ("same", transaction.query_one(NEW_EPOCH, &[&newest]).await?, 0),
        HomeDecision::Copy => {
            let row = transaction.query_one(NEW_ID, &[]).await?;
            transaction.execute(FENCE_ALL, &[]).await?;
            ("copy", row, transaction.execute(&put(HOLD, table), &[]).await?)
        }
    };
    let epoch = epoch_from(HomeId(row.get(0)), row.get(1), row.get(2));
    let held = i64::try_from(on_hold).unwrap_or(i64::MAX);
    transaction.execute(AUDIT, &[&who, &epoch.home.to_string(), &word, &was, &is, &held]).await?;
    Ok(HomeSettled { home: epoch.home, decision: word, on_hold, epoch })
}
