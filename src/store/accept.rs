//! The statement that accepts: log row and journal rows, or nothing (protocol §4, step 1).

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use uuid::Uuid;

use super::durable::standby;
use super::entry::journal_rows;
use super::{Claimed, Pool, Store, StoreError};
use crate::model::{Destination, Envelope, MessageId, Mode, SlotId, TxId};
use crate::txn::faults::{Point, reach};

/// A message that is to be accepted.
#[derive(Debug)]
pub struct AcceptRequest {
    pub envelope: Envelope,
    pub sha256: [u8; 32],
    pub host: Arc<str>,
    pub log: Option<LogEntry>,
    /// One journal row each; the first carries the envelope's `tx_id`.
    pub outgoing: Vec<Outgoing>,
}

/// The row of the message log.
#[derive(Debug)]
pub struct LogEntry {
    pub slot_id: SlotId,
    pub retention: Duration,
    /// `None`: repeats are not looked for.
    pub dedup_key: Option<MessageId>,
}

/// A journal row that is to be inserted: "I can publish this, for ever".
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub tx_id: TxId,
    pub destination: Destination,
    pub mode: Mode,
    pub max_attempts: i32,
}

impl AcceptRequest {
    /// What is published once it is accepted.
    #[must_use]
    pub fn into_messages(self) -> Vec<Claimed> {
        let Self { envelope, outgoing, .. } = self;
        let last = outgoing.len().saturating_sub(1);
        let mut envelope = Some(envelope);
        let of_row = |(at, row): (usize, Outgoing)| {
            let envelope = if at == last { envelope.take() } else { envelope.clone() };
            envelope.map(|envelope| row.into_message(envelope))
        };
        outgoing.into_iter().enumerate().filter_map(of_row).collect()
    }
}

impl Outgoing {
    /// The committed row's message, which nobody has published yet. `envelope`: of whatever message it was made from.
    #[must_use]
    pub fn into_message(self, envelope: Envelope) -> Claimed {
        Claimed {
            envelope: Envelope { tx_id: self.tx_id, ..envelope },
            destination: self.destination,
            mode: self.mode,
            attempts: 0,
            max_attempts: self.max_attempts,
            publishes: 0,
            suspect: false,
        }
    }
}

/// What the statement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    Yes,
    /// Another row holds this (slotId, key), and it is committed.
    Conflict,
}

/// The row that holds a (slotId, key).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Winner {
    pub tx_id: TxId,
    pub sha256: Vec<u8>,
}

/// What a read has found. Nobody may be told before [`Store::outlasting`] says that it stays.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Seen<T> {
    found: T,
    /// Whether commits wait for a standby: it may be visible and not there.
    standby: bool,
}

/// How long the accepting instance has for publishing before a sweeper may do it.
pub const PUBLISH_AFTER: Duration = Duration::from_secs(10);

const LOGGED: &str = concat!(
    "/* accept_logged */
WITH log AS (
    INSERT INTO :ibisstore (type, slotid, host, messageid, correlationid, message, expirydate, dedup_key,
                           tx_id, root_id, content_type, headers, sha256)
    VALUES ('A', $1, $2, $3, $4, $5, clock_timestamp() + $6 * interval '1 second', $7, $8, $9, $10, $11, $12)
    ON CONFLICT (slotid, dedup_key) DO NOTHING
    RETURNING messagekey),
kin AS (
    INSERT INTO posthaste.lineage (root_id, tx_id, parent_id, cause)
    SELECT $9, sent.tx_id, $8, 'OUTGOING' FROM log, unnest($13::uuid[]) sent(tx_id) WHERE sent.tx_id <> $9),
",
    journal_rows!(
        each,
        "tx_id, root_id, log_key, sha256, mode, destination, max_attempts, owner, publish_after",
        "SELECT sent.tx_id, $9, log.messagekey, $12, sent.mode, sent.destination, sent.max_attempts, $17,
           clock_timestamp() + $18 * interval '1 second'
    FROM log, unnest($13::uuid[], $14::text[], $15::text[], $16::int4[]) sent(tx_id, mode, destination, max_attempts)"
    ),
    "
SELECT messagekey FROM log"
);

const UNLOGGED: &str = concat!(
    "/* accept_unlogged */
WITH sent AS (SELECT * FROM unnest($8::uuid[], $9::text[], $10::text[], $11::int4[]) s(tx_id, mode, destination, max_attempts)),
body AS (
    INSERT INTO posthaste.payload (tx_id, message_id, correlation_id, content_type, headers, message)
    SELECT sent.tx_id, $1, $2, $3, $4, $5 FROM sent),
kin AS (
    INSERT INTO posthaste.lineage (root_id, tx_id, parent_id, cause)
    SELECT $6, sent.tx_id, $6, 'OUTGOING' FROM sent WHERE sent.tx_id <> $6),
",
    journal_rows!(
        last,
        "tx_id, root_id, sha256, mode, destination, max_attempts, owner, publish_after",
        "SELECT sent.tx_id, $6, $7, sent.mode, sent.destination, sent.max_attempts, $12,
           clock_timestamp() + $13 * interval '1 second'
    FROM sent"
    )
);

const WINNER: &str =
    concat!("/* winner */ SELECT tx_id, sha256, ", standby!(), " FROM :ibisstore WHERE slotid = $1 AND dedup_key = $2");

impl Store {
    /// Sends the accepting statement once, for one message. Its implicit COMMIT is the decision.
    ///
    /// # Errors
    /// `Refused` is only answered when the session answered again afterwards (ReadyForQuery).
    pub async fn accept(&self, request: &AcceptRequest) -> Result<Inserted, StoreError> {
        let owner = self.incarnation.0;
        let bytes = request.envelope.body.len();
        self.decide(&self.accept, bytes, async |client| match &request.log {
            Some(log) => insert_logged(client, &self.sql(LOGGED), request, log, owner).await,
            None => insert_unlogged(client, request, owner).await,
        })
        .await
    }

    /// Sends the same, and takes it back: whether messages would be accepted now.
    ///
    /// # Errors
    /// As for `accept`; nothing stays of it in any case.
    pub async fn would_accept(&self, request: &AcceptRequest) -> Result<(), StoreError> {
        self.at_home()?;
        self.gate.pass()?;
        let (owner, mut taken) = (self.incarnation.0, false);
        let answer = self.accept.transaction(async |client| {
            match &request.log {
                Some(log) => insert_logged(client, &self.sql(LOGGED), request, log, owner).await?,
                None => insert_unlogged(client, request, owner).await?,
            };
            taken = true;
            Err(StoreError::Unexpected("taken back".to_owned()))
        });
        let answer: Result<(), StoreError> = answer.await;
        if taken { Ok(()) } else { answer }
    }

    /// One statement whose implicit COMMIT decides, with so many bytes of bodies, and with the crash points around it.
    pub(super) async fn decide<T>(
        &self,
        pool: &Pool,
        bytes: usize,
        send: impl AsyncFnOnce(&ClientWrapper) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.at_home()?;
        self.gate.pass()?;
        reach(Point::IN1).await?;
        reach(Point::IN10).await?;
        let session = pool.session().await?;
        session.carries(bytes);
        let answer = pool.bounded(async { send(session.client()?).await }).await;
        reach(Point::IN2).await?;
        reach(Point::IN6).await?;
        pool.settle_proved(session, answer).await
    }

    /// The committed row that holds this key, read by a statement of its own: the one that lost the race cannot see it.
    pub async fn winner(&self, slot_id: &SlotId, dedup_key: &str) -> Result<Option<Seen<Winner>>, StoreError> {
        self.accept
            .run(async |client| {
                let statement = client.prepare_cached(&self.sql(WINNER)).await?;
                let row = client.query_opt(&statement, &[&slot_id.as_str(), &dedup_key]).await?;
                Ok(row.map(|row| Seen {
                    found: Winner { tx_id: TxId(row.get::<_, Uuid>(0)), sha256: row.get(1) },
                    standby: row.get("standby"),
                }))
            })
            .await
    }

    /// What was seen, once it outlasts a fail-over.
    ///
    /// # Errors
    /// It is not known whether it does.
    pub async fn outlasting<T>(&self, seen: Seen<T>) -> Result<T, StoreError> {
        if seen.standby {
            self.durable().await?;
        }
        Ok(seen.found)
    }

    /// Records that a known id came with another body (protocol §4).
    pub async fn record_conflict(
        &self,
        slot_id: &SlotId,
        dedup_key: &str,
        sha256: &[u8],
        size: usize,
    ) -> Result<(), StoreError> {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        self.accept
            .run(async |client| {
                client
                    .execute(
                        "/* record_conflict */ INSERT INTO posthaste.conflict (slotid, dedup_key, sha256, size)
                         VALUES ($1, $2, $3, $4) ON CONFLICT (slotid, dedup_key, sha256)
                         DO UPDATE SET times = conflict.times + 1, last_seen = clock_timestamp()",
                        &[&slot_id.as_str(), &dedup_key, &sha256, &size],
                    )
                    .await?;
                Ok(())
            })
            .await
    }
}

async fn insert_logged(
    client: &ClientWrapper,
    sql: &str,
    request: &AcceptRequest,
    log: &LogEntry,
    owner: Uuid,
) -> Result<Inserted, StoreError> {
    let (envelope, columns) = (&request.envelope, Columns::of(&request.outgoing));
    let statement = client.prepare_cached(sql).await?;
    let rows = client
        .query(
            &statement,
            &[
                &log.slot_id.as_str(),
                &&*request.host,
                &envelope.message_id.as_str(),
                &envelope.correlation_id.as_str(),
                &&envelope.body[..],
                &log.retention.as_secs_f64(),
                &log.dedup_key.as_ref().map(MessageId::as_str),
                &envelope.tx_id.0,
                &envelope.root_id.0,
                &envelope.content_type,
                &serde_json::json!(envelope.headers),
                &request.sha256.as_slice(),
                &columns.tx_ids,
                &columns.modes,
                &columns.destinations,
                &columns.max_attempts,
                &owner,
                &PUBLISH_AFTER.as_secs_f64(),
            ],
        )
        .await?;
    Ok(if rows.is_empty() { Inserted::Conflict } else { Inserted::Yes })
}

async fn insert_unlogged(client: &ClientWrapper, request: &AcceptRequest, owner: Uuid) -> Result<Inserted, StoreError> {
    let (envelope, columns) = (&request.envelope, Columns::of(&request.outgoing));
    let statement = client.prepare_cached(UNLOGGED).await?;
    let inserted = client
        .execute(
            &statement,
            &[
                &envelope.message_id.as_str(),
                &envelope.correlation_id.as_str(),
                &envelope.content_type,
                &serde_json::json!(envelope.headers),
                &&envelope.body[..],
                &envelope.root_id.0,
                &request.sha256.as_slice(),
                &columns.tx_ids,
                &columns.modes,
                &columns.destinations,
                &columns.max_attempts,
                &owner,
                &PUBLISH_AFTER.as_secs_f64(),
            ],
        )
        .await?;
    if inserted == 0 {
        return Err(StoreError::Unexpected("no journal row was inserted".to_owned()));
    }
    Ok(Inserted::Yes)
}

/// The outgoing rows, column by column, as `unnest` takes them.
pub(super) struct Columns<'a> {
    pub tx_ids: Vec<Uuid>,
    pub modes: Vec<&'static str>,
    pub destinations: Vec<&'a str>,
    pub max_attempts: Vec<i32>,
}

impl<'a> Columns<'a> {
    pub fn of(outgoing: &'a [Outgoing]) -> Self {
        Self {
            tx_ids: outgoing.iter().map(|row| row.tx_id.0).collect(),
            modes: outgoing.iter().map(|row| row.mode.as_str()).collect(),
            destinations: outgoing.iter().map(|row| row.destination.as_str()).collect(),
            max_attempts: outgoing.iter().map(|row| row.max_attempts).collect(),
        }
    }
}
