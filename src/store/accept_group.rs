//! The statement that accepts many messages at once: the rows of each, or nothing of it (protocol §7).

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::accept::{AcceptRequest, Inserted, PUBLISH_AFTER};
use super::entry::journal_rows;
use super::names::Names;
use super::{LogEntry, Outgoing, SessionTimeouts, Store, StoreError};
use crate::model::{Headers, MessageId, TxId};

/// Whoever waits for another's id holds up the whole group: alone it may wait longer.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// A group that takes longer is undone, and its messages are tried one by one.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// For each message what `accept_logged` does, in the order in which they are given: of two with the same key the first
/// wins.
const MIXED: &str = concat!(
    "/* accept_group */
WITH log AS (
    INSERT INTO :ibisstore (type, slotid, host, messageid, correlationid, message, expirydate, dedup_key,
                           tx_id, root_id, content_type, headers, sha256)
    SELECT 'A', slotid, $1, messageid, correlationid, message, clock_timestamp() + retention * interval '1 second',
           dedup_key, tx_id, tx_id, content_type, coalesce(headers, '{}'), sha256
    FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[], $6::uuid[], $7::text[], $8::jsonb[], $9::bytea[],
                $10::text[], $11::float8[])
         given(messageid, correlationid, message, dedup_key, tx_id, content_type, headers, sha256, slotid, retention)
    ON CONFLICT (slotid, dedup_key) DO NOTHING
    RETURNING messagekey, tx_id, sha256),
sent AS (
    SELECT log.messagekey, log.tx_id AS parent_id, log.sha256, one.tx_id, one.mode, one.destination, one.max_attempts
    FROM log JOIN unnest($12::uuid[], $13::uuid[], $14::text[], $15::text[], $16::int4[])
                  one(parent_id, tx_id, mode, destination, max_attempts) ON one.parent_id = log.tx_id),
kin AS (
    INSERT INTO posthaste.lineage (root_id, tx_id, parent_id, cause)
    SELECT parent_id, tx_id, parent_id, 'OUTGOING' FROM sent WHERE tx_id <> parent_id),
",
    journal_rows!(
        together,
        "tx_id, root_id, log_key, sha256, mode, destination, max_attempts, owner, publish_after",
        "SELECT tx_id, parent_id, messagekey, sha256, mode, destination, max_attempts, $17,
           clock_timestamp() + $18 * interval '1 second'
    FROM sent"
    ),
    "
SELECT tx_id FROM log"
);

/// The same for messages of one adapter that sends each of them to one queue: what they share is given once, and nothing is
/// joined.
const ALIKE: &str = concat!(
    "/* accept_group */
WITH log AS (
    INSERT INTO :ibisstore (type, slotid, host, messageid, correlationid, message, expirydate, dedup_key,
                           tx_id, root_id, content_type, headers, sha256)
    SELECT 'A', $10, $1, messageid, correlationid, message, clock_timestamp() + $11 * interval '1 second',
           dedup_key, tx_id, tx_id, content_type, coalesce(headers, '{}'), sha256
    FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[], $6::uuid[], $7::text[], $8::jsonb[], $9::bytea[])
         given(messageid, correlationid, message, dedup_key, tx_id, content_type, headers, sha256)
    ON CONFLICT (slotid, dedup_key) DO NOTHING
    RETURNING messagekey, tx_id, sha256),
",
    journal_rows!(
        together,
        "tx_id, root_id, log_key, sha256, mode, destination, max_attempts, owner, publish_after",
        "SELECT tx_id, tx_id, messagekey, sha256, $12, $13, $14, $15, clock_timestamp() + $16 * interval '1 second'
    FROM log"
    ),
    "
SELECT tx_id FROM job"
);

/// What sessions that accept groups have instead.
pub(super) fn timeouts(timeouts: SessionTimeouts) -> SessionTimeouts {
    SessionTimeouts { lock: LOCK_TIMEOUT, statement: STATEMENT_TIMEOUT, ..timeouts }
}

impl Store {
    /// Sends the accepting statement once for all of them, each with a log entry. Its implicit COMMIT is the decision
    /// about all; one answer each, in their order.
    ///
    /// # Errors
    /// `Refused` is only answered when the session answered again afterwards: the whole group is undone.
    pub async fn accept_group(&self, group: &[impl Borrow<AcceptRequest> + Sync]) -> Result<Vec<Inserted>, StoreError> {
        let owner = self.incarnation.0;
        let group: Vec<&AcceptRequest> = group.iter().map(Borrow::borrow).collect();
        let bytes = group.iter().map(|request| request.envelope.body.len()).sum();
        self.decide(&self.group, bytes, async |client| {
            let inserted = insert(client, &self.names, &group, owner).await?;
            Ok(deal_out(group.iter().map(|request| request.envelope.tx_id), &inserted))
        })
        .await
    }
}

async fn insert(
    client: &ClientWrapper,
    names: &Names,
    group: &[&AcceptRequest],
    owner: Uuid,
) -> Result<BTreeSet<TxId>, StoreError> {
    let rows = in_order(group)?;
    let Some(first) = rows.first() else { return Ok(BTreeSet::new()) };
    let envelopes = || rows.iter().map(|row| &row.request.envelope);
    let message_ids = column(envelopes().map(|envelope| envelope.message_id.as_str()));
    let correlation_ids = column(envelopes().map(|envelope| envelope.correlation_id.as_str()));
    let messages = column(envelopes().map(|envelope| &envelope.body[..]));
    let keys = column(rows.iter().map(Row::key));
    let tx_ids = column(envelopes().map(|envelope| envelope.tx_id.0));
    let content_types = column(envelopes().map(|envelope| envelope.content_type.as_deref()));
    let headers = column(envelopes().map(|envelope| headers(&envelope.headers)));
    let hashes = column(rows.iter().map(|row| row.request.sha256.as_slice()));
    let (host, after) = (&*first.request.host, PUBLISH_AFTER.as_secs_f64());
    let mut params: Vec<&(dyn ToSql + Sync)> =
        vec![&host, &message_ids, &correlation_ids, &messages, &keys, &tx_ids, &content_types, &headers, &hashes];
    let inserted = if let Some(sent) = alike(&rows) {
        let (slot, retention) = (first.log.slot_id.as_str(), first.log.retention.as_secs_f64());
        let (mode, destination) = (sent.mode.as_str(), sent.destination.as_str());
        params.extend([&slot as &(dyn ToSql + Sync), &retention, &mode, &destination, &sent.max_attempts]);
        params.extend([&owner as &(dyn ToSql + Sync), &after]);
        client.query(&client.prepare_cached(&names.sql(ALIKE)).await?, &params).await?
    } else {
        let slots = column(rows.iter().map(|row| row.log.slot_id.as_str()));
        let retentions = column(rows.iter().map(|row| row.log.retention.as_secs_f64()));
        let sent = || rows.iter().flat_map(|row| row.request.outgoing.iter().map(move |sent| (row, sent)));
        let parents = column(sent().map(|(row, _)| row.request.envelope.tx_id.0));
        let children = column(sent().map(|(_, sent)| sent.tx_id.0));
        let modes = column(sent().map(|(_, sent)| sent.mode.as_str()));
        let destinations = column(sent().map(|(_, sent)| sent.destination.as_str()));
        let max_attempts = column(sent().map(|(_, sent)| sent.max_attempts));
        params.extend([&slots as &(dyn ToSql + Sync), &retentions, &parents, &children, &modes, &destinations]);
        params.extend([&max_attempts as &(dyn ToSql + Sync), &owner, &after]);
        client.query(&client.prepare_cached(&names.sql(MIXED)).await?, &params).await?
    };
    Ok(inserted.iter().map(|row| TxId(row.get(0))).collect())
}

/// A message that is to be accepted, and how it is logged.
struct Row<'a> {
    request: &'a AcceptRequest,
    log: &'a LogEntry,
}

impl Row<'_> {
    fn key(&self) -> Option<&str> {
        self.log.dedup_key.as_ref().map(MessageId::as_str)
    }
}

/// Groups that overlap take their keys in one order, whatever order the messages came in: otherwise they would wait for each
/// other.
fn in_order<'a>(group: &[&'a AcceptRequest]) -> Result<Vec<Row<'a>>, StoreError> {
    let rows = group.iter().map(|request| Some(Row { request, log: request.log.as_ref()? }));
    let mut rows = rows
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| StoreError::Unexpected("only what is logged is accepted in groups".to_owned()))?;
    rows.sort_by(|one, other| (one.log.slot_id.as_str(), one.key()).cmp(&(other.log.slot_id.as_str(), other.key())));
    Ok(rows)
}

/// What each of them sends, but for its id, when all are logged and sent alike and each is sent once, under its own id.
fn alike<'a>(rows: &[Row<'a>]) -> Option<&'a Outgoing> {
    let (first, others) = rows.split_first()?;
    let sent = only(first)?;
    let same = |row: &Row<'_>| {
        only(row).is_some_and(|other| {
            (other.mode, &other.destination, other.max_attempts) == (sent.mode, &sent.destination, sent.max_attempts)
        }) && (&row.log.slot_id, row.log.retention) == (&first.log.slot_id, first.log.retention)
    };
    others.iter().all(same).then_some(sent)
}

fn only<'a>(row: &Row<'a>) -> Option<&'a Outgoing> {
    match row.request.outgoing.as_slice() {
        [one] if one.tx_id == row.request.envelope.tx_id => Some(one),
        _ => None,
    }
}

/// `None` for none: the column's default.
fn headers(headers: &Headers) -> Option<serde_json::Value> {
    (!headers.is_empty()).then(|| serde_json::json!(headers))
}

/// As `unnest` takes it.
fn column<T>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.collect()
}

/// Each asker's own answer.
fn deal_out(asked: impl Iterator<Item = TxId>, inserted: &BTreeSet<TxId>) -> Vec<Inserted> {
    asked.map(|tx_id| if inserted.contains(&tx_id) { Inserted::Yes } else { Inserted::Conflict }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_asker_is_told_about_its_own_row_in_the_order_of_asking() {
        let ids: Vec<TxId> = (1..=4).map(|n| TxId(Uuid::from_u128(n))).collect();
        let inserted = BTreeSet::from([ids[3], ids[0]]);
        let asked = [ids[2], ids[0], ids[1], ids[3]];
        let wanted = [Inserted::Conflict, Inserted::Yes, Inserted::Conflict, Inserted::Yes];
        assert_eq!(deal_out(asked.into_iter(), &inserted), wanted);
        assert_eq!(deal_out(asked.into_iter(), &BTreeSet::new()), [Inserted::Conflict; 4]);
        assert_eq!(deal_out(std::iter::empty(), &inserted), []);
    }
}
