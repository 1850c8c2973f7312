//! Reading one request: ids, chosen headers, body; everything from outside is hostile (protocol §4, step −1).

use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use axum::body::HttpBody;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::InboundSettings;
use super::accept::Room;
use super::lent::BodyError;
use super::problem::{Effect, Problem};
use super::unpack::{Coding, packed_limit, unpack};
use crate::broker::fits;
use crate::model::{Headers, MessageId};

/// Of a body that was announced and has not come yet, room is made for so many bytes at most.
const ANNOUNCED: usize = 64 * 1024;
/// Bodies that are unpacked at once: each has both its forms in memory, and a window.
const UNPACKED_AT_ONCE: usize = 4;

/// What stands before the body.
#[derive(Debug, Clone)]
pub struct Head {
    pub ids: Ids,
    pub content_type: Option<String>,
    pub headers: Headers,
}

/// What a client knows its message by.
#[derive(Debug, Clone)]
pub struct Ids {
    pub message: MessageId,
    pub correlation: MessageId,
}

/// Bytes of bodies in memory, over all requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BodyBudget {
    room: Arc<Semaphore>,
    unpacking: Arc<Semaphore>,
}

/// Room for one body, which grows with it.
#[derive(Debug)]
pub(super) struct Holding {
    budget: BodyBudget,
    /// One for all: a body that comes byte by byte must not cost more than its bytes.
    permit: Option<OwnedSemaphorePermit>,
}

/// A body and the room that it takes.
#[derive(Debug)]
pub struct HeldBody {
    pub bytes: Bytes,
    pub room: Room,
}

impl BodyBudget {
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))),
            unpacking: Arc::new(Semaphore::new(UNPACKED_AT_ONCE)),
        }
    }

    pub(super) fn nothing(&self) -> Holding {
        Holding { budget: self.clone(), permit: None }
    }
}

impl Holding {
    /// Makes room for so many bytes altogether.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), Problem> {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(bytes.saturating_sub(held)).unwrap_or(u32::MAX);
        let more = self.budget.room.clone().try_acquire_many_owned(more).map_err(|_full| {
            let detail = "too many bodies are being received at once; try again";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).effect(Effect::None)
        })?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

/// Reads ids and headers, or says what is wrong with them.
///
/// # Errors
/// 400 for an id that AMQP could not carry, 431 for too much that shall travel along.
pub fn read_head(inbound: &InboundSettings, headers: &HeaderMap) -> Result<Head, Problem> {
    let given = inbound.message_id_headers.iter().find(|name| headers.contains_key(*name));
    let message_id = match given {
        Some(name) => read_id(headers, name)?,
        None if inbound.require_message_id => {
            let names: Vec<&str> = inbound.message_id_headers.iter().map(HeaderName::as_str).collect();
            return Err(bad_request(format!("a message id is required: send header {}", names.join(" or "))));
        }
        None => MessageId::mint(),
    };
    let correlation_id = match headers.contains_key(&inbound.correlation_id_header) {
        true => read_id(headers, &inbound.correlation_id_header)?,
        false => message_id.clone(),
    };
    let content_type = match headers.get(CONTENT_TYPE) {
        Some(value) => {
            Some(value.to_str().map_err(|_error| bad_request("content-type is not visible ASCII"))?.to_owned())
        }
        None => None,
    };
    let mut chosen = Headers::new();
    for name in &inbound.header_params {
        let mut values = Vec::new();
        for value in headers.get_all(name) {
            let text = std::str::from_utf8(value.as_bytes())
                .map_err(|_error| bad_request(format!("header {name} is not UTF-8")))?;
            values.push(text);
        }
        if !values.is_empty() {
            chosen.insert(name.as_str().to_owned(), values.join(", "));
        }
    }
    fits(content_type.as_deref(), &chosen).map_err(|error| {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Problem::new(status, format!("these headers cannot travel with the message: {error}")).effect(Effect::None)
    })?;
    let ids = Ids { message: message_id, correlation: correlation_id };
    Ok(Head { ids, content_type, headers: chosen })
}

fn read_id(headers: &HeaderMap, name: &HeaderName) -> Result<MessageId, Problem> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(bad_request(format!("header {name} stands there more than once")));
    };
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_error| bad_request(format!("header {name} is not visible ASCII")))?;
    MessageId::parse(text).map_err(|error| bad_request(format!("header {name}: {error}")))
}

/// Reads the body within its limit, its time and the memory that is left, and unpacks it.
///
/// # Errors
/// 415 for a form that is not unpacked, 413 over the limit, 408 too slow, 400 broken off, 503 none without room.
pub async fn read_body(
    inbound: &InboundSettings,
    headers: &HeaderMap,
    body: impl HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
    budget: &BodyBudget,
    bound: Duration,
) -> Result<HeldBody, Problem> {
    let coding = Coding::of(headers)?;
    let most = if coding.is_some() { packed_limit(inbound.max_body) } else { inbound.max_body };
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > u64::try_from(most).unwrap_or(u64::MAX)) {
        return Err(too_large(inbound.max_body));
    }
    let mut held = budget.nothing();
    let read = async {
        let bytes = collect(body, most, inbound.max_body, &mut held).await?;
        match coding {
            None => Ok(bytes),
            // It is never closed.
            Some(coding) => {
                let _turn = budget.unpacking.acquire().await;
                Box::pin(unpack(coding, bytes, &mut held, inbound.max_body)).await
            }
        }
    };
    match tokio::time::timeout(bound, read).await {
        Ok(read) => read.map(|bytes| HeldBody { bytes, room: Arc::new(held.permit) }),
        Err(_elapsed) => Err(too_slow(format!("the body did not arrive within {} s", bound.as_secs()))),
    }
}

/// `most`: of what is received. `max_body`: what is told.
async fn collect(
    mut body: impl HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
    most: usize,
    max_body: usize,
    held: &mut Holding,
) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| of_body(&error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(too_large(max_body));
        }
        held.hold(bytes.len() + data.len())?;
        if bytes.is_empty() {
            // As large as was announced, and not the next power of two; but what did not come yet is not trusted.
            let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
            bytes.reserve(data.len() + announced.min(ANNOUNCED).min(most - data.len()));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn of_body(error: &BoxError) -> Problem {
    if let Some(BodyError::TooSlow) = error.downcast_ref() {
        return too_slow("the body came too slowly, or nothing more of it");
    }
    bad_request("the body ended before it was complete, or its framing is broken")
}

fn too_slow(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, detail).effect(Effect::None)
}

pub(super) fn too_large(max_body: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {max_body} bytes"))
        .effect(Effect::None)
}

pub(super) fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail).effect(Effect::None)
}
