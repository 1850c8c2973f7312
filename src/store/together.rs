//! Many messages' rows in one statement: where nothing can tell the difference (protocol §7).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::ClientWrapper;

use super::group::Request;
use super::step::step_params;
use super::{StepCall, StepParam, Store, StoreError, WorkTransaction};

/// Whether each table is plain: nothing that belongs to it can see how rows are put into statements, or in which order
/// statements are run. No partition (PostgreSQL 14 hides its triggers), trigger, rule, row policy or reference to itself; no column of a type of the application's own but
/// enums, for a domain has defaults and checks; and in defaults and checks no function but PostgreSQL's own that are
/// immutable or known here: `currval` would find another message's row, `statement_timestamp` another time. The tables are
/// looked up as the steps name them, by the application's search path.
pub(super) const TAKES_ROWS: &str = r"/* takes_rows */
SELECT NOT EXISTS (
    SELECT FROM pg_catalog.unnest($1::pg_catalog.text[]) wanted(name)
    LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(wanted.name)
    WHERE c.oid IS NULL OR c.relkind OPERATOR(pg_catalog.<>) 'r' OR c.relispartition OR c.relrowsecurity
       OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class OPERATOR(pg_catalog.=) c.oid)
       OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND NOT t.tgisinternal)
       OR EXISTS (SELECT FROM pg_catalog.pg_constraint k
                  WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid AND k.confrelid OPERATOR(pg_catalog.=) c.oid)
       OR EXISTS (SELECT FROM pg_catalog.pg_attribute a
                  JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
                  WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0
                    AND t.oid OPERATOR(pg_catalog.>=) 16384 AND t.typtype OPERATOR(pg_catalog.<>) 'e')
       OR EXISTS (SELECT FROM (
                      SELECT d.adbin::pg_catalog.text AS tree FROM pg_catalog.pg_attrdef d
                      WHERE d.adrelid OPERATOR(pg_catalog.=) c.oid
                      UNION ALL
                      SELECT k.conbin::pg_catalog.text FROM pg_catalog.pg_constraint k
                      WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid AND k.contype OPERATOR(pg_catalog.=) 'c') x
                  CROSS JOIN LATERAL pg_catalog.regexp_matches(x.tree, ':(?:op)?funcid ([0-9]+)', 'g') called
                  JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) called[1]::pg_catalog.oid
                  WHERE p.oid OPERATOR(pg_catalog.>=) 16384
                     OR p.provolatile OPERATOR(pg_catalog.<>) 'i' AND p.proname OPERATOR(pg_catalog.<>) ALL
                        ('{nextval,now,transaction_timestamp,clock_timestamp,gen_random_uuid,random}')))";

/// How long an answer holds: asked for each group, it would cost more than the rows of a small one.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Which tables were found plain lately, or not, and when they were asked for. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct PlainTables(Arc<Mutex<BTreeMap<String, (bool, Instant)>>>);

impl PlainTables {
    pub(super) fn known(&self, tables: &[&str]) -> Option<bool> {
        let (plain, asked) = *self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&tables.join(" "))?;
        (asked.elapsed() < REMEMBERED).then_some(plain)
    }

    pub(super) fn learn(&self, tables: &[&str], plain: bool, asked: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tables.join(" "), (plain, asked));
    }
}

/// The steps of several messages, alike in all of them, and each of them a row to insert or a message to send.
#[derive(Debug)]
pub struct InRows<'a> {
    /// One for each step: what it does for each of the messages, in their order.
    columns: Vec<Vec<&'a StepCall<'a>>>,
}

impl<'a> InRows<'a> {
    /// `None`: the messages' steps must be done one message after the other.
    #[must_use]
    pub fn of(messages: &[Vec<&'a StepCall<'a>>]) -> Option<Self> {
        let (first, others) = messages.split_first()?;
        let rows = first.iter().all(|call| !matches!(call, StepCall::Query { rows: None, .. }));
        let alike = |message: &Vec<&StepCall<'_>>| {
            message.len() == first.len() && message.iter().zip(first).all(|(one, other)| same_statement(one, other))
        };
        if !rows || !others.iter().all(alike) {
            return None;
        }
        let column = |step| messages.iter().filter_map(|message| message.get(step).copied()).collect();
        Some(Self { columns: (0..first.len()).map(column).collect() })
    }

    /// Where it inserts.
    pub(super) fn tables(&self) -> Vec<&str> {
        let firsts = self.columns.iter().filter_map(|column| column.first());
        let table = |call: &&StepCall<'a>| match call {
            StepCall::Query { rows, .. } => rows.map(super::InsertRows::table),
            StepCall::Send { .. } => None,
        };
        firsts.filter_map(table).collect()
    }

    pub(super) fn requests(&self) -> Vec<Request<'_>> {
        let mut requests = Vec::new();
        for column in &self.columns {
            let mut rest = column.as_slice();
            while let Some((first, _)) = rest.split_first() {
                let widest = match first {
                    StepCall::Query { rows: Some(rows), .. } => rows.widest(rest.len()),
                    StepCall::Query { rows: None, .. } | StepCall::Send { .. } => None,
                };
                let (some, others) = rest.split_at(widest.map_or(1, |(rows, _)| rows));
                requests.push(match widest {
                    Some((_, sql)) => Request::Query(sql, some.iter().flat_map(|call| params(call)).collect()),
                    None => Request::of(first),
                });
                rest = others;
            }
        }
        requests
    }
}

fn same_statement(one: &StepCall<'_>, other: &StepCall<'_>) -> bool {
    match (one, other) {
        (StepCall::Query { sql: one, .. }, StepCall::Query { sql: other, .. }) => one == other,
        (StepCall::Send { .. }, StepCall::Send { .. }) => true,
        (StepCall::Query { .. }, StepCall::Send { .. }) | (StepCall::Send { .. }, StepCall::Query { .. }) => false,
    }
}

fn params<'a>(call: &'a StepCall<'_>) -> Vec<StepParam<'a>> {
    match call {
        StepCall::Query { params, .. } => step_params(params),
        StepCall::Send { .. } => Vec::new(),
    }
}

impl Store {
    /// Whether the tables behave alike whether their rows come in one statement or in many; as they were a second ago at
    /// most.
    pub async fn takes_rows(&self, rows: &InRows<'_>) -> Result<bool, StoreError> {
        let tables = rows.tables();
        if tables.is_empty() {
            return Ok(false);
        }
        if let Some(plain) = self.plain_tables.known(&tables) {
            return Ok(plain);
        }
        let began = Instant::now();
        let asked = async |client: &ClientWrapper| {
            let statement = client.prepare_cached(TAKES_ROWS).await?;
            Ok(client.query_one(&statement, &[&tables]).await?.get(0))
        };
        let plain = self.rows.run(asked).await?;
        self.plain_tables.learn(&tables, plain, began);
        Ok(plain)
    }
}

impl WorkTransaction {
    /// Does for all messages what their steps do, step by step, and proves the transaction whole.
    ///
    /// # Errors
    /// The first that failed; whose fault it is only each message by itself can tell.
    pub async fn execute_in_rows(&self, store: &Store, rows: &InRows<'_>) -> Result<(), StoreError> {
        self.execute_requests(store, &rows.requests()).await.map_err(|failed| failed.error)
    }
}
