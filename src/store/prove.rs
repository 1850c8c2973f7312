//! What `prove` reads: every message of the home database, from one snapshot (B2).
//!
//! Each question is one statement over whole tables, all in one REPEATABLE READ READ ONLY transaction: nothing is
//! locked, nothing written, and what happens meanwhile is not seen.

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use uuid::Uuid;

use super::names::Names;
use super::prove_rules::{RULES, Rule, balance, listing};
use super::row::column;
use super::{Store, StoreError};

/// What the tables say at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub taken_at: Timestamp,
    pub counts: Vec<Count>,
    /// One per rule, offended or not.
    pub findings: Vec<Finding>,
    pub loads: Vec<Load>,
    pub slots: Vec<SlotRows>,
    /// Ids that came again with another body, and how often.
    pub conflicts: (i64, i64),
}

/// Acceptances of one origin that stand alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Of the message log; `None` when no log holds it.
    pub slot: Option<String>,
    /// Where the first journal row went, when no log holds it and the row is still there.
    pub destination: Option<String>,
    pub standing: Standing,
    pub messages: i64,
}

/// Which acceptances are looked at: all, or those of a range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AcceptedIn {
    /// At this moment or later.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
}

/// Where an acceptance stands. Each is in exactly one; of several journal rows the one that matters most decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Processed,
    /// The broker has confirmed it for a queue of others.
    HandedOver,
    /// Open, no attempt yet.
    Waiting,
    /// Open, with attempts; also a resend that runs.
    Retrying,
    InError,
    /// It was in error, and a resend succeeded.
    Resent,
    /// It was in error, and an operator deleted it, on record.
    Deleted,
    /// On hold, never accepted here under this id.
    Parked,
    /// Its log row is older than the journal's memory: it was settled, and how is no longer known.
    Cleaned,
    /// None of these: it is lost.
    Unaccounted,
}

impl Standing {
    fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "processed" => Self::Processed,
            "handed-over" => Self::HandedOver,
            "waiting" => Self::Waiting,
            "retrying" => Self::Retrying,
            "in-error" => Self::InError,
            "resent" => Self::Resent,
            "deleted" => Self::Deleted,
            "parked" => Self::Parked,
            "cleaned" => Self::Cleaned,
            "unaccounted" => Self::Unaccounted,
            _ => return None,
        })
    }
}

/// What offends a rule: all are counted, some are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    pub count: i64,
    pub ids: Vec<Offender>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender {
    pub tx_id: Option<Uuid>,
    /// The business id, where it is still known.
    pub message_id: Option<String>,
}

/// Open journal rows of one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    pub destination: String,
    pub own_published: i64,
    pub own_ready: i64,
    /// Handed over or processed in process.
    pub other: i64,
    pub oldest: Uuid,
    pub oldest_age: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRows {
    pub slot: String,
    pub kind: String,
    pub rows: i64,
}

/// The memory for one sort or hash keeps a million rows out of temporary files; hash joins need no sort of them.
const BEGIN: &str = "/* prove_begin */ BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL work_mem = '192MB'; SET LOCAL jit = off; SET LOCAL enable_mergejoin = off";

const LOADS: &str = "/* prove_loads */
SELECT destination, count(*) FILTER (WHERE mode = 'OWN' AND state = 'PUBLISHED') AS own_published,
       count(*) FILTER (WHERE mode = 'OWN' AND state = 'READY') AS own_ready,
       count(*) FILTER (WHERE mode <> 'OWN') AS other, min(tx_id::text)::uuid AS oldest,
       extract(epoch FROM clock_timestamp())::float8
           - ('x' || left(replace(min(tx_id::text), '-', ''), 12))::bit(48)::bigint / 1000.0::float8 AS oldest_age
FROM posthaste.journal WHERE state IN ('READY', 'PUBLISHED') GROUP BY destination ORDER BY destination";

const SLOTS: &str = "/* prove_slots */
SELECT slotid::text AS slot, type::text AS kind, count(*) AS rows FROM :ibisstore GROUP BY slotid, type ORDER BY 1, 2";

const CONFLICTS: &str = "/* prove_conflicts */
SELECT count(*) AS ids, coalesce(sum(times), 0)::bigint AS times FROM posthaste.conflict";

impl Store {
    /// Reads all of it. `keep`: how long settled journal rows stay (T_keep). `named`: offenders named per rule. A range
    /// is one of acceptances; loads, slots and conflicts are always all.
    ///
    /// Give this store time-outs that allow statements over whole tables.
    pub async fn prove(&self, keep: Duration, named: i64, accepted: AcceptedIn) -> Result<Snapshot, StoreError> {
        let session = self.house.session().await?;
        // The server bounds each statement; on any error the connection is closed.
        let client = session.client()?;
        client.batch_execute(BEGIN).await?;
        let snapshot = read(client, &self.names, keep, named, accepted).await?;
        client.batch_execute("COMMIT").await?;
        session.release();
        Ok(snapshot)
    }
}

async fn read(
    client: &ClientWrapper,
    names: &Names,
    keep: Duration,
    named: i64,
    accepted: AcceptedIn,
) -> Result<Snapshot, StoreError> {
    let AcceptedIn { since, until } = accepted;
    let of_range = accepted != AcceptedIn::default();
    let keep = keep.as_secs_f64();
    let counts = match of_range {
        true => client.query(&names.of(&balance(true)), &[&keep, &since, &until]).await?,
        false => client.query(&names.of(&balance(false)), &[&keep]).await?,
    };
    let taken_at = client.query_one("/* prove_now */ SELECT now() AS taken_at", &[]).await?;
    let mut findings = Vec::new();
    for rule in RULES {
        findings.push(find(client, names, rule, keep, named, accepted).await?);
    }
    let loads = client.query(LOADS, &[]).await?;
    let slots = client.query(&*names.sql(SLOTS), &[]).await?;
    let conflicts = client.query_one(CONFLICTS, &[]).await?;
    Ok(Snapshot {
        taken_at: column(&taken_at, "taken_at")?,
        counts: counts.iter().map(count_of).collect::<Result<_, _>>()?,
        findings,
        loads: loads.iter().map(load_of).collect::<Result<_, _>>()?,
        slots: slots.iter().map(slot_of).collect::<Result<_, _>>()?,
        conflicts: (column(&conflicts, "ids")?, column(&conflicts, "times")?),
    })
}

async fn find(
    client: &ClientWrapper,
    names: &Names,
    rule: Rule,
    keep: f64,
    named: i64,
    accepted: AcceptedIn,
) -> Result<Finding, StoreError> {
    let AcceptedIn { since, until } = accepted;
    let rows = match accepted != AcceptedIn::default() {
        true => client.query(&names.of(&listing(rule, true)), &[&keep, &named, &since, &until]).await?,
        false => client.query(&names.of(&listing(rule, false)), &[&keep, &named]).await?,
    };
    let count = rows.first().map_or(Ok(0), |row| column(row, "total"))?;
    let ids = rows
        .iter()
        .map(|row| Ok(Offender { tx_id: column(row, "tx_id")?, message_id: column(row, "message_id")? }))
        .collect::<Result<_, StoreError>>()?;
    Ok(Finding { rule, count, ids })
}

fn count_of(row: &tokio_postgres::Row) -> Result<Count, StoreError> {
    let standing: &str = column(row, "standing")?;
    Ok(Count {
        slot: column(row, "slot")?,
        destination: column(row, "destination")?,
        standing: Standing::from_text(standing)
            .ok_or_else(|| StoreError::Unexpected(format!("standing {standing:?}")))?,
        messages: column(row, "messages")?,
    })
}

fn load_of(row: &tokio_postgres::Row) -> Result<Load, StoreError> {
    let age: f64 = column(row, "oldest_age")?;
    Ok(Load {
        destination: column(row, "destination")?,
        own_published: column(row, "own_published")?,
        own_ready: column(row, "own_ready")?,
        other: column(row, "other")?,
        oldest: column(row, "oldest")?,
        oldest_age: Duration::from_secs_f64(age.clamp(0.0, 1e9)),
    })
}

fn slot_of(row: &tokio_postgres::Row) -> Result<SlotRows, StoreError> {
    Ok(SlotRows { slot: column(row, "slot")?, kind: column(row, "kind")?, rows: column(row, "rows")? })
}
