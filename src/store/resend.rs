//! Claiming a row of the error store for a resend (protocol §5).

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::bodies::{WHOLE, of_journal};
use super::entry::journal_rows;
use super::names::Names;
use super::pool::PLANNED_ANEW;
use super::work::envelope_of;
use super::{Store, StoreError};
use crate::model::{Destination, Envelope, MessageKey, SlotId, TxId};

/// What became of a claim.
#[derive(Debug)]
pub enum ResendClaim {
    /// The row is ours: deleted there, a DIRECT journal row with its start committed here.
    Claimed(Box<Envelope>),
    /// Somebody else has it.
    Taken {
        who: String,
        since: Timestamp,
    },
    NotFound,
    /// A parked message older than the journal's memory: it was probably done. Ask.
    NeedsConfirmation,
}

/// Who resends what, where to.
#[derive(Debug)]
pub struct ResendRequest<'a> {
    pub slot_id: &'a SlotId,
    pub key: MessageKey,
    pub tx_id: TxId,
    pub destination: &'a Destination,
    pub adapter: &'a str,
    pub who: &'a str,
    pub why: Option<&'a str>,
    /// When somebody else may look after it.
    pub watch: Duration,
    /// Parked messages older than this need a confirmation, which is given or not.
    pub keep: Duration,
    pub confirmed: bool,
    pub way: ResendWay,
}

/// Where a resent message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResendWay {
    /// Into the pipeline, in this process: its one attempt is started with the claim.
    Pipeline,
    /// To a queue of others, which could not be reached before: its row is published like any other.
    Publish { max_attempts: i32 },
}

const CLAIM: &str = concat!(
    "/* claim_resend */
WITH claimed AS (
    DELETE FROM :ibisstore
    WHERE messagekey = $1 AND slotid = $2 AND type IN ('E', 'H')
      AND (type = 'E' OR $10 OR messagedate > clock_timestamp() - $11 * interval '1 second')
    RETURNING *),
body AS (
    INSERT INTO posthaste.payload (tx_id, message_id, correlation_id, content_type, headers, context, message,
                                   messagekey, messagedate, prior_attempts)
    SELECT $3, messageid, correlationid, content_type, headers, context, message, messagekey, messagedate, attempts
    FROM claimed),
",
    journal_rows!(
        each,
        "tx_id, root_id, sha256, mode, destination, max_attempts, attempts, owner, running_by, started_at",
        "SELECT $3, root_id, sha256, CASE WHEN $12::boolean THEN 'DIRECT' ELSE 'HANDOVER' END, $4, $13::int4,
           $12::boolean::int4, $5::uuid, CASE WHEN $12::boolean THEN $5::uuid END,
           CASE WHEN $12::boolean THEN clock_timestamp() END FROM claimed"
    ),
    ",
kin AS (
    INSERT INTO posthaste.lineage (root_id, tx_id, parent_id, cause) SELECT root_id, $3, tx_id, 'RESEND' FROM claimed),
begun AS (
    INSERT INTO posthaste.attempt (tx_id, n, adapter, started_at, outcome, instance)
    SELECT $3, 1, $6, clock_timestamp(), 'RUNNING', $5::uuid FROM claimed WHERE $12::boolean),
watched AS (
    INSERT INTO posthaste.due (tx_id, at) SELECT $3, clock_timestamp() + $7 * interval '1 second' FROM claimed),
noted AS (
    INSERT INTO posthaste.audit (who, what, target, why, root_id, detail)
    SELECT $8, 'resend', slotid || '/' || messagekey, $9, root_id,
           jsonb_build_object('messageId', messageid, 'txId', $3::text, 'comments', comments)
    FROM claimed)
SELECT $3::uuid AS tx_id, root_id, messageid AS message_id, correlationid AS correlation_id, content_type, headers,
       octet_length(message) AS bytes, CASE WHEN octet_length(message) <= $14 THEN message END AS message
FROM claimed"
);

impl Store {
    /// Claims and deletes the row, and inserts what replaces it, in one statement: of two operators one wins.
    pub async fn claim_resend(&self, request: &ResendRequest<'_>) -> Result<ResendClaim, StoreError> {
        let (in_process, max_attempts) = match request.way {
            ResendWay::Pipeline => (true, 1),
            ResendWay::Publish { max_attempts } => (false, max_attempts),
        };
        let claim = self
            .work
            .transaction(async |client| {
                client.batch_execute(PLANNED_ANEW).await?;
                let statement = client.prepare_cached(&self.sql(CLAIM)).await?;
                let claimed = client
                    .query_opt(
                        &statement,
                        &[
                            &request.key.0,
                            &request.slot_id.as_str(),
                            &request.tx_id.0,
                            &request.destination.as_str(),
                            &self.incarnation.0,
                            &request.adapter,
                            &request.watch.as_secs_f64(),
                            &request.who,
                            &request.why,
                            &request.confirmed,
                            &request.keep.as_secs_f64(),
                            &in_process,
                            &max_attempts,
                            &WHOLE,
                        ],
                    )
                    .await?;
                match claimed {
                    Some(row) => Ok(ResendClaim::Claimed(Box::new(with_large_body(client, &self.names, &row).await?))),
                    None => why_not(client, &self.names, request).await,
                }
            })
            .await?;
        match claim {
            ResendClaim::Claimed(_) => {}
            // Read, not written: a fail-over must not make another story of what an operator is told.
            ResendClaim::Taken { .. } | ResendClaim::NotFound | ResendClaim::NeedsConfirmation => {
                self.durable().await?
            }
        }
        Ok(claim)
    }

    /// Writes how a resend ended beside who asked for it.
    pub async fn note_resend_outcome(&self, tx_id: TxId, outcome: &str) -> Result<(), StoreError> {
        self.work
            .run(async |client| {
                client
                    .execute(
                        "/* note_resend_outcome */ UPDATE posthaste.audit SET outcome = $2
                         WHERE what = 'resend' AND detail ->> 'txId' = $1 AND root_id =
                               (SELECT root_id FROM posthaste.journal WHERE tx_id = $3)",
                        &[&tx_id.to_string(), &outcome, &tx_id.0],
                    )
                    .await?;
                Ok(())
            })
            .await
    }
}

/// A large body is read from where the claim has put it.
async fn with_large_body(client: &ClientWrapper, names: &Names, row: &Row) -> Result<Envelope, StoreError> {
    let (mut envelope, bytes) = (envelope_of(row)?, row.try_get("bytes")?);
    if bytes > WHOLE {
        let gone = || StoreError::Unexpected("the body of a resend is gone".to_owned());
        envelope.body = of_journal(client, names, envelope.tx_id, bytes).await?.ok_or_else(gone)?;
    }
    Ok(envelope)
}

/// A statement of its own: the one that lost cannot see who won.
async fn why_not(
    client: &ClientWrapper,
    names: &Names,
    request: &ResendRequest<'_>,
) -> Result<ResendClaim, StoreError> {
    let still = client
        .query_opt(
            &*names.sql("/* resend_still_there */ SELECT type FROM :ibisstore WHERE messagekey = $1 AND slotid = $2"),
            &[&request.key.0, &request.slot_id.as_str()],
        )
        .await?;
    if let Some(row) = still {
        let kind: String = row.get(0);
        return Ok(if kind == "H" { ResendClaim::NeedsConfirmation } else { ResendClaim::NotFound });
    }
    let taken = client
        .query_opt(
            "/* resend_taken_by */
             SELECT a.who, a.at FROM posthaste.payload p
             JOIN posthaste.journal j ON j.tx_id = p.tx_id AND j.state IN ('READY', 'PUBLISHED')
             JOIN posthaste.audit a ON a.root_id = j.root_id AND a.what = 'resend' AND a.detail ->> 'txId' = p.tx_id::text
             WHERE p.messagekey = $1 LIMIT 1",
            &[&request.key.0],
        )
        .await?;
    Ok(match taken {
        Some(row) => ResendClaim::Taken { who: row.get(0), since: row.get(1) },
        None => ResendClaim::NotFound,
    })
}
