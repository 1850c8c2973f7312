//! The way of messages that are processed in this process, from the sweeper to their receiver: bounded by number and by bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::store::Claimed;

/// Messages that may wait for a receiver.
const WAITING: usize = 64;
/// Bytes of their bodies, those at work among them. One that is larger goes alone.
const BYTES: usize = 8 << 20;

/// A message that was claimed for processing in process. As long as it is kept it takes its room.
#[derive(Debug)]
pub struct Direct {
    pub message: Claimed,
    _room: OwnedSemaphorePermit,
}

/// Where a receiver's messages are handed to it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Route {
    sender: mpsc::Sender<Direct>,
    room: Arc<Semaphore>,
}

/// Room for one message.
#[derive(Debug)]
pub(super) struct Place {
    place: mpsc::OwnedPermit<Direct>,
    room: OwnedSemaphorePermit,
}

impl Route {
    pub(super) fn new() -> (Self, mpsc::Receiver<Direct>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender, room: Arc::new(Semaphore::new(BYTES)) }, receiver)
    }

    /// A place for a body of so many bytes, if there is one now.
    pub(super) fn place(&self, bytes: usize) -> Option<Place> {
        let permits = u32::try_from(bytes.min(BYTES)).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(permits).ok()?;
        Some(Place { place: self.sender.clone().try_reserve_owned().ok()?, room })
    }
}

impl Place {
    pub(super) fn put(self, message: Claimed) {
        let _sender = self.place.send(Direct { message, _room: self.room });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_receiver_is_bounded_by_number_and_by_bytes() {
        let (route, _receiver) = Route::new();
        let small: Vec<Place> = std::iter::from_fn(|| route.place(1)).collect();
        assert_eq!(small.len(), WAITING);
        drop(small);
        let half = route.place(BYTES / 2).unwrap();
        assert!(route.place(BYTES).is_none());
        drop(half);
        let large = route.place(10 * BYTES);
        assert!(large.is_some() && route.place(1).is_none());
    }
}
