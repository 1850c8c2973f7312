//! Room for large bodies at work: what is written to a database or published stands in memory two or three times.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of bodies that may be at work at once, each in several copies.
const BYTES: usize = 32 << 20;
/// Up to this a body needs no room: how many of them are at work is bounded otherwise, and they cost little.
pub const SMALL: usize = 256 << 10;

/// One for all of a process that process or publish what waits, or read it to show it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

/// Room that is taken until this and its clones are dropped. Nobody may wait for anything that waits for room while he has some.
#[derive(Debug, Clone, Default)]
#[must_use = "dropped at once, it takes no room"]
pub struct Occupied(Option<Arc<OwnedSemaphorePermit>>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BYTES)))
    }
}

impl Room {
    /// Waits for room for so many bytes, in turn. What is larger than all of it goes alone.
    pub async fn take(&self, bytes: usize) -> Occupied {
        if bytes <= SMALL {
            return Occupied::default();
        }
        let permits = u32::try_from(bytes.min(BYTES)).unwrap_or(u32::MAX);
        // It is never closed.
        Occupied(self.0.clone().acquire_many_owned(permits).await.ok().map(Arc::new))
    }

    /// The same, for whoever has others to look after: `None` when there was none within so long.
    pub async fn take_within(&self, bytes: usize, bound: Duration) -> Option<Occupied> {
        tokio::time::timeout(bound, self.take(bytes)).await.ok()
    }

    /// Bytes that are taken now.
    #[must_use]
    pub fn taken(&self) -> usize {
        BYTES.saturating_sub(self.0.available_permits())
    }
}

impl Occupied {
    /// To be kept by whoever holds the body longer.
    pub(super) fn kept(self) -> Option<Arc<OwnedSemaphorePermit>> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn taken(room: &Room, bytes: usize) -> Option<Occupied> {
        room.take(bytes).now_or_never()
    }

    #[test]
    fn large_bodies_share_the_room_and_what_is_larger_than_it_goes_alone() {
        let room = Room::default();
        let (one, other) = (taken(&room, BYTES / 2).unwrap(), taken(&room, BYTES / 2));
        assert!(other.is_some() && taken(&room, SMALL + 1).is_none());
        assert_eq!(room.taken(), BYTES);
        drop(one);
        assert_eq!(room.taken(), BYTES / 2);
        assert!(taken(&room, 10 * BYTES).is_none());
        drop(other);
        let alone = taken(&room, 10 * BYTES);
        assert!(alone.is_some() && taken(&room, SMALL + 1).is_none());
    }

    #[test]
    fn small_ones_wait_for_nobody() {
        let room = Room::default();
        let _all = taken(&room, BYTES).unwrap();
        assert!(taken(&room, SMALL).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_no_longer_takes_nothing_and_keeps_nobody_waiting() {
        let (room, bound) = (Room::default(), Duration::from_secs(5));
        let all = room.take(BYTES).await;
        assert!(room.take_within(SMALL, bound).await.is_some(), "a small one needs none");
        assert!(room.take_within(BYTES, bound).await.is_none());
        drop(all);
        assert_eq!(room.taken(), 0);
        assert!(taken(&room, BYTES).is_some());
    }
}
