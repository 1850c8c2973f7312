//! How many groups are at work at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Pace;
use super::pace::{Lane, Turn};

/// While one group is at work the next one gathers. With two, both were half as large: 14 % more of PostgreSQL's CPU.
const LANES: usize = 1;
/// How long a lane is waited for before messages go past.
const STALLED: Duration = Duration::from_millis(100);

/// The lanes of one receiver.
pub struct Lanes {
    free: Arc<Semaphore>,
    pace: Arc<Pace>,
    /// A lane was waited for in vain, and none was free since.
    stalled: bool,
}

impl Lanes {
    pub fn new(pace: Arc<Pace>) -> Self {
        Self { free: Arc::new(Semaphore::new(LANES)), pace, stalled: false }
    }

    /// A lane for a group of so many at most, or nothing for a message that is better off alone.
    pub async fn take(&mut self, size: usize) -> Option<(OwnedSemaphorePermit, usize)> {
        let free = self.free.clone().try_acquire_owned().ok();
        let lane = match (&free, self.stalled) {
            (Some(_), _) => Lane::Free,
            (None, false) => Lane::Busy,
            (None, true) => Lane::Stalled,
        };
        self.stalled = lane == Lane::Stalled;
        match self.pace.turn(lane) {
            Turn::Alone => None,
            Turn::Group => Some((free?, size)),
            Turn::Try => Some((free?, self.pace.tried().min(size))),
            Turn::Wait => {
                let lane = tokio::time::timeout(STALLED, self.free.clone().acquire_owned()).await;
                self.stalled = lane.is_err();
                Some((lane.ok()?.ok()?, size))
            }
        }
    }
}
