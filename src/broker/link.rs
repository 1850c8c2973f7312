//! One connection, kept alive: connect, watch, reconnect after a pause that grows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use lapin::Event;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{WITNESS, news};
use super::connection::{CallError, Handle, Purpose, connect};
use super::endpoint::Endpoint;
use super::guard::Guard;
use crate::lifecycle::{NeededFor, Task, Watch, point};
use crate::model::Seldom;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that lived this long was a good one: the next pause is short again.
const STABLE: Duration = Duration::from_secs(5);
/// The state is looked at this often besides the library's events, which do not cover every end.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// What the connections and lanes of one broker run on. They are not among the lifecycle's tasks: those who publish and
/// consume are, a graceful stop waits for them, and the connections must outlive them.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) tasks: TaskTracker,
    pub(super) hard: CancellationToken,
    pub(super) watch: Watch,
}

/// The state of one connection, as everyone may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStatus {
    Up,
    /// Connected, but the broker takes no messages: a memory or disk alarm.
    Blocked {
        reason: Arc<str>,
        since: Instant,
    },
    Down {
        reason: Arc<str>,
        since: Instant,
    },
}

/// The same with the connection in it.
#[derive(Clone)]
pub(super) enum Link {
    Up(Handle),
    Blocked { reason: Arc<str>, since: Instant },
    Down { reason: Arc<str>, since: Instant },
}

/// What is said of a connection that has ended before its supervisor has looked.
const ENDED: &str = "the connection has just ended";

impl Link {
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Up(handle) if handle.alive())
    }

    pub(super) fn status(&self) -> LinkStatus {
        match self {
            Self::Up(handle) if handle.alive() => LinkStatus::Up,
            Self::Up(_) => LinkStatus::Down { reason: ENDED.into(), since: Instant::now() },
            Self::Blocked { reason, since } => LinkStatus::Blocked { reason: reason.clone(), since: *since },
            Self::Down { reason, since } => LinkStatus::Down { reason: reason.clone(), since: *since },
        }
    }
}

/// Looks at one connection as it comes and goes.
#[derive(Clone)]
pub(super) struct LinkWatch {
    state: watch::Receiver<Link>,
    stop: CancellationToken,
    ups: Arc<AtomicU64>,
}

impl LinkWatch {
    pub(super) fn current(&self) -> Link {
        self.state.borrow().clone()
    }

    pub(super) fn status(&self) -> LinkStatus {
        self.state.borrow().status()
    }

    pub(super) fn is_up(&self) -> bool {
        self.state.borrow().is_up()
    }

    /// How often it has come up, or has been unblocked: what was not answered before is not to be expected any more.
    pub(super) fn ups(&self) -> u64 {
        self.ups.load(Ordering::Relaxed)
    }

    /// The connection, or why there is none.
    pub(super) fn handle(&self) -> Result<Handle, CallError> {
        match &*self.state.borrow() {
            Link::Up(handle) if handle.alive() => Ok(handle.clone()),
            Link::Up(_) => Err(CallError::Down(ENDED.into())),
            Link::Blocked { reason, .. } | Link::Down { reason, .. } => Err(CallError::Down(reason.clone())),
        }
    }

    /// Waits until the state is `wanted`; false: the supervisor has ended and it never will be.
    pub(super) async fn until(&mut self, wanted: impl FnMut(&Link) -> bool) -> bool {
        self.state.wait_for(wanted).await.is_ok()
    }

    /// Ends the supervisor, which closes the connection.
    pub(super) fn close(&self) {
        self.stop.cancel();
    }
}

/// Starts to keep a connection alive, until it is closed, nobody looks any more, or the hard stop. With a guard nothing goes
/// over it before the guard has compared the broker with the home.
pub(super) fn supervise(endpoint: Endpoint, purpose: Purpose, guard: Option<Guard>, ground: &Ground) -> LinkWatch {
    let (sender, state) = watch::channel(Link::Down { reason: "not connected yet".into(), since: Instant::now() });
    let (stop, ups) = (ground.hard.child_token(), Arc::<AtomicU64>::default());
    let needed_for = match purpose {
        Purpose::Publish => NeededFor::Accepting,
        Purpose::Consume => NeededFor::Processing,
    };
    let name = format!("connection {} {}", endpoint.name, purpose.as_str());
    let task = Task::new(name.clone(), needed_for);
    let supervisor =
        Supervisor { name, endpoint, purpose, sender, stop: stop.clone(), ups: ups.clone(), told: Mutex::default() };
    let (watch, token) = (ground.watch.clone(), stop.clone());
    ground.tasks.spawn(async move {
        let mut guarded = (supervisor, guard);
        let _closed = watch.until_done(task, &token, &mut guarded, |(one, guard)| one.begin(guard).boxed()).await;
    });
    LinkWatch { state, stop, ups }
}

pub(super) struct Supervisor {
    name: String,
    endpoint: Endpoint,
    purpose: Purpose,
    sender: watch::Sender<Link>,
    stop: CancellationToken,
    ups: Arc<AtomicU64>,
    /// Why there is no connection: what was told since there was one.
    told: Mutex<Seldom>,
}

impl Supervisor {
    /// After a panic there may be a connection that nobody looks after: it is given up.
    async fn begin(&self, guard: &mut Option<Guard>) {
        let left = self.sender.borrow().clone();
        match left {
            Link::Up(handle) => {
                handle.hang_up();
                self.down("its task has ended early".into());
            }
            Link::Blocked { .. } | Link::Down { .. } => {}
        }
        self.run(guard).await;
    }

    async fn run(&self, guard: &mut Option<Guard>) {
        let mut pause = Pause::default();
        while !self.stopping() {
            let connecting = tokio::select! {
                () = self.stopped() => break,
                connecting = connect(&self.endpoint, self.purpose) => connecting,
            };
            match connecting {
                Ok(handle) => {
                    let began = Instant::now();
                    if self.admits(&handle, guard.as_mut()).await {
                        self.watch(&handle, guard.as_mut()).await;
                    }
                    if began.elapsed() >= STABLE {
                        pause = Pause::default();
                    }
                }
                Err(error) => self.down(explain(&error)),
            }
            tokio::select! {
                () = self.stopped() => {}
                () = tokio::time::sleep(pause.next()) => {}
            }
        }
        tracing::info!(amqp.connection = %self.endpoint.name, amqp.purpose = self.purpose.as_str(), "closed");
        self.say_down("closed".into());
    }

    fn stopping(&self) -> bool {
        self.stop.is_cancelled() || self.sender.is_closed()
    }

    pub(super) async fn stopped(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.sender.closed() => {}
        }
    }

    /// Publishes what becomes of a connection, until it ends or is to be closed.
    async fn watch(&self, handle: &Handle, guard: Option<&mut Guard>) {
        tracing::info!(amqp.connection = %self.endpoint.name, amqp.purpose = self.purpose.as_str(), "connected");
        let mut events = std::pin::pin!(handle.events());
        let mut look = tokio::time::interval(LOOK);
        let mut witness = tokio::time::interval_at(tokio::time::Instant::now() + WITNESS, WITNESS);
        // One of the two sees to it.
        let mut guard = guard.filter(|_| self.purpose == Purpose::Consume);
        let mut last = None;
        self.up(handle);
        while handle.alive() {
            point(&self.name);
            tokio::select! {
                () = self.stopped() => return handle.close().await,
                () = handle.until_given_up() => {}
                _ = look.tick() => {}
                changed = news(guard.as_deref_mut(), &mut witness) => {
                    if let Some(guard) = &mut guard && !self.agrees(handle, guard, changed).await {
                        return handle.close().await;
                    }
                }
                Some(event) = events.next() => self.on_event(event, handle, &mut last),
            }
        }
        handle.hang_up();
        while let Some(Some(event)) = events.next().now_or_never() {
            self.on_event(event, handle, &mut last);
        }
        let reason = handle.given_up().map(Arc::from).or(last);
        self.down(reason.unwrap_or_else(|| "the connection was closed".into()));
    }

    fn on_event(&self, event: Event, handle: &Handle, last: &mut Option<Arc<str>>) {
        match event {
            Event::ConnectionBlocked(reason) => {
                tracing::warn!(amqp.connection = %self.endpoint.name, reason, "the broker takes no messages");
                self.sender.send_replace(Link::Blocked { reason: reason.into(), since: Instant::now() });
            }
            Event::ConnectionUnblocked if handle.alive() => {
                tracing::info!(amqp.connection = %self.endpoint.name, "the broker takes messages again");
                self.up(handle);
            }
            Event::Error(error) => *last = Some(error.to_string().into()),
            // It has ended since, or these change nothing here.
            Event::ConnectionUnblocked | Event::Connected | Event::SendFlow(_) => {}
            // The library's enum is open: what later versions add.
            _ => tracing::debug!(amqp.connection = %self.endpoint.name, ?event, "an event that is not known here"),
        }
    }

    fn up(&self, handle: &Handle) {
        self.told().forget();
        self.ups.fetch_add(1, Ordering::Relaxed);
        self.sender.send_replace(Link::Up(handle.clone()));
    }

    /// Says why there is no connection, and logs it: once in a while, however often it is tried.
    pub(super) fn down(&self, reason: Arc<str>) {
        self.say_down(reason.clone());
        if let Some(untold) = self.told().admit(&reason, Instant::now()) {
            let (connection, purpose) = (&self.endpoint.name, self.purpose.as_str());
            tracing::warn!(amqp.connection = %connection, amqp.purpose = purpose, %reason, untold, "not connected");
        }
    }

    fn told(&self) -> MutexGuard<'_, Seldom> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `since` stays what it was while the connection stays down.
    pub(super) fn say_down(&self, reason: Arc<str>) {
        let since = match &*self.sender.borrow() {
            Link::Down { since, .. } => *since,
            Link::Up(_) | Link::Blocked { .. } => Instant::now(),
        };
        self.sender.send_replace(Link::Down { reason, since });
    }
}

/// The chain of causes in one line: the library's own `Display` stops at the first.
fn explain(error: &CallError) -> Arc<str> {
    match error {
        CallError::Failed { source, .. } => source.to_string().into(),
        CallError::Down(_) | CallError::NoQueue(_) | CallError::Unfit(_) | CallError::TimedOut(_) => {
            error.to_string().into()
        }
    }
}

/// Pauses that double, each cut by up to half at random so that instances do not return in step.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    fn next(&mut self) -> Duration {
        let whole = self.0;
        self.0 = (whole * 2).min(LONGEST_PAUSE);
        let half = whole / 2;
        let random = u32::from(uuid::Uuid::new_v4().as_bytes().first().copied().unwrap_or_default());
        half + half * random / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_seconds_and_vary_by_half() {
        let mut pause = Pause::default();
        for whole in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let drawn = pause.next();
            assert!(drawn >= Duration::from_millis(whole / 2) && drawn <= Duration::from_millis(whole), "{drawn:?}");
        }
    }
}
