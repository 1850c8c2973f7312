//! Which rows: the same words in a query string and in a bulk action's `filter`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::actor::bad;
use crate::inbound::problem::Problem;
use crate::model::StoreType;
use crate::store::{Cursor, Filter, MAX_PAGE};

/// Rows on a page, unless told otherwise.
const DEFAULT_PAGE: i64 = 50;

/// A page's query string, checked.
#[derive(Debug)]
pub(super) struct PageQuery {
    pub(super) filter: Filter,
    pub(super) cursor: Option<Cursor>,
    pub(super) limit: i64,
}

const FILTER_WORDS: &[&str] = &["type", "messageId", "correlationId", "from", "to", "text", "minAttempts"];
const PAGE_WORDS: &[&str] = &["limit", "cursor", "as"];

/// Checks a page's query string.
pub(super) fn page_query(mut words: BTreeMap<String, String>) -> Result<PageQuery, Problem> {
    let limit = match words.remove("limit") {
        None => DEFAULT_PAGE,
        Some(text) => match text.parse() {
            Ok(limit) if (1..=MAX_PAGE).contains(&limit) => limit,
            Ok(_) | Err(_) => return Err(bad(format!("limit is {text:?}; it must be a number from 1 to {MAX_PAGE}"))),
        },
    };
    let cursor = match words.remove("cursor") {
        None => None,
        Some(text) => {
            Some(Cursor::decode(&text).ok_or_else(|| bad("cursor is not one of mine; start again without it"))?)
        }
    };
    let _ignored = words.remove("as");
    Ok(PageQuery { filter: filter(words, PAGE_WORDS)?, cursor, limit })
}

/// Checks a bulk action's filter. Without `type` it means the error store alone.
pub(super) fn bulk_filter(members: serde_json::Map<String, serde_json::Value>) -> Result<Filter, Problem> {
    let mut words = BTreeMap::new();
    for (name, value) in members {
        let text = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Null => continue,
            serde_json::Value::Bool(_) | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                return Err(bad(format!("filter.{name} must be a text or a number")));
            }
        };
        words.insert(name, text);
    }
    let mut filter = filter(words, &[])?;
    if filter.types.is_empty() {
        filter.types.push(StoreType::Error);
    }
    Ok(filter)
}

fn filter(words: BTreeMap<String, String>, others: &[&str]) -> Result<Filter, Problem> {
    let mut filter = Filter::default();
    for (name, text) in words {
        if text.contains('\0') {
            return Err(bad(format!("{name} holds a NUL character")));
        }
        match name.as_str() {
            "type" => filter.types = types(&text)?,
            "messageId" => filter.message_id = Some(text),
            "correlationId" => filter.correlation_id = Some(text),
            "from" => filter.from = Some(moment(&name, &text)?),
            "to" => filter.to = Some(moment(&name, &text)?),
            "text" => filter.text = Some(text),
            "minAttempts" => {
                let attempts =
                    text.parse().map_err(|_| bad(format!("minAttempts is {text:?}; it must be a number")))?;
                filter.min_attempts = Some(attempts);
            }
            _ => return Err(unknown(&name, others)),
        }
    }
    Ok(filter)
}

fn unknown(name: &str, others: &[&str]) -> Problem {
    let known: Vec<_> = FILTER_WORDS.iter().chain(others).copied().collect();
    let hint = nearest(name, known.iter().copied()).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    bad(format!("there is no filter {name:?}{hint} There are: {}", known.join(", ")))
}

/// `E`, or several: `E,H`.
fn types(text: &str) -> Result<Vec<StoreType>, Problem> {
    let known = || StoreType::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
    let mut types = Vec::new();
    for letter in text.split(',') {
        let kind = StoreType::from_text(letter.trim())
            .ok_or_else(|| bad(format!("type is {letter:?}; there are: {}", known())))?;
        if !types.contains(&kind) {
            types.push(kind);
        }
    }
    Ok(types)
}

fn moment(name: &str, text: &str) -> Result<Timestamp, Problem> {
    parse_timestamp(text)
        .ok_or_else(|| bad(format!("{name} is {text:?}; write 2026-01-31, 2026-01-31T13:00 or 2026-01-31T13:00:00Z")))
}

/// A moment with its offset, or a date or date and time in UTC. A `+` that a query string made a blank counts as one.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(moment) = text.parse().or_else(|_| text.replace(' ', "+").parse()) {
        return Some(moment);
    }
    let civil = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(DateTime::from)).ok()?;
    civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// The known name that looks most like it, when one does.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let scored = known.map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate));
    scored.filter(|(score, _)| *score > 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn words(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_page_has_50_rows_and_at_most_500() {
        assert_eq!(page_query(words(&[])).unwrap().limit, 50);
        assert_eq!(page_query(words(&[("limit", "500")])).unwrap().limit, 500);
        for wrong in ["0", "501", "-1", "x", ""] {
            assert_eq!(page_query(words(&[("limit", wrong)])).unwrap_err().into_response().status(), 400, "{wrong}");
        }
    }

    #[test]
    fn a_word_that_nobody_knows_is_refused() {
        assert!(page_query(words(&[("messageid", "1")])).is_err());
        assert!(page_query(words(&[("type", "E,X")])).is_err());
        assert!(page_query(words(&[("cursor", "nonsense")])).is_err());
    }

    #[test]
    fn a_bulk_action_means_the_error_store_unless_it_says_otherwise() {
        let all = bulk_filter(serde_json::Map::new()).unwrap();
        assert_eq!(all.types, [StoreType::Error]);
        let given = serde_json::json!({"type": "H", "minAttempts": 3});
        let held = bulk_filter(given.as_object().unwrap().clone()).unwrap();
        assert_eq!((held.types, held.min_attempts), (vec![StoreType::Hold], Some(3)));
    }

    #[test]
    fn a_moment_may_be_a_date_in_utc_or_have_an_offset() {
        let day: Timestamp = "2026-01-31T00:00:00Z".parse().unwrap();
        for text in ["2026-01-31", "2026-01-31T00:00", "2026-01-31T00:00:00Z", "2026-01-31T01:00:00 01:00"] {
            assert_eq!(parse_timestamp(text), Some(day), "{text}");
        }
        assert_eq!(parse_timestamp("yesterday"), None);
    }
}
