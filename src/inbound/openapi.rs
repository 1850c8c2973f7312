//! The OpenAPI document of the adapters' listeners, for programs that make clients: what docs/api-client.md tells people.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::problem::PROBLEM_JSON;
use super::{InboundSettings, Path};
use crate::pipeline::AdapterSettings;

/// Longest id, in characters.
const MAX_ID: usize = 255;

/// The document of all listeners, as they are configured.
pub(super) fn document(inbound: &[InboundSettings], adapters: &[AdapterSettings]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for one in inbound {
        let item = paths.entry(format!("/api{}", one.uri_pattern)).or_insert_with(|| json!({}));
        if let Value::Object(item) = item {
            item.insert(one.method.as_str().to_ascii_lowercase(), operation(one, adapters));
        }
    }
    paths.insert("/api/messages/{slotId}/{messageId}".to_owned(), json!({"get": status()}));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Posthaste: listeners of the adapters",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Choose an id, keep it with the message, and send the same request until the answer is definite.",
        },
        "paths": paths,
        "components": {"schemas": {
            "Id": {"type": "string", "minLength": 1, "maxLength": MAX_ID, "pattern": "^[!-~]+$"},
            "Receipt": receipt(),
            "MessageStatus": message_status(),
            "Problem": problem(),
        }},
    })
}

fn operation(one: &InboundSettings, adapters: &[AdapterSettings]) -> Value {
    let adapter = adapters.iter().find(|adapter| adapter.name == one.adapter);
    let mut operation = json!({
        "operationId": one.adapter.as_str(),
        "summary": format!("Hands a message to the adapter {}", one.adapter),
        "parameters": parameters(one),
        "requestBody": {
            "description": format!("The message, of any media type; at most {} bytes.", one.max_body),
            "content": {"*/*": {"schema": {}}},
        },
        "responses": responses(one, adapters),
    });
    if let (Some(text), Value::Object(members)) = (adapter.and_then(|one| one.description.as_ref()), &mut operation) {
        members.insert("description".to_owned(), json!(text));
    }
    operation
}

fn parameters(one: &InboundSettings) -> Vec<Value> {
    let id = json!({"$ref": "#/components/schemas/Id"});
    let header = |name: &str, required: bool, description: &str, schema: &Value| json!({"name": name, "in": "header", "required": required, "description": description, "schema": schema});
    let several = one.message_id_headers.len() > 1;
    let identity = match (several, one.require_message_id) {
        (true, true) => "The message id. Of several headers the first that is present counts; one is required.",
        (true, false) => {
            "The message id. Of several headers the first that is present counts; without one, an id is minted."
        }
        (false, true) => "The message id: the same for each repeat.",
        (false, false) => {
            "The message id: the same for each repeat. Without it an id is minted, and a repeat is another message."
        }
    };
    let required = one.require_message_id && !several;
    let mut all: Vec<Value> =
        one.message_id_headers.iter().map(|name| header(name.as_str(), required, identity, &id)).collect();
    let correlation = "The correlation id. Default: the message id.";
    all.push(header(one.correlation_id_header.as_str(), false, correlation, &id));
    let travels = json!({"type": "string"});
    all.extend(one.header_params.iter().map(|name| header(name.as_str(), false, "Travels along.", &travels)));
    all
}

fn responses(one: &InboundSettings, adapters: &[AdapterSettings]) -> Value {
    let located = if one.message_log.is_some() { vec![location()] } else { Vec::new() };
    let mut answers =
        vec![(StatusCode::ACCEPTED, "Accepted: durable, and processed exactly once in effect.", located.clone())];
    if one.check_for_duplicates.is_some() {
        let same = "The same id was accepted before; this request changed nothing.";
        let other = "Another body was accepted under this id; this request changed nothing.";
        answers.push((one.duplicate_status, same, located.clone()));
        answers.push((one.conflict_status, other, located));
    }
    for (status, text) in [
        (StatusCode::BAD_REQUEST, "Nothing was done: an id, a header or the framing is wrong."),
        (
            StatusCode::FORBIDDEN,
            "Nothing was done: a browser sent it for a page of a site that the listener does not allow.",
        ),
        (StatusCode::REQUEST_TIMEOUT, "Nothing was done: the body did not arrive in time."),
        (StatusCode::PAYLOAD_TOO_LARGE, "Nothing was done: the body is too large."),
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Nothing was done: no such Content-Encoding is unpacked."),
        (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Nothing was done: the headers cannot travel with the message."),
        (StatusCode::NOT_IMPLEMENTED, "Nothing was done: no such Transfer-Encoding is read."),
    ] {
        answers.push((status, text, vec![outcome(&["none"])]));
    }
    if let Path::Transaction(_) = Path::of(one, adapters) {
        let text = "Nothing was done: a step refused the data, and everything was rolled back.";
        answers.push((StatusCode::UNPROCESSABLE_ENTITY, text, vec![outcome(&["none"])]));
        let text = "Nothing was done: a step failed, and everything was rolled back.";
        answers.push((StatusCode::INTERNAL_SERVER_ERROR, text, vec![outcome(&["none"])]));
    }
    let text = "X-Outcome none: nothing was done and nothing will be. X-Outcome unknown: send the same again.";
    answers.push((StatusCode::SERVICE_UNAVAILABLE, text, vec![outcome(&["none", "unknown"]), retry_after()]));

    let mut responses = Map::new();
    for (status, _, headers) in &answers {
        let same = answers.iter().filter(|(other, ..)| other == status).map(|(_, text, _)| *text);
        let response = response(*status, &same.collect::<Vec<_>>().join(" Or: "), headers.clone());
        responses.insert(status.as_str().to_owned(), response);
    }
    Value::Object(responses)
}

fn response(status: StatusCode, text: &str, headers: Vec<(&'static str, Value)>) -> Value {
    let mut response = Map::from_iter([("description".to_owned(), json!(text))]);
    let (media_type, schema) =
        if status.is_success() { ("application/json", "Receipt") } else { (PROBLEM_JSON, "Problem") };
    if status != StatusCode::NOT_MODIFIED {
        response.insert("content".to_owned(), content(media_type, schema));
    }
    if !headers.is_empty() {
        let headers: Map<String, Value> = headers.into_iter().map(|(name, header)| (name.to_owned(), header)).collect();
        response.insert("headers".to_owned(), Value::Object(headers));
    }
    Value::Object(response)
}

fn content(media_type: &str, schema: &str) -> Value {
    json!({media_type: {"schema": {"$ref": format!("#/components/schemas/{schema}")}}})
}

fn location() -> (&'static str, Value) {
    let schema = json!({"type": "string", "format": "uri-reference"});
    ("Location", json!({"description": "Where to ask what became of the message.", "schema": schema}))
}

fn outcome(words: &[&str]) -> (&'static str, Value) {
    let schema = json!({"type": "string", "enum": words});
    ("X-Outcome", json!({"description": "What became of the request.", "schema": schema}))
}

fn retry_after() -> (&'static str, Value) {
    ("Retry-After", json!({"description": "Seconds to wait.", "schema": {"type": "integer"}}))
}

fn status() -> Value {
    let parameter = |name: &str, schema: Value| json!({"name": name, "in": "path", "required": true, "schema": schema});
    let refused = |text: &str| json!({"description": text, "content": content(PROBLEM_JSON, "Problem")});
    json!({
        "operationId": "messageStatus",
        "summary": "Tells what became of a message",
        "parameters": [
            parameter("slotId", json!({"type": "string"})),
            parameter("messageId", json!({"$ref": "#/components/schemas/Id"})),
        ],
        "responses": {
            "200": {"description": "Where it stands.", "content": content("application/json", "MessageStatus")},
            "404": refused("No such message was accepted in this slot."),
            "503": refused("The database does not answer now."),
        },
    })
}

fn receipt() -> Value {
    json!({
        "type": "object",
        "required": ["messageId", "correlationId", "outcome"],
        "properties": {
            "messageId": {"$ref": "#/components/schemas/Id"},
            "correlationId": {"$ref": "#/components/schemas/Id"},
            "slotId": {"type": "string", "description": "The message log's, where the adapter has one."},
            "outcome": {"type": "string", "enum": ["accepted", "duplicate"]},
        },
    })
}

fn message_status() -> Value {
    let states = ["accepted", "retrying", "processed", "error", "deleted", "enqueued"];
    json!({
        "type": "object",
        "required": ["slotId", "messageId", "correlationId", "state", "receivedAt"],
        "properties": {
            "slotId": {"type": "string"},
            "messageId": {"$ref": "#/components/schemas/Id"},
            "correlationId": {"type": ["string", "null"]},
            "state": {"type": "string", "enum": states},
            "receivedAt": {"type": "string", "format": "date-time"},
        },
    })
}

/// RFC 9457.
fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "For people."},
        },
        "additionalProperties": true,
    })
}
