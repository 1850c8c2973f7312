//! Stores: counts, pages, one row, deleting and resending it; and one message's whole life.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::json;

use super::actor::{Acting, ActionBody, message_id, message_key, not_found, slot_id};
use super::filter::{Unfiltered, page_query};
use super::slots::{no_row, refuse_unknown};
use super::{Console, SlotPurpose, large};
use crate::inbound::problem::{Effect, Problem};
use crate::model::{AdapterName, MessageKey, SlotId, StoreType};
use crate::receiver::ResendOutcome;
use crate::store::{COUNT_CAP, Removal, RemovalRequest, SlotCount, StoredMessage, Trace};

/// After so long a resend is answered with 202, and goes on.
pub(super) const RESEND_BOUND: Duration = Duration::from_secs(30);

#[derive(Serialize)]
pub(super) struct Stores {
    items: Vec<StoreSummary>,
}

/// One slot and type.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreSummary {
    slot_id: SlotId,
    #[serde(rename = "type")]
    kind: StoreType,
    count: i64,
    /// The count stopped there; there may be more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    at_least: bool,
    /// The receiver that the slot belongs to.
    adapter: Option<AdapterName>,
    /// No receiver claims it: show, export and delete work, resend is refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    orphaned: bool,
}

pub(super) async fn counts(State(console): State<Console>, _all: Unfiltered) -> Result<Json<Stores>, Problem> {
    let counted = console.store.slot_counts().await?;
    let mut stores: Vec<_> = counted.into_iter().map(|count| summary(&console, count)).collect();
    for claimed in console.slots.iter() {
        let kind = match claimed.purpose {
            SlotPurpose::Log => StoreType::Log,
            SlotPurpose::Errors => StoreType::Error,
        };
        if !stores.iter().any(|store| store.slot_id == claimed.slot_id && store.kind == kind) {
            stores.push(summary(&console, SlotCount { slot_id: claimed.slot_id.clone(), kind, count: 0 }));
        }
    }
    stores.sort_by(|a, b| (&a.slot_id, a.kind.as_str()).cmp(&(&b.slot_id, b.kind.as_str())));
    Ok(Json(Stores { items: stores }))
}

fn summary(console: &Console, count: SlotCount) -> StoreSummary {
    let purpose = match count.kind {
        StoreType::Log | StoreType::SenderLog => SlotPurpose::Log,
        StoreType::Error | StoreType::Waiting | StoreType::InProcess | StoreType::Hold => SlotPurpose::Errors,
    };
    let owner = console.slots.iter().find(|slot| slot.slot_id == count.slot_id && slot.purpose == purpose);
    StoreSummary {
        slot_id: count.slot_id,
        kind: count.kind,
        count: count.count,
        at_least: count.count >= COUNT_CAP,
        adapter: owner.map(|slot| slot.adapter.clone()),
        orphaned: owner.is_none(),
    }
}

#[derive(Serialize)]
pub(super) struct PageAnswer {
    items: Vec<StoredMessage>,
    /// Hand it back as `cursor`; null: this was the last page. With filters a page may be short and yet have a next.
    next: Option<String>,
}

pub(super) async fn page(
    State(console): State<Console>,
    Path(slot): Path<String>,
    uri: Uri,
) -> Result<Json<PageAnswer>, Problem> {
    let slot = slot_id(&slot)?;
    let query = page_query(&uri)?;
    let page = console.store.browse_messages(&slot, &query.filter, query.cursor, query.limit).await?;
    if query.cursor.is_none() && page.messages.is_empty() && page.next.is_none() {
        refuse_unknown(&console, &slot).await?;
    }
    Ok(Json(PageAnswer { items: page.messages, next: page.next.map(|cursor| cursor.encode()) }))
}

pub(super) async fn show(
    State(console): State<Console>,
    Path((slot, key)): Path<(String, String)>,
    _one: Unfiltered,
) -> Result<Response, Problem> {
    let (slot, key) = (slot_id(&slot)?, message_key(&key)?);
    let Some(row) = console.store.stored_row(&slot, key).await? else {
        return Err(no_row(&console, &slot, key).await);
    };
    match large::show(&console, &slot, key, usize::try_from(row.size).unwrap_or(0)).await? {
        Some(response) => Ok(response),
        None => Err(no_row(&console, &slot, key).await),
    }
}

pub(super) async fn trace(
    State(console): State<Console>,
    Path(id): Path<String>,
    _one: Unfiltered,
) -> Result<Json<Trace>, Problem> {
    let id = message_id(&id)?;
    let found = console.store.trace(&id).await?;
    found.map(Json).ok_or_else(|| not_found(format!("nothing is on record about message {id}")))
}

pub(super) async fn delete(
    State(console): State<Console>,
    Path((slot, key)): Path<(String, String)>,
    mut acting: Acting,
    body: Bytes,
) -> Result<Json<serde_json::Value>, Problem> {
    let (slot, key) = (slot_id(&slot)?, message_key(&key)?);
    ActionBody::parse(&body)?.complete(&mut acting);
    let request = RemovalRequest { who: &acting.actor.who, why: acting.actor.why.as_deref(), force: acting.force };
    let conflict = |detail: String| Problem::new(StatusCode::CONFLICT, detail).effect(Effect::None);
    match console.store.remove_message(&slot, key, &request).await? {
        Removal::Removed => Ok(Json(json!({"outcome": "succeeded"}))),
        Removal::NotFound => Err(no_row(&console, &slot, key).await),
        Removal::Busy => Err(conflict("somebody is at work on this row; try again in a moment".to_owned())),
        Removal::Kept { reason } => {
            let detail = format!("{reason}; force it if you mean it");
            Err(conflict(detail).with("outcome", "refused").with("reason", reason))
        }
        Removal::InUse => {
            let reason = "its message is still on its way and stands nowhere else; wait until it is done";
            Err(conflict(reason.to_owned()).with("outcome", "refused").with("reason", reason))
        }
    }
}

pub(super) async fn resend(
    State(console): State<Console>,
    Path((slot, key)): Path<(String, String)>,
    mut acting: Acting,
    body: Bytes,
) -> Result<Response, Problem> {
    let (slot, key) = (slot_id(&slot)?, message_key(&key)?);
    let body = ActionBody::parse(&body)?;
    body.complete(&mut acting);
    // Read before: a resend at work has taken the row away, and its trace goes by the business id.
    let row = console.store.stored_row(&slot, key).await?;
    let outcome = console.resender.resend(&slot, key, &acting.actor, body.confirmed, RESEND_BOUND).await?;
    if row.is_none() && matches!(outcome, ResendOutcome::NotFound | ResendOutcome::Refused { .. }) {
        return Err(no_row(&console, &slot, key).await);
    }
    Ok(answer(&slot, key, row.map(|row| row.message_id), outcome))
}

fn answer(slot: &SlotId, key: MessageKey, message_id: Option<String>, outcome: ResendOutcome) -> Response {
    match outcome {
        ResendOutcome::Succeeded => Json(json!({"outcome": "succeeded"})).into_response(),
        ResendOutcome::Failed { step, reason } => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, &reason)
            .with("outcome", "failed")
            .with("step", step)
            .with("reason", reason)
            .into_response(),
        ResendOutcome::Running { tx_id } => {
            let body = json!({"outcome": "running", "txId": tx_id});
            let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
            let trace = message_id.map(|id| format!("/api/v1/messages/{}", utf8_percent_encode(&id, NON_ALPHANUMERIC)));
            if let Some(location) = trace.and_then(|trace| HeaderValue::from_str(&trace).ok()) {
                response.headers_mut().insert(LOCATION, location);
            }
            response
        }
        ResendOutcome::Claimed { who, since } => {
            Problem::new(StatusCode::CONFLICT, format!("{who} has been resending it since {since}"))
                .effect(Effect::None)
                .with("outcome", "claimed")
                .with("who", who)
                .with("since", since)
                .into_response()
        }
        ResendOutcome::Refused { reason } => Problem::new(StatusCode::CONFLICT, &reason)
            .effect(Effect::None)
            .with("outcome", "refused")
            .with("reason", reason)
            .into_response(),
        // It went between two looks.
        ResendOutcome::NotFound => {
            not_found(format!("there is no message {key} in slot {slot} any more")).into_response()
        }
    }
}
