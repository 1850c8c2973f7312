//! Looking into `ibisstore`: counts and pages. Every page reads a bounded part of one index.
//!
//! The row comparisons `(slotid, type, messagekey) < (…)` say the same as three plain conditions, but leave PostgreSQL
//! one way only to deliver the order: the browse index. With plain conditions it walked the primary key over millions
//! of rows of other slots whenever its statistics were off.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use tokio_postgres::types::ToSql;

use super::row::{column, store_type};
use super::stored::{STORED_COLUMNS, StoredMessage, rows_of_id, stored_message};
use super::{Store, StoreError};
use crate::model::{MessageKey, SlotId, StoreType};

/// Largest page.
pub const MAX_PAGE: i64 = 500;
/// Counting stops here; beyond it a count is "at least".
pub const COUNT_CAP: i64 = 100_000;
/// Rows that one page looks at per type when it filters. A page may be short, even empty, and yet have a next one.
const SCAN_BUDGET: i64 = 20_000;

/// Rows of one slot and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotCount {
    pub slot_id: SlotId,
    pub kind: StoreType,
    /// At most [`COUNT_CAP`]: then there may be more.
    pub count: i64,
}

/// What a page shows. Absent conditions hold for every row.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Empty: all types.
    pub types: Vec<StoreType>,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    /// Message date at or after.
    pub from: Option<Timestamp>,
    /// Message date before.
    pub to: Option<Timestamp>,
    /// Part of the comments, in any case.
    pub text: Option<String>,
    pub min_attempts: Option<i32>,
}

/// Where the next page begins: below this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub MessageKey);

impl Cursor {
    /// The opaque text that clients hand back.
    #[must_use]
    pub fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(format!("k{}", self.0))
    }

    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let key = std::str::from_utf8(&bytes).ok()?.strip_prefix('k')?.parse().ok()?;
        Some(Self(MessageKey(key)))
    }
}

/// A page, newest first.
#[derive(Debug, Clone)]
pub struct Page {
    pub messages: Vec<StoredMessage>,
    /// None: this was the last page.
    pub next: Option<Cursor>,
}

impl Store {
    /// Rows per slot and type: one index descent per pair, and at most [`COUNT_CAP`] entries counted in each.
    pub async fn slot_counts(&self) -> Result<Vec<SlotCount>, StoreError> {
        let sql = "/* slot_counts */
            WITH RECURSIVE pair AS (
                (SELECT slotid, type FROM :ibisstore ORDER BY slotid, type LIMIT 1)
                UNION ALL
                SELECT later.slotid, later.type FROM pair CROSS JOIN LATERAL (
                    SELECT i.slotid, i.type FROM :ibisstore i WHERE (i.slotid, i.type) > (pair.slotid, pair.type)
                    ORDER BY i.slotid, i.type LIMIT 1) later
            )
            SELECT pair.slotid, pair.type, counted.n FROM pair CROSS JOIN LATERAL (
                SELECT count(*) AS n FROM (
                    SELECT 1 FROM :ibisstore i
                    WHERE (i.slotid, i.type, i.messagekey) >= (pair.slotid, pair.type, -9223372036854775808)
                      AND (i.slotid, i.type, i.messagekey) <= (pair.slotid, pair.type, 9223372036854775807)
                    ORDER BY i.slotid, i.type, i.messagekey LIMIT $1) capped) counted
            ORDER BY pair.slotid, pair.type";
        let rows = self.house.run(async |client| Ok(client.query(&*self.sql(sql), &[&COUNT_CAP]).await?)).await?;
        rows.iter()
            .map(|row| {
                Ok(SlotCount {
                    slot_id: SlotId::new(column(row, "slotid")?),
                    kind: store_type(column(row, "type")?)?,
                    count: column(row, "n")?,
                })
            })
            .collect()
    }

    /// The slots that hold a row, in order: one index descent for each.
    pub async fn slots(&self) -> Result<Vec<SlotId>, StoreError> {
        let sql = "/* slots */
            WITH RECURSIVE slot AS (
                (SELECT slotid FROM :ibisstore ORDER BY slotid, type LIMIT 1)
                UNION ALL
                SELECT later.slotid FROM slot CROSS JOIN LATERAL (
                    SELECT i.slotid FROM :ibisstore i WHERE i.slotid > slot.slotid ORDER BY i.slotid, i.type LIMIT 1) later
            )
            SELECT slotid FROM slot ORDER BY slotid";
        let rows = self.house.run(async |client| Ok(client.query(&*self.sql(sql), &[]).await?)).await?;
        rows.iter().map(|row| Ok(SlotId::new(column(row, "slotid")?))).collect()
    }

    /// One page of a slot, newest first. Every row that was there when the first page was asked for stands on exactly
    /// one page, whatever is inserted meanwhile.
    pub async fn browse_messages(
        &self,
        slot: &SlotId,
        filter: &Filter,
        after: Option<Cursor>,
        limit: i64,
    ) -> Result<Page, StoreError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let below = after.map_or(i64::MAX, |cursor| cursor.0.0);
        let floor = if filter.scans() { self.browse_floor(slot, filter, below).await? } else { None };
        let query = page_query(slot, filter, below, floor, limit + 1);
        let rows =
            self.house.run(async |client| Ok(client.query(&self.names.of(&query.sql), &query.params()).await?)).await?;
        let mut messages = rows.iter().map(stored_message).collect::<Result<Vec<_>, _>>()?;
        let full = i64::try_from(messages.len()).unwrap_or(i64::MAX) > limit;
        let next = if full {
            messages.pop();
            messages.last().map(|last| Cursor(last.key))
        } else {
            floor.map(|key| Cursor(MessageKey(key)))
        };
        Ok(Page { messages, next })
    }

    /// The key at which a filtering page stops looking.
    async fn browse_floor(&self, slot: &SlotId, filter: &Filter, below: i64) -> Result<Option<i64>, StoreError> {
        let sql = "/* browse_floor */ SELECT max(reached.messagekey) AS floor FROM unnest($2::text[]) AS t(type)
            CROSS JOIN LATERAL (
                SELECT messagekey FROM :ibisstore
                WHERE (slotid, type, messagekey) < ($1, t.type::char(1), $3::bigint)
                  AND (slotid, type, messagekey) >= ($1, t.type::char(1), -9223372036854775808)
                ORDER BY slotid DESC, type DESC, messagekey DESC OFFSET $4 LIMIT 1) reached";
        let (types, offset) = (filter.type_texts(), SCAN_BUDGET - 1);
        let row = self
            .house
            .run(async |client| {
                Ok(client.query_one(&*self.sql(sql), &[&slot.as_str(), &types, &below, &offset]).await?)
            })
            .await?;
        column(&row, "floor")
    }
}

impl Filter {
    fn type_texts(&self) -> Vec<&'static str> {
        let types = if self.types.is_empty() { StoreType::ALL } else { &self.types };
        types.iter().map(|kind| kind.as_str()).collect()
    }

    /// Whether rows must be looked at that the page will not show.
    fn scans(&self) -> bool {
        let Self { types: _, message_id, correlation_id, from, to, text, min_attempts } = self;
        let others = correlation_id.is_some() || from.is_some() || to.is_some() || text.is_some();
        message_id.is_none() && (others || min_attempts.is_some())
    }
}

struct Query {
    sql: String,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Query {
    fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| value.as_ref() as &(dyn ToSql + Sync)).collect()
    }

    /// Adds ` AND <before> $n <after>`.
    fn and(&mut self, before: &str, value: impl ToSql + Sync + Send + 'static, after: &str) {
        self.values.push(Box::new(value));
        self.sql.push_str(&format!(" AND {before} ${}{after}", self.values.len()));
    }
}

fn page_query(slot: &SlotId, filter: &Filter, below: i64, floor: Option<i64>, limit: i64) -> Query {
    let floor = floor.unwrap_or(i64::MIN);
    let mut query = Query {
        sql: String::new(),
        values: vec![
            Box::new(slot.as_str().to_owned()),
            Box::new(filter.type_texts()),
            Box::new(below),
            Box::new(floor),
            Box::new(limit),
        ],
    };
    if let Some(id) = &filter.message_id {
        // The few rows of one id, by their own index, whatever the statistics say.
        query.sql = format!(
            "/* browse_messages */ WITH same_id AS MATERIALIZED ({})
             SELECT * FROM same_id WHERE slotid = $1 AND type = ANY($2::text[]) AND messagekey < $3 AND messagekey >= $4",
            rows_of_id(STORED_COLUMNS, "$6")
        );
        query.values.push(Box::new(id.clone()));
        conditions(&mut query, filter);
        query.sql.push_str(" ORDER BY messagekey DESC LIMIT $5");
        return query;
    }
    query.sql = format!(
        "/* browse_messages */ SELECT page.* FROM unnest($2::text[]) AS t(type) CROSS JOIN LATERAL (
             SELECT {STORED_COLUMNS} FROM :ibisstore
             WHERE (slotid, type, messagekey) < ($1, t.type::char(1), $3::bigint)
               AND (slotid, type, messagekey) >= ($1, t.type::char(1), $4::bigint)"
    );
    conditions(&mut query, filter);
    query.sql.push_str(
        " ORDER BY slotid DESC, type DESC, messagekey DESC LIMIT $5) page ORDER BY page.messagekey DESC LIMIT $5",
    );
    query
}

fn conditions(query: &mut Query, filter: &Filter) {
    if let Some(id) = &filter.correlation_id {
        query.and("correlationid =", id.clone(), "");
    }
    if let Some(from) = filter.from {
        query.and("messagedate >=", from, "");
    }
    if let Some(to) = filter.to {
        query.and("messagedate <", to, "");
    }
    if let Some(text) = &filter.text {
        query.and("comments ILIKE", like_pattern(text), "");
    }
    if let Some(attempts) = filter.min_attempts {
        query.and("attempts >=", attempts, "");
    }
}

/// The text anywhere, its own wildcards taken literally.
fn like_pattern(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went_and_anything_else_is_none() {
        let cursor = Cursor(MessageKey(42));
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        for text in ["", "42", "azQy!", "a2s"] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }

    #[test]
    fn wildcards_of_a_searched_text_are_taken_literally() {
        assert_eq!(like_pattern("50%_\\"), "%50\\%\\_\\\\%");
    }
}
