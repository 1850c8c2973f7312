//! The places of one receiver: at work, and in line for being tried alone.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::left::Left;
use super::worker::DeliveryEnd;
use crate::lifecycle::{LAST_WORDS, Lifecycle, caught};

/// A place at work. Who waits for his turn gives it up: it is others' meanwhile.
pub struct Slot {
    permits: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    over: CancellationToken,
}

impl Slot {
    pub fn leave(&mut self) {
        self.held = None;
    }

    /// Waits for a place, unless one is held. `false`: its session is over, and nothing is begun any more.
    pub async fn enter(&mut self) -> bool {
        if self.held.is_none() {
            let place = self.permits.clone().acquire_owned();
            self.held = self.over.run_until_cancelled(place).await.and_then(Result::ok);
        }
        self.held.is_some()
    }

    /// Waits for its turn, and then for a place. Nothing: its session is over.
    pub async fn turn<'l>(&mut self, line: &'l Line) -> Option<MutexGuard<'l, ()>> {
        let turn = self.over.run_until_cancelled(line.turn.lock()).await?;
        self.enter().await.then_some(turn)
    }
}

/// Messages that a process may have died of, and those that fail as if the database were in trouble: one at a time, so
/// that no other is blamed, beside all that is well.
pub struct Line {
    places: Semaphore,
    turn: Mutex<()>,
}

impl Line {
    /// Not more of them than half of what is delivered: others come by.
    pub fn new(prefetch: usize) -> Self {
        Self { places: Semaphore::new((prefetch / 2).max(1)), turn: Mutex::default() }
    }

    /// A place in line, if there is one.
    pub fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.try_acquire().ok()
    }
}

/// What a session's messages are worked on with. Cheap to clone.
#[derive(Clone)]
pub struct Hand {
    pub permits: Arc<Semaphore>,
    pub lifecycle: Lifecycle,
    /// One word is enough: the session ends with it.
    pub trouble: mpsc::Sender<Left>,
    /// The session takes nothing more: who has not begun does not begin.
    pub over: CancellationToken,
}

impl Hand {
    pub fn slot(&self, held: Option<OwnedSemaphorePermit>) -> Slot {
        Slot { permits: self.permits.clone(), held, over: self.over.clone() }
    }

    /// Works in a task of its own. After a hard stop it has its last words; then it is dropped, and its transaction with
    /// it. A panic ends the session: what it held unsettled would occupy its place for ever.
    pub fn spawn(&self, work: impl Future<Output = DeliveryEnd> + Send + 'static) {
        let (hard, trouble) = (self.lifecycle.hard.clone(), self.trouble.clone());
        // In a box, so that it is moved as a pointer.
        let work = Box::pin(caught(work));
        let late = async move {
            hard.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        self.lifecycle.tasks.spawn(async move {
            tokio::select! {
                biased;
                end = work => {
                    let end = end.map_or_else(|reason| Err(Left::panicked(&reason)), Left::after);
                    if let Err(left) = end {
                        let _told = trouble.try_send(left).is_ok();
                    }
                }
                () = late => {}
            }
        });
    }
}
