//! What the client is told about its message.

use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;

use super::InboundSettings;
use super::answer::Answer;
use super::problem::{Effect, Problem};
use super::request::Ids;
use crate::model::{MessageId, SlotId};

/// Everything in a path segment or in a query's value that is not itself.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'/')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// What a client gets with 202.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Receipt<'a> {
    message_id: &'a MessageId,
    correlation_id: &'a MessageId,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot_id: Option<&'a SlotId>,
    outcome: &'static str,
}

pub(super) fn respond(inbound: &InboundSettings, ids: &Ids, answer: Answer) -> Result<Response, Problem> {
    let adapter = || inbound.adapter.to_string();
    match answer {
        Answer::Accepted => Ok(receipt(inbound, ids, StatusCode::ACCEPTED, "accepted")),
        Answer::Duplicate { conflict } => {
            metrics::counter!("posthaste_duplicates_total", "adapter" => adapter()).increment(1);
            if conflict {
                metrics::counter!("posthaste_conflicts_total", "adapter" => adapter()).increment(1);
            }
            Ok(repeated(inbound, ids, conflict))
        }
        Answer::Refused { reason } => Err(none(StatusCode::SERVICE_UNAVAILABLE, reason)),
        Answer::Failed { step, reason, data } => {
            metrics::counter!("posthaste_rolled_back_total", "adapter" => adapter()).increment(1);
            let status = if data { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::INTERNAL_SERVER_ERROR };
            Err(none(status, reason).with("step", step))
        }
        Answer::Unknown { reason } => {
            metrics::counter!("posthaste_unknown_total", "adapter" => adapter()).increment(1);
            let detail = format!("not known whether the message was accepted; repeat it with the same id ({reason})");
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).effect(Effect::Unknown);
            Err(problem.with("messageId", &ids.message))
        }
    }
}

fn repeated(inbound: &InboundSettings, ids: &Ids, conflict: bool) -> Response {
    let status = if conflict { inbound.conflict_status } else { inbound.duplicate_status };
    if status == StatusCode::CONFLICT {
        let detail =
            if conflict { "another message was accepted under this id" } else { "this message was accepted before" };
        let outcome = if conflict { "conflict" } else { "duplicate" };
        let problem = Problem::new(status, detail).with("messageId", &ids.message).with("outcome", outcome);
        return with_location(inbound, ids, problem.into_response());
    }
    if status == StatusCode::NOT_MODIFIED {
        return with_location(inbound, ids, status.into_response());
    }
    receipt(inbound, ids, status, "duplicate")
}

fn receipt(inbound: &InboundSettings, ids: &Ids, status: StatusCode, outcome: &'static str) -> Response {
    let receipt = Receipt {
        message_id: &ids.message,
        correlation_id: &ids.correlation,
        slot_id: inbound.message_log.as_ref().map(|log| &log.slot_id),
        outcome,
    };
    with_location(inbound, ids, (status, axum::Json(receipt)).into_response())
}

fn with_location(inbound: &InboundSettings, ids: &Ids, mut response: Response) -> Response {
    if let Some(log) = &inbound.message_log
        && let Ok(location) = HeaderValue::try_from(location(&log.slot_id, &ids.message))
    {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Where a message's state is told. Clients resolve `.` and `..` in a path, however they are written, and servers on the
/// way read an escaped `/` as one: such ids stand in the query.
fn location(slot: &SlotId, id: &MessageId) -> String {
    let (slot, text) = (utf8_percent_encode(slot.as_str(), ESCAPED), id.as_str());
    let in_query = matches!(text, "." | "..") || text.contains(['/', '\\']);
    let id = utf8_percent_encode(text, ESCAPED);
    if in_query { format!("/api/messages/{slot}?messageId={id}") } else { format!("/api/messages/{slot}/{id}") }
}

pub(super) fn none(status: StatusCode, detail: impl Into<String>) -> Problem {
    Problem::new(status, detail).effect(Effect::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_a_path_cannot_carry_stands_in_the_query() {
        let of = |id: &str| location(&SlotId::new("log"), &MessageId::parse(id).unwrap());
        assert_eq!(of("1000"), "/api/messages/log/1000");
        assert_eq!(of("a.b"), "/api/messages/log/a.b");
        assert_eq!(of("50%&?#"), "/api/messages/log/50%25%26%3F%23");
        assert_eq!(of("."), "/api/messages/log?messageId=.");
        assert_eq!(of(".."), "/api/messages/log?messageId=..");
        assert_eq!(of("../x"), "/api/messages/log?messageId=..%2Fx");
        assert_eq!(of(r"a\b+c=d&e"), "/api/messages/log?messageId=a%5Cb%2Bc%3Dd%26e");
    }
}
