//! Is it alive, would it accept, does it process; and the figures.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;

use super::Console;
use crate::inbound::problem::Problem;

/// Whether a POST would be accepted now, and whether what was accepted is processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub accepting: bool,
    pub processing: bool,
    /// Why not; empty when both are well.
    pub reasons: Vec<Reason>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub part: Part,
    /// For people: what is wrong, and where.
    pub what: String,
    pub since: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    Accepting,
    Processing,
}

/// The process runs and answers.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// 200 exactly when a POST would be accepted now.
pub(super) async fn readyz(State(console): State<Console>) -> Response {
    let readiness = (console.readiness)();
    if readiness.accepting {
        return Json(readiness).into_response();
    }
    // A problem like any other 503, with the same members beside its own.
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "a POST would not be accepted now")
        .with("accepting", readiness.accepting)
        .with("processing", readiness.processing)
        .with("reasons", readiness.reasons)
        .into_response()
}

pub(super) async fn metrics(State(console): State<Console>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (console.metrics)()).into_response()
}
