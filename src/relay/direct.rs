//! The way of messages that are processed in this process, from the sweeper to their receiver: bounded by number and by bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;

use super::publish::lock;
use super::turns::Turns;
use crate::model::TxId;
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
    turns: Arc<Mutex<Turns>>,
}

/// Room for one message.
#[derive(Debug)]
pub(super) struct Place {
    place: mpsc::OwnedPermit<Direct>,
    room: OwnedSemaphorePermit,
}

/// Why there is no place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    Bytes,
    Number,
}

/// What became of rows that want a place.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub found: BTreeMap<TxId, Place>,
    /// Their turn comes as soon as there is room.
    pub soon: Vec<Uuid>,
    pub later: Vec<Uuid>,
}

impl Route {
    pub(super) fn new() -> (Self, mpsc::Receiver<Direct>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let room = Arc::new(Semaphore::new(BYTES));
        (Self { sender, room, turns: Arc::default() }, receiver)
    }

    /// Places for rows with bodies of so many bytes, in the order in which they are due. Where one finds no room for its
    /// bytes nobody gets any before it: what others leave adds up for it.
    pub(super) fn places(&self, mut rows: Vec<(TxId, usize)>, now: Instant) -> Places {
        let (mut turns, mut places) = (lock(&self.turns), Places::default());
        turns.order(&mut rows, now);
        for (tx_id, bytes) in rows {
            let place = if turns.is_next(tx_id) { self.place(bytes) } else { Err(Full::Bytes) };
            let has_turn = match place {
                Ok(place) => {
                    turns.placed(tx_id);
                    places.found.insert(tx_id, place);
                    continue;
                }
                Err(Full::Bytes) => turns.refused(tx_id, now),
                // Of these places each fits all.
                Err(Full::Number) => turns.has(tx_id),
            };
            if has_turn { places.soon.push(tx_id.0) } else { places.later.push(tx_id.0) }
        }
        places
    }

    /// A place for a body of so many bytes, if there is one now.
    fn place(&self, bytes: usize) -> Result<Place, Full> {
        let permits = u32::try_from(bytes.min(BYTES)).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(permits).map_err(|_full| Full::Bytes)?;
        Ok(Place { place: self.sender.clone().try_reserve_owned().map_err(|_full| Full::Number)?, room })
    }
}

impl Places {
    /// With those of another route.
    pub(super) fn add(&mut self, mut other: Self) {
        self.found.append(&mut other.found);
        self.soon.append(&mut other.soon);
        self.later.append(&mut other.later);
    }
}

impl Place {
    pub(super) fn put(self, message: Claimed) {
        let _sender = self.place.send(Direct { message, _room: self.room });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_waits_for_a_receiver_is_bounded_by_number_and_by_bytes() {
        let (route, _receiver) = Route::new();
        let small: Vec<Place> = std::iter::from_fn(|| route.place(1).ok()).collect();
        assert_eq!(small.len(), WAITING);
        assert_eq!(route.place(1).unwrap_err(), Full::Number);
        drop(small);
        let half = route.place(BYTES / 2).unwrap();
        assert_eq!(route.place(BYTES).unwrap_err(), Full::Bytes);
        drop(half);
        let large = route.place(10 * BYTES);
        assert!(large.is_ok());
        assert_eq!(route.place(1).unwrap_err(), Full::Bytes);
    }

    #[test]
    fn a_large_one_finds_room_under_a_steady_flow_of_small_ones() {
        let (route, _receiver) = Route::new();
        let (large, begin, mut at_work) = (TxId::mint(), Instant::now(), VecDeque::new());
        // What has a place is at work for two rounds, and in each there are small ones that are due before the large one.
        let found = (0..20).position(|round| {
            let rows = vec![(TxId::mint(), 1000), (TxId::mint(), 1000), (large, 2 * BYTES)];
            let places = route.places(rows, begin + round * Duration::from_millis(100));
            let found = places.found.contains_key(&large);
            at_work.push_back(places.found);
            if at_work.len() > 2 {
                at_work.pop_front();
            }
            found
        });
        assert!(found.is_some_and(|round| round > 0), "{found:?}");
    }

    #[test]
    fn who_waited_longest_goes_first_and_small_ones_are_not_forgotten() {
        let (route, _receiver) = Route::new();
        let wanted = [BYTES, BYTES / 2, 1000, 3 * BYTES].map(|bytes| (TxId::mint(), bytes));
        let now = Instant::now();
        let small = route.places(vec![(TxId::mint(), 1000)], now).found;
        let refused = route.places(wanted.to_vec(), now);
        assert!(refused.found.is_empty() && refused.later.is_empty());
        assert_eq!(refused.soon, wanted.map(|(tx_id, _)| tx_id.0));
        drop(small);
        let mut again = wanted.to_vec();
        again.reverse();
        let first = route.places(again.clone(), now).found;
        assert_eq!(first.keys().collect::<Vec<_>>(), [&wanted[0].0]);
        drop(first);
        again.pop();
        let next = route.places(again, now);
        assert!(next.found.len() == 2 && next.soon == [wanted[3].0.0], "{next:?}");
    }

    #[test]
    fn for_who_finds_no_place_by_number_the_others_do_not_wait() {
        let (route, _receiver) = Route::new();
        let rows = |count: usize| (0..count).map(|_| (TxId::mint(), 1)).collect();
        let full = route.places(rows(WAITING + 5), Instant::now());
        assert_eq!((full.found.len(), full.soon.len(), full.later.len()), (WAITING, 0, 5));
        drop(full);
        assert_eq!(route.places(rows(1), Instant::now()).found.len(), 1);
    }
}
