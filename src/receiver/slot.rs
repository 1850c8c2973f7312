//! The places of one receiver: at work, and in line for being tried alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::left::Left;
use super::worker::DeliveryEnd;
use crate::lifecycle::{LAST_WORDS, Lifecycle, caught};
use crate::relay::{Occupied, Room};

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

    /// Waits for room for a body of so many bytes while it is at work. Nothing: its session is over.
    pub async fn room(&self, room: &Room, bytes: usize) -> Option<Occupied> {
        self.over.run_until_cancelled(room.take(bytes)).await
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
    waiting: AtomicUsize,
    places: AtomicUsize,
    turn: Mutex<()>,
}

/// A place in line, until it is dropped.
pub struct InLine<'l>(&'l Line);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Line {
    /// Of a receiver that asks for so many in advance.
    pub fn new(prefetch: usize) -> Self {
        let line = Self { waiting: AtomicUsize::new(0), places: AtomicUsize::new(1), turn: Mutex::default() };
        line.follow(prefetch);
        line
    }

    /// So many are asked for in advance from now on. Not more of them than half wait in line: others come by.
    pub fn follow(&self, prefetch: usize) {
        self.places.store((prefetch / 2).max(1), Ordering::Relaxed);
    }

    /// A place in line, if there is one.
    pub fn place(&self) -> Option<InLine<'_>> {
        let places = self.places.load(Ordering::Relaxed);
        let one_more = |waiting| (waiting < places).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_before| InLine(self))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_is_asked_for_may_wait_in_line() {
        let line = Line::new(1);
        let first = line.place();
        assert!(first.is_some() && line.place().is_none());
        line.follow(4);
        let second = line.place();
        assert!(second.is_some() && line.place().is_none());
        drop(first);
        assert!(line.place().is_some());
        line.follow(1);
        assert!(line.place().is_none());
        drop(second);
        assert!(line.place().is_some());
    }
}
