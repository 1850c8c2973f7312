//! Who acts, why, and on what: the parts of a request that every action reads alike.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use serde::Deserialize;

use super::filter::query_words;
use crate::inbound::problem::{Effect, Problem};
use crate::model::{MessageId, MessageKey, SlotId};
use crate::receiver::Actor;

/// Who acts; wins over the query parameter `as`.
const X_POSTHASTE_AS: HeaderName = HeaderName::from_static("x-posthaste-as");
/// Why; the body's `reason` wins.
const X_POSTHASTE_REASON: HeaderName = HeaderName::from_static("x-posthaste-reason");
/// Longest name of an actor and longest reason, in characters; more is cut.
const MAX_WHO: usize = 100;
const MAX_WHY: usize = 1000;

const ACTING_WORDS: &[&str] = &["as", "reason", "force"];

/// The actor of a request, and whether it forces.
pub(super) struct Acting {
    pub(super) actor: Actor,
    pub(super) force: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Acting {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut query = query_words(&parts.uri, ACTING_WORDS)?;
        let force = match query.remove("force").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => return Err(bad(format!("force is {other:?}; it must be true or false"))),
        };
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        let who = header(X_POSTHASTE_AS).or(query.remove("as")).and_then(|who| tidy(&who, MAX_WHO));
        let why = header(X_POSTHASTE_REASON).or(query.remove("reason")).and_then(|why| tidy(&why, MAX_WHY));
        let actor = Actor { who: who.unwrap_or_else(|| "console".to_owned()), why };
        Ok(Self { actor, force })
    }
}

/// The optional JSON body of an action.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ActionBody {
    pub(super) reason: Option<String>,
    /// The operator knows that the message was probably processed already.
    #[serde(default)]
    pub(super) confirmed: bool,
    /// Delete log rows inside their retention, too.
    #[serde(default)]
    pub(super) force: bool,
    pub(super) keys: Option<Vec<MessageKey>>,
    pub(super) filter: Option<serde_json::Map<String, serde_json::Value>>,
}

impl ActionBody {
    /// Of an action on one thing: what chooses among many would be ignored.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let body = Self::parse_bulk(body)?;
        match (&body.keys, &body.filter) {
            (None, None) => Ok(body),
            (Some(_), _) | (_, Some(_)) => Err(bad("this acts on what its path names; it takes no keys and no filter")),
        }
    }

    /// No body is an empty one. The content type is not asked: `curl -d` sends another.
    pub(super) fn parse_bulk(body: &[u8]) -> Result<Self, Problem> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is not the JSON that I expect: {error}")))
    }

    /// The body's reason wins over the header's.
    pub(super) fn complete(&self, acting: &mut Acting) {
        if let Some(why) = self.reason.as_deref().and_then(|why| tidy(why, MAX_WHY)) {
            acting.actor.why = Some(why);
        }
        acting.force |= self.force;
    }
}

/// Text without control characters, cut; None when nothing is left.
fn tidy(text: &str, max: usize) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_control()).take(max).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail).effect(Effect::None)
}

pub(super) fn not_found(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, detail).effect(Effect::None)
}

/// A slot as it stands in a path.
pub(super) fn slot_id(text: &str) -> Result<SlotId, Problem> {
    if text.is_empty() || text.chars().count() > 100 || text.contains('\0') {
        return Err(not_found("a slot's name has 1 to 100 characters"));
    }
    Ok(SlotId::new(text))
}

pub(super) fn message_key(text: &str) -> Result<MessageKey, Problem> {
    text.parse().map(MessageKey).map_err(|_| not_found(format!("{text:?} is no message key; a key is a number")))
}

pub(super) fn message_id(text: &str) -> Result<MessageId, Problem> {
    MessageId::parse(text).map_err(|error| not_found(format!("this is no message id: {error}")))
}
