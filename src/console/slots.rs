//! Which slots there are: those that receivers claim, and those that hold a message.

use super::Console;
use super::actor::not_found;
use super::filter::nearest;
use crate::inbound::problem::Problem;
use crate::model::{MessageKey, SlotId};

/// Ask it when nothing was found: a mistyped slot must not look like an empty one.
///
/// # Errors
/// 404 with the nearest name when nobody claims the slot and nothing is in it.
pub(super) async fn refuse_unknown(console: &Console, slot: &SlotId) -> Result<(), Problem> {
    if console.slots.iter().any(|claimed| claimed.slot_id == *slot) {
        return Ok(());
    }
    let stored = console.store.slots().await?;
    if stored.contains(slot) {
        return Ok(());
    }
    let claimed = console.slots.iter().map(|claimed| &claimed.slot_id);
    let near = nearest(slot.as_str(), claimed.chain(&stored).map(SlotId::as_str));
    let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    let detail = format!("there is no slot {:?}: no receiver has it, and it holds nothing{hint}", slot.as_str());
    Err(not_found(detail).with("nearest", near))
}

/// Why there is no such row: its slot may be none, too.
pub(super) async fn no_row(console: &Console, slot: &SlotId, key: MessageKey) -> Problem {
    match refuse_unknown(console, slot).await {
        Ok(()) => not_found(format!("there is no message {key} in slot {slot}")),
        Err(problem) => problem,
    }
}
