//! Known ids that came again with another body.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;

use super::Console;
use super::actor::{bad, slot_id};
use super::filter::{page_limit, query_words};
use super::slots::refuse_unknown;
use crate::inbound::problem::Problem;
use crate::store::{Conflict, ConflictCursor, ConflictFilter};

const WORDS: &[&str] = &["slotId", "id", "limit", "cursor", "as"];

#[derive(Serialize)]
pub(super) struct Conflicts {
    items: Vec<Conflict>,
    /// Hand it back as `cursor`; null: this was the last page.
    next: Option<String>,
}

pub(super) async fn list(State(console): State<Console>, uri: Uri) -> Result<Json<Conflicts>, Problem> {
    let mut words = query_words(&uri, WORDS)?;
    let limit = page_limit(&mut words)?;
    let cursor = match words.remove("cursor") {
        None => None,
        Some(text) => Some(
            ConflictCursor::decode(&text).ok_or_else(|| bad("cursor is not one of mine; start again without it"))?,
        ),
    };
    let slot = words.remove("slotId").map(|slot| slot_id(&slot)).transpose()?;
    let id = words.remove("id");
    if id.as_ref().is_some_and(|id| id.contains('\0')) {
        return Err(bad("id holds a NUL character"));
    }
    let filter = ConflictFilter { slot, id };
    let (items, next) = console.store.browse_conflicts(&filter, cursor, limit).await?;
    if let (true, Some(slot)) = (items.is_empty(), &filter.slot) {
        refuse_unknown(&console, slot).await?;
    }
    Ok(Json(Conflicts { items, next: next.map(|cursor| cursor.encode()) }))
}
