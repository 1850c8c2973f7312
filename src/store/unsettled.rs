//! Finding every open row: named in `unsettled` from its insert on, until it stands in `due` (protocol §2, I9).

use uuid::Uuid;

use super::row::column;
use super::sweep::{OPEN_COLUMNS, open_row};
use super::{OpenRow, Store, StoreError};
use crate::model::{Destination, TxId};

/// What a page of entries in `unsettled` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPage {
    /// Open rows; those that stand in `due` are looked after there.
    pub rows: Vec<OpenRow>,
    /// The last entry, where the next page begins. `None`: there are no more.
    pub last: Option<Uuid>,
}

/// Open rows of one destination that stand in `due`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCount {
    pub destination: Destination,
    pub open: u64,
    pub unpublished: u64,
    pub oldest: Uuid,
}

/// What a page of `due` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedPage {
    pub counts: Vec<OpenCount>,
    /// The last row, where the next page begins. `None`: there are no more.
    pub last: Option<Uuid>,
}

/// What the auditor has seen of a page of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// Open rows that nobody would have found; they stand in `due` now.
    pub found: Vec<TxId>,
    /// The last row, where the next page begins. `None`: there are no more.
    pub last: Option<Uuid>,
    /// How many rows the journal has, as last estimated by the server.
    pub rows: u64,
}

/// Who removes entries; one at a time, so that nobody waits for anybody.
const LOCK: i64 = 0x706f_7374_756e_7365;

/// Coming back after a crash does an entry no harm. Whatever the statistics say, rows are found by their keys.
const LOCAL: &str = "SET LOCAL synchronous_commit = off; SET LOCAL jit = off; SET LOCAL enable_seqscan = off; \
                     SET LOCAL enable_bitmapscan = off";

/// An entry goes when none of its rows is open but those that stand in `due`. That is asked of one snapshot, and stays true:
/// a settled row never opens again, and a row leaves `due` only in the statement that settles it. `ctid`: entries are never
/// updated, and what the snapshot sees stays in its place.
fn look() -> String {
    format!(
        "/* look_through */
         WITH page AS MATERIALIZED (
             SELECT ctid AS place, tx_id, others FROM posthaste.unsettled WHERE tx_id > $1 ORDER BY tx_id LIMIT $2),
         member AS MATERIALIZED (SELECT page.tx_id AS entry, unnest(page.tx_id || page.others) AS tx_id FROM page),
         open AS MATERIALIZED (
             SELECT {OPEN_COLUMNS}, EXISTS (SELECT FROM posthaste.due d WHERE d.tx_id = j.tx_id OFFSET 0) AS has_due_row
             FROM posthaste.journal j
             WHERE j.tx_id = ANY (ARRAY(SELECT tx_id FROM member)) AND j.state IN ('READY', 'PUBLISHED')),
         gone AS (
             DELETE FROM posthaste.unsettled WHERE ctid = ANY (ARRAY(
                 SELECT place FROM page
                 WHERE tx_id NOT IN (SELECT entry FROM member JOIN open USING (tx_id) WHERE NOT has_due_row)))
               AND (SELECT pg_try_advisory_xact_lock($3)))
         SELECT page.last, open.* FROM (SELECT (SELECT tx_id FROM page ORDER BY tx_id DESC LIMIT 1) AS last) page
         LEFT JOIN open ON true"
    )
}

const COUNT: &str = "/* count_due */
WITH page AS MATERIALIZED (SELECT tx_id FROM posthaste.due WHERE tx_id > $1 ORDER BY tx_id LIMIT $2),
open AS (
    SELECT j.destination, count(*) AS open, count(*) FILTER (WHERE j.state = 'READY') AS unpublished,
           min(j.tx_id::text)::uuid AS oldest
    FROM posthaste.journal j WHERE j.tx_id = ANY (ARRAY(SELECT tx_id FROM page)) AND j.state IN ('READY', 'PUBLISHED')
    GROUP BY j.destination)
SELECT page.last, open.* FROM (SELECT (SELECT tx_id FROM page ORDER BY tx_id DESC LIMIT 1) AS last) page
LEFT JOIN open ON true";

/// I9, asked of rows of the journal, in one snapshot; what it finds missing it mends.
const AUDIT: &str = "/* audit_journal */
WITH page AS MATERIALIZED (SELECT tx_id, state FROM posthaste.journal WHERE tx_id > $1 ORDER BY tx_id LIMIT $2),
open AS MATERIALIZED (
    SELECT tx_id FROM page WHERE state IN ('READY', 'PUBLISHED')
      AND NOT EXISTS (SELECT FROM posthaste.due d WHERE d.tx_id = page.tx_id OFFSET 0)),
found AS (
    INSERT INTO posthaste.due (tx_id, at) SELECT tx_id, clock_timestamp() FROM open
    WHERE tx_id NOT IN (SELECT unnest(u.tx_id || u.others) FROM posthaste.unsettled u WHERE EXISTS (SELECT FROM open))
    ON CONFLICT DO NOTHING RETURNING tx_id)
SELECT (SELECT tx_id FROM page ORDER BY tx_id DESC LIMIT 1) AS last, ARRAY(SELECT tx_id FROM found) AS found,
       (SELECT greatest(reltuples, 0)::float8 FROM pg_class WHERE oid = 'posthaste.journal'::regclass) AS rows";

impl Store {
    /// Looks at the next rows of the journal after `after`, all of them, whether any finder would find them.
    pub async fn audit_journal(&self, after: Uuid, rows: i64) -> Result<AuditPage, StoreError> {
        self.house
            .transaction(async |client| {
                client.batch_execute("SET LOCAL jit = off; SET LOCAL enable_seqscan = off").await?;
                let page = client.query_one(AUDIT, &[&after, &rows]).await?;
                let found: Vec<Uuid> = column(&page, "found")?;
                let estimate: f64 = column(&page, "rows")?;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, not below 0")]
                let rows = estimate as u64;
                Ok(AuditPage { found: found.into_iter().map(TxId).collect(), last: column(&page, "last")?, rows })
            })
            .await
    }

    /// The open rows that the next entries after `after` name, and takes away the entries that are not needed any more.
    pub async fn look_through(&self, after: Uuid, entries: i64) -> Result<OpenPage, StoreError> {
        let look = look();
        self.house
            .transaction(async |client| {
                client.batch_execute(LOCAL).await?;
                let found = client.query(&look, &[&after, &entries, &LOCK]).await?;
                let last = found.first().map_or(Ok(None), |row| column(row, "last"))?;
                let open = |row: &&tokio_postgres::Row| matches!(row.try_get::<_, Option<Uuid>>("tx_id"), Ok(Some(_)));
                let rows = found.iter().filter(open).map(open_row).collect::<Result<_, _>>()?;
                Ok(OpenPage { rows, last })
            })
            .await
    }

    /// Counts the open rows among the next of `due` after `after`.
    pub async fn count_due(&self, after: Uuid, rows: i64) -> Result<WatchedPage, StoreError> {
        self.house
            .transaction(async |client| {
                client.batch_execute(LOCAL).await?;
                let found = client.query(COUNT, &[&after, &rows]).await?;
                let last = found.first().map_or(Ok(None), |row| column(row, "last"))?;
                let counts = found.iter().map(open_count).filter_map(Result::transpose).collect::<Result<_, _>>()?;
                Ok(WatchedPage { counts, last })
            })
            .await
    }
}

fn open_count(row: &tokio_postgres::Row) -> Result<Option<OpenCount>, StoreError> {
    let Some(destination) = row.try_get::<_, Option<&str>>("destination")? else { return Ok(None) };
    let count = |name| Ok::<_, StoreError>(u64::try_from(row.try_get::<_, i64>(name)?).unwrap_or(0));
    Ok(Some(OpenCount {
        destination: Destination::new(destination),
        open: count("open")?,
        unpublished: count("unpublished")?,
        oldest: row.try_get("oldest")?,
    }))
}
