//! The public HTTP surface: adapters' routes and the state of a message (F1, F2).

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::header::{ALLOW, LOCATION};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::FutureExt;
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use super::accept::Acceptor;
use super::answer::Answer;
use super::finishing::Finishing;
use super::problem::{Effect, Problem, every_error_is_a_problem};
use super::request::{BodyBudget, Head, Ids, read_body, read_head};
use super::server::routed;
use super::{ApiSettings, InboundSettings, Path};
use crate::model::{Envelope, MessageId, SlotId};
use crate::pipeline::AdapterSettings;

/// Everything in a path segment that is not itself.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
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
}

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

impl PublicApi {
    #[must_use]
    pub fn new(
        acceptor: Arc<Acceptor>,
        settings: &ApiSettings,
        inbound: Vec<InboundSettings>,
        adapters: &[AdapterSettings],
    ) -> Self {
        let mut routes: BTreeMap<String, Vec<Route>> = BTreeMap::new();
        for inbound in inbound {
            let path = Arc::new(Path::of(&inbound, adapters));
            let uri = format!("/api{}", inbound.uri_pattern);
            let accepted = metrics::counter!("posthaste_accepted_total", "adapter" => inbound.adapter.to_string());
            routes.entry(uri).or_default().push(Route { inbound: Arc::new(inbound), path, accepted });
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
            .layer(from_fn(every_error_is_a_problem))
            .fallback(async || nobody_listens())
            .with_state(api.clone())
            .layer(CatchPanicLayer::custom(panicked));
        Self { api, others }
    }

    /// Paths are compared as they are: nothing is normalised, nothing decoded. An adapter's is looked up before the router is
    /// asked, which puts a message into a box for each of its layers; none begins with `/api/messages`.
    pub async fn answer(self, request: Request<Incoming>) -> Response {
        match self.api.routes.get(request.uri().path()) {
            Some(routes) => caught(post(&self.api, routes, request)).await,
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

async fn post(api: &Api, routes: &[Route], request: Request<Incoming>) -> Response {
    let Some(route) = routes.iter().find(|route| route.inbound.method == *request.method()) else {
        return method_not_allowed(routes).into_response();
    };
    match receive(api, request, route).await {
        Ok(response) => response,
        Err(problem) => {
            metrics::counter!("posthaste_rejected_total", "status" => problem.status().as_u16().to_string())
                .increment(1);
            problem.into_response()
        }
    }
}

/// Reads the request and hands it on: from there on a client that hangs up cancels nothing.
async fn receive(api: &Api, request: Request<Incoming>, route: &Route) -> Result<Response, Problem> {
    let Route { inbound, path, accepted } = route;
    let (parts, body) = request.into_parts();
    let Head { ids, content_type, headers } = read_head(inbound, &parts.headers)?;
    let held = read_body(inbound, &parts.headers, body, &api.budget, api.body_timeout).await?;
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
    }
    respond(inbound, &ids, answer)
}

fn respond(inbound: &InboundSettings, ids: &Ids, answer: Answer) -> Result<Response, Problem> {
    let adapter = || inbound.adapter.to_string();
    match answer {
        Answer::Accepted => Ok(receipt(inbound, ids, StatusCode::ACCEPTED, "accepted")),
        Answer::Duplicate { conflict } => {
            metrics::counter!("posthaste_duplicates_total", "adapter" => adapter()).increment(1);
            if conflict {
                metrics::counter!("posthaste_conflicts_total", "adapter" => adapter()).increment(1);
            }
            let status = if conflict { inbound.conflict_status } else { inbound.duplicate_status };
            if status == StatusCode::CONFLICT {
                let detail = if conflict {
                    "another message was accepted under this id"
                } else {
                    "this message was accepted before"
                };
                let problem = Problem::new(status, detail).with("messageId", &ids.message);
                return Ok(with_location(inbound, ids, problem.into_response()));
            }
            if status == StatusCode::NOT_MODIFIED {
                return Ok(with_location(inbound, ids, status.into_response()));
            }
            Ok(receipt(inbound, ids, status, "duplicate"))
        }
        Answer::Refused { reason } => Err(none(StatusCode::SERVICE_UNAVAILABLE, reason)),
        Answer::Failed { step, reason } => Err(none(StatusCode::INTERNAL_SERVER_ERROR, reason).with("step", step)),
        Answer::Unknown { reason } => {
            metrics::counter!("posthaste_unknown_total", "adapter" => adapter()).increment(1);
            let detail = format!("not known whether the message was accepted; repeat it with the same id ({reason})");
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).effect(Effect::Unknown);
            Err(problem.with("messageId", &ids.message))
        }
    }
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
    if let Some(log) = &inbound.message_log {
        let slot = utf8_percent_encode(log.slot_id.as_str(), SEGMENT);
        let id = utf8_percent_encode(ids.message.as_str(), SEGMENT);
        if let Ok(location) = HeaderValue::try_from(format!("/api/messages/{slot}/{id}")) {
            response.headers_mut().insert(LOCATION, location);
        }
    }
    response
}

async fn status(
    State(api): State<Arc<Api>>,
    UrlPath((slot, message_id)): UrlPath<(String, String)>,
) -> Result<Response, Problem> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "no such message was accepted in this slot");
    let Ok(message_id) = MessageId::parse(&message_id) else { return Err(missing()) };
    // Only message logs are public: an error store's slot is the management's.
    let slot = SlotId::new(&slot);
    let routes = api.routes.values().flatten();
    let logs = routes.filter_map(|route| route.inbound.message_log.as_ref());
    if !logs.into_iter().any(|log| log.slot_id == slot) {
        return Err(missing());
    }
    match api.acceptor.store.message_status(&slot, &message_id).await {
        Ok(Some(status)) => Ok(axum::Json(status).into_response()),
        Ok(None) => Err(missing()),
        Err(error) => {
            tracing::warn!(message.id = %message_id, %error, "a message's state could not be read");
            Err(Problem::of_database(&error, error.public()))
        }
    }
}

fn none(status: StatusCode, detail: impl Into<String>) -> Problem {
    Problem::new(status, detail).effect(Effect::None)
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
        let settings = ServerSettings { header_timeout: bound, max_connections: 1 };
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
