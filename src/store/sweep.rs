//! Finding what must still be published, claiming it, and marking it (protocol §4, steps 3 and 4).

use std::pin::pin;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::bodies::{WHOLE, of_journal, with_body};
use super::names::Names;
use super::start::stopped;
use super::work::envelope_of;
use super::{Store, StoreError};
use crate::model::{Destination, Envelope, Incarnation, JournalState, Mode, TxId};

/// An open row as the sweeper sees it. Ages are by the database's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRow {
    pub tx_id: TxId,
    pub destination: Destination,
    pub mode: Mode,
    pub state: JournalState,
    pub attempts: i32,
    pub max_attempts: i32,
    pub publishes: i32,
    pub owner: Option<Incarnation>,
    pub running_by: Option<Incarnation>,
    pub started: Option<Duration>,
    /// How long ago it was published (microseconds since the epoch, for comparison with `seen`, and age).
    pub published_at: Option<i64>,
    pub published: Option<Duration>,
    /// `not_before` is NULL or past.
    pub due: bool,
    /// `publish_after` is NULL or past.
    pub publish_due: bool,
    pub has_due_row: bool,
}

/// A message that was claimed for publishing or for processing in process.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub envelope: Envelope,
    pub destination: Destination,
    pub mode: Mode,
    pub attempts: i32,
    pub max_attempts: i32,
    pub publishes: i32,
    /// The process may have ended in its last attempt: an attempt was started and never ended, or none was counted yet.
    pub suspect: bool,
}

/// What a clock wrote that was ahead says nothing: how old such a publish is nobody knows, and no wait is that long.
pub(super) const OPEN_COLUMNS: &str = concat!(
    "j.tx_id, j.destination, j.mode, j.state, j.attempts, j.max_attempts + ",
    stopped!("j.running_by"),
    "::int AS max_attempts, j.publishes, j.owner,
    j.running_by, extract(epoch FROM clock_timestamp() - j.started_at)::float8 AS started,
    (extract(epoch FROM j.published_at) * 1000000)::bigint AS published_at,
    CASE WHEN j.published_at < clock_timestamp() + interval '1 minute'
         THEN extract(epoch FROM clock_timestamp() - j.published_at)::float8 END AS published,
    j.not_before IS NULL OR j.not_before <= clock_timestamp() AS due,
    j.publish_after IS NULL OR j.publish_after <= clock_timestamp()
        OR j.publish_after > clock_timestamp() + interval '2 hours' AS publish_due"
);

impl Store {
    /// Rows whose time has come, oldest first, and settled ones that still stand in `due`. Settled rows leave it here.
    /// LATERAL and OFFSET: the journal is asked for each row by its key. For all that the planner knows of tables that grow
    /// fast it would read all of it instead.
    pub async fn due_rows(&self, limit: i64) -> Result<Vec<OpenRow>, StoreError> {
        let sql = format!(
            "/* due_rows */ SELECT j.*, true AS has_due_row
             FROM posthaste.due d
             CROSS JOIN LATERAL (
                 SELECT {OPEN_COLUMNS} FROM posthaste.journal j
                 WHERE j.tx_id = d.tx_id AND j.state IN ('READY', 'PUBLISHED') OFFSET 0) j
             WHERE d.at <= (SELECT clock_timestamp()) ORDER BY d.at LIMIT $1"
        );
        self.house
            .run(async |client| {
                client
                    .execute(
                        "/* forget_settled */ DELETE FROM posthaste.due WHERE tx_id IN (
                             SELECT d.tx_id FROM posthaste.due d
                             LEFT JOIN posthaste.journal j ON j.tx_id = d.tx_id AND j.state IN ('READY', 'PUBLISHED')
                             WHERE d.at <= (SELECT clock_timestamp()) AND j.tx_id IS NULL
                             ORDER BY d.tx_id LIMIT 1000 FOR UPDATE OF d SKIP LOCKED)",
                        &[],
                    )
                    .await?;
                // Planned anew each time: a plan that was made when the journal was small reads all of it when it has grown.
                client.query(&sql, &[&limit]).await?.iter().map(open_row).collect()
            })
            .await
    }

    /// How long until the next row of `due` comes up; `None` when it is empty.
    pub async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        self.house
            .run(async |client| {
                let row = client
                    .query_one(
                        "/* next_due */
                         SELECT extract(epoch FROM min(at) - clock_timestamp())::float8 FROM posthaste.due",
                        &[],
                    )
                    .await?;
                Ok(row.get::<_, Option<f64>>(0).map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))))
            })
            .await
    }

    /// Makes due at once what instances that are gone were at work on, instead of when their attempts would be overdue.
    pub async fn hasten_orphans(&self) -> Result<u64, StoreError> {
        self.house
            .run(async |client| {
                let sql = "/* hasten_orphans */
                    UPDATE posthaste.due SET at = clock_timestamp() WHERE tx_id IN (
                        SELECT d.tx_id FROM posthaste.due d JOIN posthaste.journal j ON j.tx_id = d.tx_id
                        WHERE d.at > clock_timestamp() AND j.state IN ('READY', 'PUBLISHED') AND j.running_by IS NOT NULL
                          AND NOT EXISTS (SELECT FROM posthaste.instance i
                                          WHERE i.incarnation = j.running_by AND i.state = 'LIVE')
                        ORDER BY d.tx_id FOR UPDATE OF d SKIP LOCKED)";
                Ok(client.execute(sql, &[]).await?)
            })
            .await
    }

    /// Claims rows for publishing, each fenced by state, `attempts` and the owner that was seen; rows that others hold
    /// or have claimed meanwhile are left out, and so is one whose message somebody has deleted.
    /// `spacing`: nobody else publishes them before that is over.
    pub async fn claim(&self, rows: &[OpenRow], spacing: Duration) -> Result<Vec<Claimed>, StoreError> {
        let tx_ids: Vec<Uuid> = rows.iter().map(|row| row.tx_id.0).collect();
        let attempts: Vec<i32> = rows.iter().map(|row| row.attempts).collect();
        let states: Vec<&str> = rows.iter().map(|row| row.state.as_str()).collect();
        let owners: Vec<Option<Uuid>> = rows.iter().map(|row| row.owner.map(|owner| owner.0)).collect();
        self.house
            .transaction(async |client| {
                // Planned anew each time, as in `due_rows`.
                let claimed = client
                    .query(
                        "/* claim */
                         WITH wanted AS (
                             SELECT * FROM unnest($1::uuid[], $2::int4[], $3::text[], $6::uuid[]) w(tx_id, attempts, state, owner)),
                         picked AS (
                             SELECT j.tx_id FROM posthaste.journal j JOIN wanted w USING (tx_id, attempts, state)
                             WHERE j.owner IS NOT DISTINCT FROM w.owner
                             ORDER BY j.tx_id FOR NO KEY UPDATE OF j SKIP LOCKED),
                         claimed AS (
                             UPDATE posthaste.journal j
                             SET state = 'READY', owner = $4, publishes = j.publishes + (j.state = 'PUBLISHED')::int,
                                 publish_after = clock_timestamp() + $5 * power(2, least(j.publishes, 8)) * interval '1 second'
                             FROM picked WHERE j.tx_id = picked.tx_id
                             RETURNING j.tx_id, j.publish_after),
                         watched AS (
                             INSERT INTO posthaste.due (tx_id, at) SELECT tx_id, publish_after FROM claimed
                             ON CONFLICT (tx_id) DO UPDATE SET at = excluded.at)
                         SELECT tx_id FROM claimed",
                        &[&tx_ids, &attempts, &states, &self.incarnation.0, &spacing.as_secs_f64(), &owners],
                    )
                    .await?;
                let claimed: Vec<Uuid> = claimed.iter().map(|row| row.get(0)).collect();
                let messages = claimed_messages(client, &self.names, &claimed).await?;
                if messages.len() < claimed.len() {
                    let missing = claimed.len() - messages.len();
                    tracing::error!(missing, "open journal rows whose messages were deleted from the database");
                }
                Ok(messages)
            })
            .await
    }

    /// Looks again at a row later.
    pub async fn postpone(&self, tx_ids: &[Uuid], by: Duration) -> Result<(), StoreError> {
        self.house
            .run(async |client| {
                client
                    .execute(
                        "/* postpone */ INSERT INTO posthaste.due (tx_id, at)
                         SELECT t, clock_timestamp() + $2 * interval '1 second' FROM unnest($1::uuid[]) t ORDER BY t
                         ON CONFLICT (tx_id) DO UPDATE SET at = excluded.at",
                        &[&tx_ids, &by.as_secs_f64()],
                    )
                    .await?;
                Ok(())
            })
            .await
    }
}

const CLAIMED_MESSAGES: &str = concat!(
    "/* claimed_messages */
     SELECT j.tx_id, j.root_id, j.destination, j.mode, j.attempts, j.max_attempts, j.publishes,
            j.attempts = 0 OR j.running_by IS NOT NULL AS suspect,
            coalesce(l.messageid, p.message_id) AS message_id,
            coalesce(l.correlationid, p.correlation_id) AS correlation_id,
            CASE WHEN l.messagekey IS NULL THEN p.content_type ELSE l.content_type END AS content_type,
            coalesce(l.headers, p.headers) AS headers, octet_length(coalesce(l.message, p.message)) AS bytes,
            CASE WHEN octet_length(coalesce(l.message, p.message)) <= $2 THEN coalesce(l.message, p.message) END AS message
     FROM ",
    with_body!(),
    " WHERE j.tx_id = ANY ($1) AND coalesce(l.message, p.message) IS NOT NULL ORDER BY j.tx_id"
);

/// Each row is let go as soon as it is read: rows that are kept keep what came with them in memory. The large bodies follow.
async fn claimed_messages(client: &ClientWrapper, names: &Names, claimed: &[Uuid]) -> Result<Vec<Claimed>, StoreError> {
    let params: [&(dyn ToSql + Sync); 2] = [&claimed, &WHOLE];
    // Planned anew each time, as in `due_rows`.
    let mut rows = pin!(client.query_raw(&*names.sql(CLAIMED_MESSAGES), params).await?);
    let (mut messages, mut sizes) = (Vec::with_capacity(claimed.len()), Vec::with_capacity(claimed.len()));
    while let Some(row) = rows.try_next().await? {
        messages.push(claimed_row(&row)?);
        sizes.push(row.try_get::<_, i32>("bytes")?);
    }
    let mut found = Vec::with_capacity(messages.len());
    for (mut message, bytes) in messages.into_iter().zip(sizes) {
        if bytes > WHOLE {
            let Some(body) = of_journal(client, names, message.envelope.tx_id, bytes).await? else { continue };
            message.envelope.body = body;
        }
        found.push(message);
    }
    Ok(found)
}

fn seconds(row: &tokio_postgres::Row, column: &str) -> Result<Option<Duration>, StoreError> {
    Ok(row.try_get::<_, Option<f64>>(column)?.map(|age| Duration::from_secs_f64(age.clamp(0.0, 1e9))))
}

fn mode_of(text: &str) -> Result<Mode, StoreError> {
    Mode::from_text(text).ok_or_else(|| StoreError::Unexpected(format!("journal mode {text}")))
}

pub(super) fn open_row(row: &tokio_postgres::Row) -> Result<OpenRow, StoreError> {
    let state: &str = row.try_get("state")?;
    Ok(OpenRow {
        tx_id: TxId(row.try_get("tx_id")?),
        destination: Destination::new(row.try_get("destination")?),
        mode: mode_of(row.try_get("mode")?)?,
        state: JournalState::from_text(state)
            .ok_or_else(|| StoreError::Unexpected(format!("journal state {state}")))?,
        attempts: row.try_get("attempts")?,
        max_attempts: row.try_get("max_attempts")?,
        publishes: row.try_get("publishes")?,
        owner: row.try_get::<_, Option<Uuid>>("owner")?.map(Incarnation),
        running_by: row.try_get::<_, Option<Uuid>>("running_by")?.map(Incarnation),
        started: seconds(row, "started")?,
        published_at: row.try_get("published_at")?,
        published: seconds(row, "published")?,
        due: row.try_get("due")?,
        publish_due: row.try_get("publish_due")?,
        has_due_row: row.try_get("has_due_row")?,
    })
}

fn claimed_row(row: &tokio_postgres::Row) -> Result<Claimed, StoreError> {
    Ok(Claimed {
        envelope: envelope_of(row)?,
        destination: Destination::new(row.try_get("destination")?),
        mode: mode_of(row.try_get("mode")?)?,
        attempts: row.try_get("attempts")?,
        max_attempts: row.try_get("max_attempts")?,
        publishes: row.try_get("publishes")?,
        suspect: row.try_get("suspect")?,
    })
}
