//! Large messages that are shown: as many as there is room for, until their clients have read them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::Console;
use crate::inbound::problem::{Effect, Problem};
use crate::model::{MessageKey, SlotId};
use crate::relay::{Occupied, Room};
use crate::store::{FullMessage, StoreError};

/// How long a request waits for room among other answers, and then among what is processed.
const ROOM_BOUND: Duration = Duration::from_secs(5);
/// An answer is no larger than so many times its body, and what stands beside it.
const ANSWER: usize = 2;
/// What stands beside a body, mostly.
const BESIDE: usize = 4096;

/// A row with its body, in room of its own; `None`: there is no such row any more.
///
/// While it is read and written it stands in memory several times, as what is processed does, and shares room with that. What
/// is left of it then takes room among answers only: however slowly a client reads, it holds up nobody who processes.
pub(super) async fn show(
    console: &Console,
    slot: &SlotId,
    key: MessageKey,
    bytes: usize,
) -> Result<Option<Response>, Problem> {
    let answers = room_in_time(&console.answers, bytes.saturating_mul(ANSWER)).await?;
    let _at_work = room_in_time(&console.room, bytes).await?;
    let Some(found) = console.store.stored_message(slot, key).await? else { return Ok(None) };
    answer(&found, answers).map(Some)
}

/// # Errors
/// 503: others have the room.
async fn room_in_time(room: &Room, bytes: usize) -> Result<Occupied, Problem> {
    room.take_within(bytes, ROOM_BOUND).await.ok_or_else(|| {
        let detail = "messages as large as this one are shown or at work, and leave no room for it now; try again";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).effect(Effect::None)
    })
}

fn answer(message: &FullMessage, room: Occupied) -> Result<Response, Problem> {
    let bodies = [&message.message, &message.message_base64];
    let bytes = bodies.iter().filter_map(|body| body.as_ref()).map(String::len).sum::<usize>();
    let mut json = Vec::with_capacity(bytes.saturating_add(BESIDE));
    serde_json::to_writer(&mut json, message).map_err(|error| StoreError::Unexpected(error.to_string()))?;
    let body = Body::from(Bytes::from_owner(InRoom { json, _room: room }));
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Keeps its room until nothing of it is left to be sent.
struct InRoom {
    json: Vec<u8>,
    _room: Occupied,
}

impl AsRef<[u8]> for InRoom {
    fn as_ref(&self) -> &[u8] {
        &self.json
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::RETRY_AFTER;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_is_told_to_come_again() {
        let room = Room::default();
        let all = room.take(usize::MAX).await;
        assert!(room_in_time(&room, 1000).await.is_ok(), "a small one needs none");
        let refused = room_in_time(&room, 1 << 20).await.map(|_room| ()).unwrap_err().into_response();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(RETRY_AFTER));
        drop(all);
        assert!(room_in_time(&room, 1 << 20).await.is_ok());
    }
}
