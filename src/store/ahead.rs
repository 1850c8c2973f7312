//! Times that a clock has left behind which was ahead and was put right: they lie further off than anybody can have asked
//! for, and whoever waited for them would wait for hours (protocol §3, "Time").

use std::time::Duration;

use uuid::Uuid;

use super::row::column;
use super::{Store, StoreError};
use crate::model::Destination;

/// The longest wait that no configuration asks for: between tries of an error store that refuses a message.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(64 * 60);

/// An attempt that is left waits as long as its receiver says at most, one that is used up for the error store. Whoever looks
/// sooner than need be does no harm. Of what lies that far off only those rows are taken that have no right to.
const PULL_BACK: &str = "/* pull_back */
WITH now AS MATERIALIZED (SELECT clock_timestamp() AS time),
far AS (
    SELECT j.tx_id, back.not_before, look.at
    FROM posthaste.due d JOIN posthaste.journal j ON j.tx_id = d.tx_id
    JOIN unnest($1::text[], $2::float8[]) w(destination, delay) ON w.destination = j.destination
    CROSS JOIN LATERAL (SELECT (SELECT time FROM now)
        + CASE WHEN j.attempts < j.max_attempts THEN w.delay ELSE $3 END * interval '1 second' AS most) longest
    CROSS JOIN LATERAL (SELECT CASE WHEN j.not_before > longest.most THEN longest.most ELSE j.not_before END AS not_before) back
    CROSS JOIN LATERAL (SELECT CASE WHEN back.not_before > (SELECT time FROM now) THEN back.not_before
                                    ELSE (SELECT time FROM now) + $3 * interval '1 second' END AS at) look
    WHERE d.at > (SELECT time FROM now) + $4 * interval '1 second' AND j.state IN ('READY', 'PUBLISHED')
      AND (d.at > look.at OR j.not_before > back.not_before)
    ORDER BY d.at DESC LIMIT $5 FOR NO KEY UPDATE OF j, d SKIP LOCKED),
waiting AS (
    UPDATE posthaste.journal j SET not_before = far.not_before FROM far
    WHERE j.tx_id = far.tx_id AND j.not_before > far.not_before),
looked AS (
    UPDATE posthaste.due d SET at = far.at FROM far WHERE d.tx_id = far.tx_id AND d.at > far.at)
SELECT count(*) FROM far";

/// For a statement that finds rows by their keys, whatever the statistics say.
const BY_KEYS: &str = "SET LOCAL jit = off; SET LOCAL enable_seqscan = off";
/// For one that takes the first rows of an index and looks at no others. Left to itself the planner sorts them all.
const IN_ORDER: &str = "SET LOCAL jit = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
    SET LOCAL enable_sort = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

/// What a page of `due` held that was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WokenPage {
    pub woken: u64,
    /// The last row, where the next page begins. `None`: there are no more.
    pub last: Option<Uuid>,
}

/// Whether the latest id of the journal is more than a minute ahead.
const AHEAD: &str = "/* ids_are_ahead */
SELECT coalesce((SELECT ('x' || substr(replace(tx_id::text, '-', ''), 1, 12))::bit(48)::bigint
                 FROM posthaste.journal ORDER BY tx_id DESC LIMIT 1)
                > extract(epoch FROM clock_timestamp()) * 1000 + 60000, false)";

const WAKE: &str = "/* wake */
WITH page AS MATERIALIZED (SELECT tx_id, at FROM posthaste.due WHERE tx_id > $1 ORDER BY tx_id LIMIT $2),
far AS (
    SELECT j.tx_id, greatest(clock_timestamp(), j.not_before) AS at
    FROM posthaste.journal j JOIN page ON page.tx_id = j.tx_id
    WHERE j.tx_id = ANY (ARRAY(SELECT tx_id FROM page)) AND j.state IN ('READY', 'PUBLISHED')
      AND (page.at > greatest(clock_timestamp(), j.not_before) + interval '1 second'
           OR j.publish_after > clock_timestamp() + interval '1 minute')
    ORDER BY j.tx_id FOR NO KEY UPDATE OF j SKIP LOCKED),
spaced AS (
    UPDATE posthaste.journal j SET publish_after = clock_timestamp() FROM far
    WHERE j.tx_id = far.tx_id AND j.publish_after > clock_timestamp()),
woken AS (
    UPDATE posthaste.due d SET at = far.at FROM far WHERE d.tx_id = far.tx_id)
SELECT (SELECT count(*) FROM far) AS woken, (SELECT tx_id FROM page ORDER BY tx_id DESC LIMIT 1) AS last";

impl Store {
    /// Whether rows were made by a clock that was ahead: the last id says so.
    pub async fn ids_are_ahead(&self) -> Result<bool, StoreError> {
        self.house.run(async |client| Ok(client.query_one(AHEAD, &[]).await?.get(0))).await
    }

    /// Has the next rows of `due` after `after` looked at now, or when their next attempt is due, and published again without
    /// a pause: what a clock that was ahead has set says nothing. To look sooner than need be does no harm.
    pub async fn wake(&self, after: Uuid, rows: i64) -> Result<WokenPage, StoreError> {
        self.house
            .transaction(async |client| {
                client.batch_execute(BY_KEYS).await?;
                let page = client.query_one(WAKE, &[&after, &rows]).await?;
                let woken: i64 = column(&page, "woken")?;
                Ok(WokenPage { woken: u64::try_from(woken).unwrap_or(0), last: column(&page, "last")? })
            })
            .await
    }

    /// Brings times that lie too far ahead back to the longest wait, the farthest first: `delays`, for each destination the
    /// longest between two attempts. Answers how many; as many as `rows`: there may be more.
    pub async fn pull_back(&self, delays: &[(Destination, Duration)], rows: i64) -> Result<u64, StoreError> {
        let Some(least) = delays.iter().map(|(_, delay)| *delay).chain([LONGEST_PAUSE]).min() else { return Ok(0) };
        let destinations: Vec<&str> = delays.iter().map(|(destination, _)| destination.as_str()).collect();
        let waits: Vec<f64> = delays.iter().map(|(_, delay)| delay.as_secs_f64()).collect();
        self.house
            .transaction(async |client| {
                client.batch_execute(IN_ORDER).await?;
                // Planned anew each time: mostly there is nothing so far ahead, and the index on `at` tells.
                let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                    [&destinations, &waits, &LONGEST_PAUSE.as_secs_f64(), &least.as_secs_f64(), &rows];
                let row = client.query_one(PULL_BACK, &params).await?;
                Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
            })
            .await
    }
}
