//! The management API: looking, stopping, repairing. Never on the public address (architecture, "HTTP").

mod actor;
mod adapters;
mod bulk;
mod conflicts;
mod filter;
mod guard;
mod health;
mod large;
mod settings;
mod slots;
mod stores;
mod transactions;

pub use filter::parse_timestamp;
pub use health::{Part, Readiness, Reason};
pub use settings::ConsoleSettings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::inbound::problem::{Effect, Problem, every_error_is_a_problem};
use crate::model::{AdapterName, SlotId};
use crate::pipeline::AdapterRegistry;
use crate::receiver::Resender;
use crate::relay::Room;
use crate::store::Store;

/// Largest body of a request to the management API: ten thousand keys fit in easily.
const MAX_BODY: usize = 1024 * 1024;
/// Longest wait for the head of an answer. A resend answers after 30 s at the latest.
const REQUEST_BOUND: Duration = Duration::from_secs(60);

/// What the management API looks at and acts upon. Cheap to clone.
#[derive(Clone)]
pub struct Console {
    pub store: Store,
    pub registry: AdapterRegistry,
    pub resender: Resender,
    /// For large bodies while they are read: what is processed shares it.
    pub room: Room,
    /// For large answers until their clients have read them.
    pub answers: Room,
    pub settings: ConsoleSettings,
    /// The slots that receivers claim. A row in any other slot is orphaned.
    pub slots: Arc<[ClaimedSlot]>,
    /// Whether a POST would be accepted now, and messages processed.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// The metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// A slot and the receiver it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedSlot {
    pub slot_id: SlotId,
    pub purpose: SlotPurpose,
    pub adapter: AdapterName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotPurpose {
    /// Message log: types A and L.
    Log,
    /// Error store: types E, H, M and I.
    Errors,
}

/// The whole management surface. `own` is the address that is really listened on.
pub fn router(console: Console, own: SocketAddr) -> Router {
    let guard = guard::Guard::new(own, console.settings.hosts.clone());
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/api/v1/adapters", get(adapters::list))
        .route("/api/v1/adapters/{name}/start", post(adapters::start))
        .route("/api/v1/adapters/{name}/stop", post(adapters::stop))
        .route("/api/v1/stores", get(stores::counts))
        .route("/api/v1/stores/{slotId}/messages", get(stores::page))
        .route("/api/v1/stores/{slotId}/messages/{key}", get(stores::show).delete(stores::delete))
        .route("/api/v1/stores/{slotId}/messages/{key}/resend", post(stores::resend))
        .route("/api/v1/stores/{slotId}/resend", post(bulk::resend))
        .route("/api/v1/stores/{slotId}/delete", post(bulk::delete))
        .route("/api/v1/messages/{messageId}", get(stores::trace))
        .route("/api/v1/conflicts", get(conflicts::list))
        .route("/api/v1/transactions", get(transactions::list))
        .route("/api/v1/transactions/{gid}/commit", post(transactions::commit))
        .route("/api/v1/transactions/{gid}/rollback", post(transactions::rollback))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .with_state(console)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(in_time))
        .layer(from_fn_with_state(guard, guard::protect))
        .layer(tower_http::catch_panic::CatchPanicLayer::new())
        .layer(from_fn(every_error_is_a_problem))
        .layer(from_fn(safe_headers))
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_BOUND, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let detail = format!("no answer within {} s; it may still be done", REQUEST_BOUND.as_secs());
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).effect(Effect::Unknown).into_response()
        }
    }
}

async fn safe_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
