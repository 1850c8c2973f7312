//! Which rows: the same words in a query string and in a bulk action's `filter`.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Query};
use axum::http::Uri;
use axum::http::request::Parts;
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

/// The words of a query string: each once, and none that would be ignored.
pub(super) fn query_words(uri: &Uri, known: &[&str]) -> Result<BTreeMap<String, String>, Problem> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| bad(error.body_text()))?;
    let mut words = BTreeMap::new();
    for (name, text) in pairs {
        if !known.contains(&name.as_str()) {
            return Err(unknown(&name, known));
        }
        if words.insert(name.clone(), text).is_some() {
            return Err(bad(format!("{name} stands there twice, and only one of them would count")));
        }
    }
    Ok(words)
}

/// A request whose answer nothing narrows down.
pub(super) struct Unfiltered;

impl<S: Send + Sync> FromRequestParts<S> for Unfiltered {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        query_words(&parts.uri, &["as"]).map(|_who| Self)
    }
}

/// Checks a page's query string.
pub(super) fn page_query(uri: &Uri) -> Result<PageQuery, Problem> {
    let mut words = query_words(uri, &[FILTER_WORDS, PAGE_WORDS].concat())?;
    let limit = page_limit(&mut words)?;
    let cursor = match words.remove("cursor") {
        None => None,
        Some(text) => {
            Some(Cursor::decode(&text).ok_or_else(|| bad("cursor is not one of mine; start again without it"))?)
        }
    };
    let _ignored = words.remove("as");
    Ok(PageQuery { filter: filter(words)?, cursor, limit })
}

/// How many rows a page shall have.
pub(super) fn page_limit(words: &mut BTreeMap<String, String>) -> Result<i64, Problem> {
    let Some(text) = words.remove("limit") else { return Ok(DEFAULT_PAGE) };
    match text.parse() {
        Ok(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
        Ok(_) | Err(_) => Err(bad(format!("limit is {text:?}; it must be a number from 1 to {MAX_PAGE}"))),
    }
}

/// Checks a bulk action's filter. Without `type` it means the error store alone.
pub(super) fn bulk_filter(members: serde_json::Map<String, serde_json::Value>) -> Result<Filter, Problem> {
    let mut words = BTreeMap::new();
    for (name, value) in members {
        let text = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => {
                return Err(bad(format!("filter.{name} must be a text or a number")));
            }
        };
        words.insert(name, text);
    }
    let mut filter = filter(words)?;
    if filter.types.is_empty() {
        filter.types.push(StoreType::Error);
    }
    Ok(filter)
}

fn filter(words: BTreeMap<String, String>) -> Result<Filter, Problem> {
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
            _ => return Err(unknown(&name, FILTER_WORDS)),
        }
    }
    Ok(filter)
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let near = nearest(name, known.iter().copied());
    let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    bad(format!("there is no {name:?} to ask for here{hint} (there are: {})", known.join(", "))).with("nearest", near)
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

    fn page(query: &str) -> Result<PageQuery, Problem> {
        page_query(&format!("/api/v1/stores/s/messages?{query}").parse().unwrap())
    }

    #[test]
    fn a_page_has_50_rows_and_at_most_500() {
        assert_eq!(page("").unwrap().limit, 50);
        assert_eq!(page("limit=500").unwrap().limit, 500);
        for wrong in ["0", "501", "-1", "x", ""] {
            assert_eq!(page(&format!("limit={wrong}")).unwrap_err().into_response().status(), 400, "{wrong}");
        }
    }

    #[test]
    fn a_word_that_nobody_knows_or_that_stands_there_twice_is_refused() {
        for wrong in ["messageid=1", "type=E,X", "cursor=nonsense", "type=E&type=H", "as=a&as=b"] {
            assert_eq!(page(wrong).unwrap_err().into_response().status(), 400, "{wrong}");
        }
        assert_eq!(page("type=E,H&as=ann").unwrap().filter.types, [StoreType::Error, StoreType::Hold]);
    }

    #[test]
    fn an_empty_value_in_a_filter_is_refused_since_it_would_choose_everything() {
        let nothing = serde_json::json!({"messageId": null});
        assert!(bulk_filter(nothing.as_object().unwrap().clone()).is_err());
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
