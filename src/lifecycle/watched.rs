//! Tasks that live as long as the process. One that panics, or ends though nobody has told it to, begins anew after a pause
//! that grows; it is counted, told in the log, and `/readyz` knows. A task that hangs is told only: whether it is late or the
//! machine is slow nobody here can know, and nothing is built on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::panics::caught;

/// Before a task begins anew: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A task that has lived so long begins with the shortest pause again.
const STABLE: Duration = Duration::from_secs(60);
/// What keeps a task from its work is told when it has lasted so long.
const HELD_UP: Duration = Duration::from_secs(2);
/// A task that began anew is well when it has lived as long as the pause before it, and no less than this.
const STEADY: Duration = Duration::from_secs(1);

/// What suffers while a task is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeededFor {
    Accepting,
    Processing,
    Both,
    /// Neither: it is counted and logged.
    Neither,
}

/// A task that lives as long as the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    name: String,
    needed_for: NeededFor,
    turn_within: Option<Duration>,
}

impl Task {
    #[must_use]
    pub fn new(name: impl Into<String>, needed_for: NeededFor) -> Self {
        Self { name: name.into(), needed_for, turn_within: None }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// It tells each of its [turns](Watch::turn), and one takes no longer: several times what the time-outs of what it waits
    /// for add up to.
    #[must_use]
    pub fn turns_within(self, bound: Duration) -> Self {
        Self { turn_within: Some(bound), ..self }
    }
}

/// A task that is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub needed_for: NeededFor,
    /// For people.
    pub what: String,
    pub since: Timestamp,
}

/// Knows how each task is. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<BTreeMap<String, Health>>>);

#[derive(Debug)]
struct Health {
    task: Task,
    /// Its last turn, or when it began.
    turned: (Instant, Timestamp),
    ended: Option<Ended>,
    /// What keeps it from its work, and since when.
    held_up: Option<(String, Instant, Timestamp)>,
}

/// It has ended too early, and was not well since.
#[derive(Debug)]
struct Ended {
    since: Timestamp,
    reason: String,
    /// When it is well if it lives until then; `None`: it has not begun anew.
    well_at: Option<Instant>,
}

impl Watch {
    /// Runs a task until the stop. `state` is what outlives a run of it.
    pub async fn until_stopped<S>(
        &self,
        task: Task,
        stop: &CancellationToken,
        state: &mut S,
        run: impl for<'a> FnMut(&'a mut S) -> BoxFuture<'a, ()>,
    ) {
        let well = |()| if stop.is_cancelled() { Ok(()) } else { Err("it has come to its end".to_owned()) };
        let _stopped = self.again(task, stop, state, run, well).await;
    }

    /// Runs a task until it comes to its end. `None`: it has panicked during the stop.
    pub async fn until_done<S, T>(
        &self,
        task: Task,
        stop: &CancellationToken,
        state: &mut S,
        run: impl for<'a> FnMut(&'a mut S) -> BoxFuture<'a, T>,
    ) -> Option<T> {
        self.again(task, stop, state, run, Ok).await
    }

    async fn again<S, T>(
        &self,
        task: Task,
        stop: &CancellationToken,
        state: &mut S,
        mut run: impl for<'a> FnMut(&'a mut S) -> BoxFuture<'a, T>,
        well: impl Fn(T) -> Result<T, String>,
    ) -> Option<T> {
        let restarts = metrics::counter!("posthaste_task_restarts_total", "task" => task.name.clone());
        let name = task.name.clone();
        restarts.absolute(0);
        let mut pause = FIRST_PAUSE;
        self.begins(task);
        loop {
            let began = Instant::now();
            // In a block: what makes the future may panic, too.
            let ended = caught(async { run(&mut *state).await }).await;
            let reason = match ended.and_then(&well) {
                Ok(end) => {
                    self.lock().remove(&name);
                    return Some(end);
                }
                Err(reason) => reason,
            };
            if began.elapsed() >= STABLE {
                pause = FIRST_PAUSE;
            }
            self.has_ended(&name, &reason);
            tracing::error!(task = name, reason, ?pause, "a task has ended too early; it begins anew after a pause");
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                self.lock().remove(&name);
                return None;
            }
            restarts.increment(1);
            self.begins_anew(&name, pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A task has come round: it does not hang.
    pub fn turn(&self, task: &str) {
        point(task);
        if let Some(health) = self.lock().get_mut(task) {
            health.turned = now();
        }
    }

    /// A task says what keeps it from its work, and when nothing does any more. In `/readyz` it is told once it has lasted
    /// for two seconds.
    pub fn held_up(&self, task: &str, by: Option<String>) {
        if let Some(health) = self.lock().get_mut(task) {
            let (instant, shown) = now();
            health.held_up = by.map(|by| (by, instant, shown));
        }
    }

    /// Tasks that are not well.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        self.lock().values().filter_map(Health::trouble).collect()
    }

    fn begins(&self, task: Task) {
        self.lock().insert(task.name.clone(), Health { task, turned: now(), ended: None, held_up: None });
    }

    fn has_ended(&self, name: &str, reason: &str) {
        if let Some(health) = self.lock().get_mut(name) {
            let since = health.unwell().map_or_else(Timestamp::now, |ended| ended.since);
            health.ended = Some(Ended { since, reason: reason.to_owned(), well_at: None });
        }
    }

    fn begins_anew(&self, name: &str, pause: Duration) {
        if let Some(health) = self.lock().get_mut(name) {
            health.turned = now();
            health.held_up = None;
            if let Some(ended) = &mut health.ended {
                ended.well_at = Some(Instant::now() + pause.max(STEADY));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Health>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    /// Why, if it has ended and is not well yet.
    fn unwell(&self) -> Option<&Ended> {
        self.ended.as_ref().filter(|ended| ended.well_at.is_none_or(|well_at| Instant::now() < well_at))
    }

    fn trouble(&self) -> Option<Trouble> {
        let Task { name, needed_for, turn_within } = &self.task;
        if let Some(ended) = self.unwell() {
            let what = format!("the task {name} has ended too early and begins anew: {}", ended.reason);
            return Some(Trouble { needed_for: *needed_for, what, since: ended.since });
        }
        if let Some((by, since, shown)) = &self.held_up
            && since.elapsed() >= HELD_UP
        {
            return Some(Trouble { needed_for: *needed_for, what: by.clone(), since: *shown });
        }
        let (turned, since) = self.turned;
        let bound = turn_within.filter(|bound| turned.elapsed() > *bound)?;
        let what = format!("the task {name} hangs: it should come round within {} s", bound.as_secs());
        Some(Trouble { needed_for: *needed_for, what, since })
    }
}

fn now() -> (Instant, Timestamp) {
    (Instant::now(), Timestamp::now())
}

/// Where a test makes a task panic.
#[cfg(not(feature = "faults"))]
#[inline]
pub fn point(_task: &str) {}

#[cfg(feature = "faults")]
pub use armed::point;

#[cfg(feature = "faults")]
mod armed {
    //! `POSTHASTE_FAULT_TASK=<task>`: it panics whenever it comes round, until the file `<task>.go` is in the folder
    //! `POSTHASTE_FAULT_HITS`, where each panic has left the file `<task>`.

    use std::path::PathBuf;
    use std::sync::OnceLock;

    /// Where a test makes a task panic.
    #[expect(clippy::panic, reason = "it is what the test wants")]
    pub fn point(task: &str) {
        static ARMED: OnceLock<Option<(String, PathBuf)>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| {
            let task = std::env::var("POSTHASTE_FAULT_TASK").ok()?;
            Some((task, std::env::var_os("POSTHASTE_FAULT_HITS")?.into()))
        });
        let Some((_, hits)) = armed.as_ref().filter(|(armed, _)| armed == task) else { return };
        if hits.join(format!("{task}.go")).exists() {
            return;
        }
        // A panic that cannot be noted never was, for the test.
        let _noted = std::fs::write(hits.join(task), b"").is_ok();
        panic!("fault injected");
    }
}

#[cfg(test)]
#[path = "watched_tests.rs"]
mod tests;
