//! What a client that hangs up cannot cancel.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Work that is waited for; once it is dropped it goes on in a task of its own, for which a stop waits. So it costs no task
/// as long as somebody waits. `Err`: it has panicked.
#[must_use = "dropped at once, its outcome is nobody's"]
pub(super) struct Finishing<T: Send + 'static> {
    work: Option<BoxFuture<'static, Result<T, Box<dyn Any + Send>>>>,
    tasks: TaskTracker,
}

impl<T: Send + 'static> Finishing<T> {
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static, tasks: TaskTracker) -> Self {
        Self { work: Some(AssertUnwindSafe(work).catch_unwind().boxed()), tasks }
    }
}

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = Result<T, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let ended = work.poll_unpin(cx);
        if ended.is_ready() {
            self.work = None;
        }
        ended
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        // Without a runtime the process is at its end.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            self.tasks.spawn_on(work.map(drop), &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_gets_the_outcome_and_no_task_is_made_for_it() {
        let tasks = TaskTracker::new();
        assert_eq!(Finishing::new(async { 7 }, tasks.clone()).await.unwrap(), 7);
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn dropped_before_its_first_step_or_half_way_it_goes_on_and_a_stop_waits_for_it() {
        for begun in [false, true] {
            let tasks = TaskTracker::new();
            let ((go, gone), (tell, told)) = (oneshot::channel::<()>(), oneshot::channel());
            let work = async {
                gone.await.unwrap();
                tell.send("done").unwrap();
            };
            let mut finishing = Finishing::new(work, tasks.clone());
            if begun {
                assert!((&mut finishing).now_or_never().is_none());
            }
            drop(finishing);
            tasks.close();
            assert_eq!(tasks.len(), 1);
            go.send(()).unwrap();
            tasks.wait().await;
            assert_eq!(told.await, Ok("done"));
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_outcome_and_ends_nobody_else() {
        let tasks = TaskTracker::new();
        let ended = Finishing::new(async { assert!(std::hint::black_box(false), "on purpose") }, tasks.clone()).await;
        assert_eq!(ended.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
        assert!(tasks.is_empty());
    }
}
