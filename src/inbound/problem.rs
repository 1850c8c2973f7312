//! The one shape of an error answer: RFC 9457 `application/problem+json`. Shared with the management API.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::store::StoreError;

/// The media type of every error answer.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Whether a refused request may still take effect (I2, I3): `none` or `unknown`.
pub const X_OUTCOME: HeaderName = HeaderName::from_static("x-outcome");

/// Longest text of a framework's own error that is taken over as `detail`.
const MAX_FOREIGN_DETAIL: usize = 4096;
/// What a client should wait after a 503, in seconds.
const RETRY_AFTER_SECONDS: u64 = 2;

/// What is known about the effect of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was done and nothing will be (I2).
    None,
    /// It may have been done: repeat the request (I3).
    Unknown,
}

impl Effect {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// An error answer under construction: `type` is `about:blank`, `title` the status' own phrase.
#[derive(Debug, Clone)]
#[must_use = "a problem is an answer"]
pub struct Problem {
    status: StatusCode,
    detail: String,
    members: Map<String, Value>,
    effect: Option<Effect>,
    retry_after: Option<u64>,
    header: Option<(HeaderName, &'static str)>,
}

impl Problem {
    /// `detail` is for people: it says what to do, and holds no payload and no secret.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            members: Map::new(),
            effect: None,
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECONDS),
            header: None,
        }
    }

    /// Adds a member of its own, such as `step` or `state`; `None` adds nothing.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(Value::Null) | Err(_) => {}
            Ok(value) => {
                self.members.insert(name.to_owned(), value);
            }
        }
        self
    }

    /// Sends `X-Outcome`.
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effect = Some(effect);
        self
    }

    /// Sends `Retry-After`, in seconds. Every 503 has one.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Sends one more header.
    pub fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = Map::new();
        body.insert("type".to_owned(), json!("about:blank"));
        body.insert("title".to_owned(), json!(self.status.canonical_reason().unwrap_or("Error")));
        body.insert("status".to_owned(), json!(self.status.as_u16()));
        body.insert("detail".to_owned(), json!(self.detail));
        for (name, value) in self.members {
            body.entry(name).or_insert(value);
        }
        let mut response = (self.status, Value::Object(body).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(effect) = self.effect {
            headers.insert(X_OUTCOME, HeaderValue::from_static(effect.as_str()));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some((name, value)) = self.header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<StoreError> for Problem {
    /// For operators, who may read what the database says.
    fn from(error: StoreError) -> Self {
        Self::of_database(&error, error.to_string())
    }
}

impl Problem {
    /// The home database could not do it: 503 when the way to it is at fault or it was busy, else 500.
    pub(super) fn of_database(error: &StoreError, detail: String) -> Self {
        let busy = matches!(error.sqlstate(), Some("55P03" | "57014" | "40001" | "40P01"));
        let status = if busy || error.is_infrastructure() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        let effect = match error {
            StoreError::Refused { .. } | StoreError::Unreachable(_) => Effect::None,
            StoreError::Unknown(_) | StoreError::Unexpected(_) => Effect::Unknown,
        };
        Self::new(status, detail).effect(effect)
    }
}

/// Middleware: whatever the framework itself answers with an error status becomes a problem too.
pub async fn every_error_is_a_problem(request: Request, next: Next) -> Response {
    as_problem(next.run(request).await).await
}

async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_problem =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == PROBLEM_JSON.as_bytes());
    if !is_error || is_problem {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = to_bytes(body, MAX_FOREIGN_DETAIL).await.unwrap_or_default();
    let detail = match (String::from_utf8_lossy(&text).trim(), status) {
        ("", StatusCode::NOT_FOUND) => "there is nothing at this path".to_owned(),
        ("", StatusCode::METHOD_NOT_ALLOWED) => "this path does not take that method; see the Allow header".to_owned(),
        ("", StatusCode::PAYLOAD_TOO_LARGE) => "the body is too large".to_owned(),
        ("", _) => "the request could not be answered".to_owned(),
        (text, _) => text.to_owned(),
    };
    let (own, body) = Problem::new(status, detail).into_response().into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    for (name, value) in &own.headers {
        parts.headers.insert(name, value.clone());
    }
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use axum::http::header::ALLOW;

    use super::*;

    async fn body(response: Response) -> Value {
        serde_json::from_slice(&to_bytes(response.into_body(), 10_000).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_problem_has_the_members_of_rfc_9457_and_its_own_cannot_overwrite_them() {
        let problem = Problem::new(StatusCode::CONFLICT, "claimed by ann").with("who", "ann").with("status", 1);
        let response = problem.with("since", None::<String>).into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(
            body(response).await,
            json!({"type": "about:blank", "title": "Conflict", "status": 409, "detail": "claimed by ann", "who": "ann"})
        );
    }

    #[tokio::test]
    async fn a_lost_connection_is_503_unknown_and_no_connection_is_503_none() {
        for (error, effect) in
            [(StoreError::Unknown("gone".into()), "unknown"), (StoreError::Unreachable("down".into()), "none")]
        {
            let response = Problem::from(error).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers()[X_OUTCOME], effect);
            assert!(response.headers().contains_key(RETRY_AFTER));
        }
    }

    #[tokio::test]
    async fn a_plain_error_of_the_framework_becomes_a_problem_and_keeps_its_headers() {
        let plain = (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET")]).into_response();
        let response = as_problem(plain).await;
        assert_eq!(response.headers()[ALLOW], "GET");
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(body(response).await["status"], 405);
    }
}
