//! The public HTTP surface: adapters' routes and the state of a message (F1, F2).

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::FutureExt;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use super::accept::Acceptor;
use super::answer::Answer;
use super::finishing::Finishing;
use super::lent::Lent;
use super::openapi;
use super::origin;
use super::problem::{Problem, every_error_is_a_problem};
use super::request::{BodyBudget, Head, read_body, read_head};
use super::respond::{none, respond};
use super::server::routed;
use super::well_formed::well_formed;
use super::{ApiSettings, InboundSettings, Path};
use crate::model::{Envelope, MessageId, SlotId};
use crate::pipeline::{AdapterSettings, Outcomes};

/// The public surface. Cheap to clone.
#[derive(Clone)]
pub struct PublicApi {
    api: Arc<Api>,
    /// What does not belong to an adapter.
    others: Router,
}

struct Api {
    acceptor: Arc<Acceptor>,
    routes: BTreeMap<String, Vec<Route>>,
    budget: BodyBudget,
    body_timeout: Duration,
    /// Messages that were read and are not decided upon, also those whose client is gone.
    in_hand: Arc<Semaphore>,
}

struct Route {
    inbound: Arc<InboundSettings>,
    path: Arc<Path>,
    accepted: metrics::Counter,
    outcomes: Arc<Outcomes>,
}

/// The query of a status: an id that no path can carry.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ById {
    message_id: String,
}

impl PublicApi {
    #[must_use]
    pub fn new(
        acceptor: Arc<Acceptor>,
        settings: &ApiSettings,
        inbound: Vec<InboundSettings>,
        adapters: &[AdapterSettings],
    ) -> Self {
        let document = Bytes::from(openapi::document(&inbound, adapters).to_string());
        let mut routes: BTreeMap<String, Vec<Route>> = BTreeMap::new();
        for inbound in inbound {
            let path = Arc::new(Path::of(&inbound, adapters));
            let uri = format!("/api{}", inbound.uri_pattern);
            let accepted = metrics::counter!("posthaste_accepted_total", "adapter" => inbound.adapter.to_string());
            let outcomes = acceptor.outcomes.of(&inbound.adapter);
            routes.entry(uri).or_default().push(Route { inbound: Arc::new(inbound), path, accepted, outcomes });
        }
        let api = Arc::new(Api {
            acceptor,
            routes,
            budget: BodyBudget::new(settings.max_body_bytes_in_flight),
            body_timeout: settings.body_timeout,
            in_hand: Arc::new(Semaphore::new(settings.messages_in_hand())),
        });
        let others = Router::new()
            .route("/api/messages/{slotId}/{messageId}", get(status))
            .route("/api/openapi.json", get(async move || ([(CONTENT_TYPE, "application/json")], document)))
            .route("/api/messages/{slotId}", get(status_by_query))
            .layer(from_fn(every_error_is_a_problem))
            .fallback(async || nobody_listens())
            .with_state(api.clone())
            .layer(CatchPanicLayer::custom(panicked));
        Self { api, others }
    }

    /// Paths are compared as they are: nothing is normalised, nothing decoded. An adapter's is looked up before the router is
    /// asked, which puts a message into a box for each of its layers; what that has is reserved.
    pub async fn answer(self, request: Request<Lent>) -> Response {
        let host = match well_formed(request.version(), request.uri(), request.headers()) {
            Ok(host) => host,
            Err(problem) => return rejected(problem),
        };
        match self.api.routes.get(request.uri().path()) {
            Some(routes) => caught(post(&self.api, routes, host.as_ref(), request)).await,
            None => Box::pin(routed(self.others, request)).await,
        }
    }
}

/// A panic is answered, and its connection lives on.
async fn caught(answer: impl Future<Output = Response>) -> Response {
    AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(panicked)
}

fn panicked(_panic: Box<dyn std::any::Any + Send>) -> Response {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be answered").into_response()
}

fn nobody_listens() -> Problem {
    none(StatusCode::NOT_FOUND, "no adapter listens at this path")
}

async fn post(api: &Api, routes: &[Route], host: Option<&Authority>, request: Request<Lent>) -> Response {
    let Some(route) = routes.iter().find(|route| route.inbound.method == *request.method()) else {
        let listeners = routes.iter().map(|route| &*route.inbound);
        let preflight = origin::preflight(request.method(), request.headers(), listeners);
        return preflight.unwrap_or_else(|| method_not_allowed(routes));
    };
    let page = match origin::sender(request.headers(), host, &route.inbound.allowed_origins) {
        Ok(page) => page,
        Err(problem) => return rejected(problem),
    };
    let mut response = receive(api, request, route).await.unwrap_or_else(rejected);
    if let Some(page) = page {
        origin::allow(page, &mut response);
    }
    response
}

fn rejected(problem: Problem) -> Response {
    metrics::counter!("posthaste_rejected_total", "status" => problem.status().as_u16().to_string()).increment(1);
    problem.into_response()
}

/// Reads the request and hands it on: from there on a client that hangs up cancels nothing.
async fn receive(api: &Api, request: Request<Lent>, route: &Route) -> Result<Response, Problem> {
    let Route { inbound, path, accepted, outcomes } = route;
    let (parts, body) = request.into_parts();
    let Head { ids, content_type, headers } = read_head(inbound, &parts.headers)?;
    let held = read_body(inbound, &parts.headers, body, &api.budget, api.body_timeout).await?;
    let complete = Instant::now();
    let Ok(in_hand) = api.in_hand.clone().try_acquire_owned() else {
        return Err(none(StatusCode::SERVICE_UNAVAILABLE, "too many messages are in hand; try again"));
    };
    let tx_id = api.acceptor.relay.mint();
    let envelope = Envelope {
        tx_id,
        root_id: tx_id.into(),
        message_id: ids.message.clone(),
        correlation_id: ids.correlation.clone(),
        content_type,
        headers,
        body: held.bytes,
    };
    let (acceptor, tasks) = (api.acceptor.clone(), api.acceptor.relay.tasks().clone());
    let (settings, path) = (inbound.clone(), path.clone());
    let decide = async move {
        let answer = match acceptor.ready(&settings, &path) {
            Ok(()) => acceptor.accept(&settings, &path, envelope, held.room).await,
            Err(reason) => {
                let answer = Box::pin(acceptor.refuse(&settings, &envelope, reason.public)).await;
                drop(held.room);
                answer
            }
        };
        drop(in_hand);
        answer
    };
    let panicked = |_panic| Answer::Unknown { reason: "the task that decided has panicked".to_owned() };
    let answer = Finishing::new(decide, tasks).await.unwrap_or_else(panicked);
    if answer == Answer::Accepted {
        accepted.increment(1);
        outcomes.done(Some(complete.elapsed()));
    }
    respond(inbound, &ids, answer)
}

async fn status(
    State(api): State<Arc<Api>>,
    UrlPath((slot, message_id)): UrlPath<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    status_of(&api, &slot, &message_id, &headers).await
}

async fn status_by_query(
    State(api): State<Arc<Api>>,
    UrlPath(slot): UrlPath<String>,
    Query(ById { message_id }): Query<ById>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    status_of(&api, &slot, &message_id, &headers).await
}

async fn status_of(api: &Api, slot: &str, message_id: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "no such message was accepted in this slot");
    let Ok(message_id) = MessageId::parse(message_id) else { return Err(missing()) };
    // Only message logs are public: an error store's slot is the management's.
    let slot = SlotId::new(slot);
    let inbound = api.routes.values().flatten().map(|route| &route.inbound);
    let mut logs = inbound.filter_map(|inbound| Some((inbound, inbound.message_log.as_ref()?)));
    let Some((inbound, _log)) = logs.find(|(_, log)| log.slot_id == slot) else { return Err(missing()) };
    let mut response = match api.acceptor.store.message_status(&slot, &message_id).await {
        Ok(Some(status)) => axum::Json(status).into_response(),
        Ok(None) => missing().into_response(),
        Err(error) => {
            tracing::warn!(message.id = %message_id, %error, "a message's state could not be read");
            return Err(Problem::of_database(&error, error.public()));
        }
    };
    // Other pages may ask, as anybody may, and their browsers keep the answer from them.
    let origin = headers.get(ORIGIN);
    if let Some(origin) = origin.and_then(|origin| inbound.allowed_origins.iter().find(|one| *one == origin)) {
        origin::allow(origin, &mut response);
    }
    Ok(response)
}

fn method_not_allowed(routes: &[Route]) -> Response {
    let methods: Vec<&str> = routes.iter().map(|route| route.inbound.method.as_str()).collect();
    let detail = format!("this path takes {}", methods.join(", "));
    let mut response = none(StatusCode::METHOD_NOT_ALLOWED, detail).into_response();
    if let Ok(allow) = HeaderValue::try_from(methods.join(", ")) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::inbound::server::{ServerSettings, bind, serve};
    use crate::lifecycle::{Lifecycle, NeededFor, Task};

    #[tokio::test]
    async fn a_panic_is_answered_with_a_problem_and_its_connection_lives_on() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (lifecycle, bound) = (Lifecycle::default(), Duration::from_secs(10));
        let settings = ServerSettings {
            header_timeout: bound,
            progress_timeout: bound,
            max_connections: 1,
            max_connections_per_address: None,
        };
        let answer = |_| caught(async { panic!("on purpose") });
        let task = Task::new("api", NeededFor::Accepting);
        lifecycle.tasks.spawn(serve(task, listener, answer, settings, lifecycle.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"}") {
                let read = tokio::time::timeout(bound, client.read_buf(&mut heard)).await.unwrap();
                assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&heard));
            }
            let heard = String::from_utf8(heard).unwrap();
            assert!(
                heard.starts_with("HTTP/1.1 500 ") && heard.contains(super::super::problem::PROBLEM_JSON),
                "{heard}"
            );
        }
        assert!(lifecycle.stop(bound).await);
    }
}
