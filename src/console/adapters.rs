//! Adapters: list, start, stop.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

use super::Console;
use super::actor::{Acting, ActionBody, not_found};
use super::filter::{Unfiltered, nearest};
use crate::inbound::problem::Problem;
use crate::model::AdapterName;
use crate::pipeline::{AdapterStatus, ChangeError, Wanted};
use crate::store::Wish;

#[derive(Serialize)]
pub(super) struct Adapters {
    items: Vec<AdapterStatus>,
}

pub(super) async fn list(State(console): State<Console>, _all: Unfiltered) -> Json<Adapters> {
    Json(Adapters { items: console.registry.list() })
}

pub(super) async fn start(
    State(console): State<Console>,
    Path(name): Path<String>,
    acting: Acting,
    body: axum::body::Bytes,
) -> Result<Json<AdapterStatus>, Problem> {
    change(&console, &name, Wanted::Started, acting, &body).await
}

pub(super) async fn stop(
    State(console): State<Console>,
    Path(name): Path<String>,
    acting: Acting,
    body: axum::body::Bytes,
) -> Result<Json<AdapterStatus>, Problem> {
    change(&console, &name, Wanted::Stopped, acting, &body).await
}

/// The wish goes on record first, so that it outlives this process; then the state is waited for.
async fn change(
    console: &Console,
    name: &str,
    wanted: Wanted,
    mut acting: Acting,
    body: &[u8],
) -> Result<Json<AdapterStatus>, Problem> {
    ActionBody::parse(body)?.complete(&mut acting);
    let adapter = AdapterName::new(name);
    if console.registry.get(&adapter).is_none() {
        return Err(no_adapter(console, name));
    }
    let wish = match wanted {
        Wanted::Started => Wish::Started,
        Wanted::Stopped => Wish::Stopped,
    };
    let actor = &acting.actor;
    let _changing = console.registry.changing();
    console.store.wish_adapter(&adapter, wish, &actor.who, actor.why.as_deref()).await?;
    match console.registry.change(&adapter, wanted, Timestamp::now()).await {
        Ok(status) => Ok(Json(status)),
        Err(ChangeError::Unknown(name)) => Err(no_adapter(console, &name)),
        Err(ChangeError::Slow(status)) => {
            let detail = ChangeError::Slow(status.clone()).to_string();
            let problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, detail);
            Err(problem.with("state", status.state).with("since", status.since).with("reason", status.reason))
        }
    }
}

fn no_adapter(console: &Console, name: &str) -> Problem {
    let adapters = console.registry.list();
    let near = nearest(name, adapters.iter().map(|adapter| adapter.name.as_str()));
    let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    not_found(format!("there is no adapter {name:?}{hint}")).with("nearest", near)
}
