//! Stopping in two steps: softly between messages, hard when the bound is over. And tasks that end too early.

mod panics;
mod watched;

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use panics::{caught, log_panics};
pub use watched::{NeededFor, Task, Trouble, Watch, point};

/// After the hard stop: for attempts to end what runs for them in the database, and to say that they do not count.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

/// Handed to everything that runs; tasks are spawned through it only, and those that live as long as the process are watched.
#[derive(Clone, Default)]
pub struct Lifecycle {
    /// Take on nothing new; finish what is in hand.
    pub soft: CancellationToken,
    /// Drop what is in hand.
    pub hard: CancellationToken,
    pub tasks: TaskTracker,
    pub watch: Watch,
}

impl Lifecycle {
    /// Spawns a task that goes on until the soft stop, and begins anew when it ends before.
    pub fn spawn_watched<S: Send + 'static>(
        &self,
        task: Task,
        mut state: S,
        run: impl for<'a> FnMut(&'a mut S) -> BoxFuture<'a, ()> + Send + 'static,
    ) {
        let (watch, soft) = (self.watch.clone(), self.soft.clone());
        self.tasks.spawn(async move { watch.until_stopped(task, &soft, &mut state, run).await });
    }

    /// Cancels softly, waits at most `bound` for the tasks, then cancels hard and waits for their last words.
    /// Answers whether everything had ended within the bound.
    pub async fn stop(&self, bound: Duration) -> bool {
        self.soft.cancel();
        self.tasks.close();
        let in_time = tokio::time::timeout(bound, self.tasks.wait()).await.is_ok();
        self.hard.cancel();
        if !in_time {
            let _ended = tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await;
        }
        in_time
    }
}
