//! Stopping in two steps: softly between messages, hard when the bound is over.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Handed to everything that runs; tasks are spawned through it only.
#[derive(Clone, Default)]
pub struct Lifecycle {
    /// Take on nothing new; finish what is in hand.
    pub soft: CancellationToken,
    /// Drop what is in hand.
    pub hard: CancellationToken,
    pub tasks: TaskTracker,
}

impl Lifecycle {
    /// Cancels softly, waits at most `bound` for the tasks, then cancels hard and waits a second more.
    /// Answers whether everything had ended within the bound.
    pub async fn stop(&self, bound: Duration) -> bool {
        self.soft.cancel();
        self.tasks.close();
        let in_time = tokio::time::timeout(bound, self.tasks.wait()).await.is_ok();
        self.hard.cancel();
        if !in_time {
            let _ended = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        }
        in_time
    }
}
