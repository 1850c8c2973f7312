//! One connection, kept alive: connect, watch, reconnect after a pause that grows.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::tcp::AMQPUriTcpExt;
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::endpoint::{CALL_BOUND, Endpoint};
use crate::lifecycle::Lifecycle;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that lived this long was a good one: the next pause is short again.
const STABLE: Duration = Duration::from_secs(5);
/// The state is looked at this often besides the library's events, which do not cover every end.
const LOOK: Duration = Duration::from_millis(250);
const CLOSE_BOUND: Duration = Duration::from_secs(2);

/// Why a call to the broker did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection now; nothing was asked.
    #[error("not connected: {0}")]
    Down(Arc<str>),
    /// No answer in time; what the broker did is not known. The connection or channel is given up.
    #[error("no answer to {0} within {secs} s", secs = CALL_BOUND.as_secs())]
    TimedOut(&'static str),
    /// The broker, or the library, said no.
    #[error("{what} failed")]
    Failed {
        what: &'static str,
        #[source]
        source: Cause,
    },
}

/// What the broker or its library gave as the reason. The library's type stays inside this module.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Cause(Box<lapin::Error>);

impl Cause {
    /// The reply code, when it was the broker who refused: 404, 405, 406 …
    pub(super) fn reply_code(&self) -> Option<u16> {
        match self.0.kind() {
            lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
            _ => None,
        }
    }
}

/// Awaits a call, at most [`CALL_BOUND`].
pub(super) async fn bounded<T>(
    what: &'static str,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_BOUND, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(CallError::Failed { what, source: Cause(Box::new(source)) }),
        Err(_) => Err(CallError::TimedOut(what)),
    }
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

impl Link {
    pub(super) fn status(&self) -> LinkStatus {
        match self {
            Self::Up(_) => LinkStatus::Up,
            Self::Blocked { reason, since } => LinkStatus::Blocked { reason: reason.clone(), since: *since },
            Self::Down { reason, since } => LinkStatus::Down { reason: reason.clone(), since: *since },
        }
    }
}

/// What a connection is for; publishing and consuming never share one (protocol §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Publish,
    Consume,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
        }
    }
}

/// A live connection. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub(super) struct Handle(Arc<Inner>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("alive", &self.alive()).finish()
    }
}

struct Inner {
    connection: Connection,
    /// A second descriptor of the socket: the only way to end a connection that neither reads nor writes.
    socket: Arc<OnceLock<std::net::TcpStream>>,
    given_up: OnceLock<&'static str>,
    given_up_now: CancellationToken,
}

impl Handle {
    /// A new channel of its own.
    pub(super) async fn channel(&self) -> Result<Channel, CallError> {
        let channel = bounded("channel.open", self.0.connection.create_channel()).await;
        if let Err(CallError::TimedOut(_)) = channel {
            self.give_up("opening a channel timed out");
        }
        channel
    }

    /// Ends the connection at once, without a word to the broker: it has stopped answering.
    /// Everything that waits on it fails.
    pub(super) fn give_up(&self, reason: &'static str) {
        if self.0.given_up.set(reason).is_ok() {
            tracing::warn!(reason, "the connection to the broker is given up");
        }
        shut(&self.0.socket);
        self.0.given_up_now.cancel();
    }

    pub(super) fn alive(&self) -> bool {
        self.0.given_up.get().is_none() && self.0.connection.status().connected()
    }

    /// Whether both are the same connection.
    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    async fn close(&self) {
        let close = self.0.connection.close(200, "stopping".into());
        if tokio::time::timeout(CLOSE_BOUND, close).await.is_err() {
            self.give_up("closing timed out");
        }
    }
}

fn shut(socket: &OnceLock<std::net::TcpStream>) {
    if let Some(socket) = socket.get()
        && let Err(error) = socket.shutdown(std::net::Shutdown::Both)
    {
        tracing::debug!(%error, "the socket was closed already");
    }
}

/// Looks at one connection as it comes and goes.
#[derive(Clone)]
pub(super) struct LinkWatch {
    state: watch::Receiver<Link>,
    stop: CancellationToken,
}

impl LinkWatch {
    pub(super) fn current(&self) -> Link {
        self.state.borrow().clone()
    }

    pub(super) fn status(&self) -> LinkStatus {
        self.state.borrow().status()
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), Link::Up(_))
    }

    /// The connection, or why there is none.
    pub(super) fn handle(&self) -> Result<Handle, CallError> {
        match &*self.state.borrow() {
            Link::Up(handle) => Ok(handle.clone()),
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

/// Starts to keep a connection alive, until it is closed, nobody looks any more, or the hard stop.
pub(super) fn supervise(endpoint: Endpoint, purpose: Purpose, lifecycle: &Lifecycle) -> LinkWatch {
    let (sender, state) = watch::channel(Link::Down { reason: "not connected yet".into(), since: Instant::now() });
    let stop = lifecycle.hard.child_token();
    let supervisor = Supervisor { endpoint, purpose, sender, stop: stop.clone() };
    lifecycle.tasks.spawn(supervisor.run());
    LinkWatch { state, stop }
}

struct Supervisor {
    endpoint: Endpoint,
    purpose: Purpose,
    sender: watch::Sender<Link>,
    stop: CancellationToken,
}

impl Supervisor {
    async fn run(self) {
        let mut pause = Pause::default();
        while !self.stopping() {
            let connecting = tokio::select! {
                () = self.stopped() => break,
                connecting = connect(&self.endpoint, self.purpose) => connecting,
            };
            match connecting {
                Ok(handle) => {
                    let began = Instant::now();
                    self.watch(&handle).await;
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
        self.down("closed".into());
    }

    fn stopping(&self) -> bool {
        self.stop.is_cancelled() || self.sender.is_closed()
    }

    async fn stopped(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.sender.closed() => {}
        }
    }

    /// Publishes what becomes of a connection, until it ends or is to be closed.
    async fn watch(&self, handle: &Handle) {
        tracing::info!(amqp.connection = %self.endpoint.name, amqp.purpose = self.purpose.as_str(), "connected");
        let mut events = std::pin::pin!(handle.0.connection.events_listener());
        let mut look = tokio::time::interval(LOOK);
        let mut last = None;
        self.sender.send_replace(Link::Up(handle.clone()));
        while handle.alive() {
            tokio::select! {
                () = self.stopped() => return handle.close().await,
                () = handle.0.given_up_now.cancelled() => {}
                _ = look.tick() => {}
                Some(event) = events.next() => self.on_event(event, handle, &mut last),
            }
        }
        while let Some(Some(event)) = futures_util::FutureExt::now_or_never(events.next()) {
            self.on_event(event, handle, &mut last);
        }
        let reason = handle.0.given_up.get().map(|reason| Arc::from(*reason)).or(last);
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
                self.sender.send_replace(Link::Up(handle.clone()));
            }
            Event::Error(error) => *last = Some(error.to_string().into()),
            // Connected, send flow and what later versions add change nothing here.
            _ => {}
        }
    }

    /// Says why there is no connection; `since` stays what it was while the connection stays down.
    fn down(&self, reason: Arc<str>) {
        let since = match &*self.sender.borrow() {
            Link::Down { since, .. } => *since,
            Link::Up(_) | Link::Blocked { .. } => Instant::now(),
        };
        tracing::warn!(
            amqp.connection = %self.endpoint.name, amqp.purpose = self.purpose.as_str(), %reason, "not connected"
        );
        self.sender.send_replace(Link::Down { reason, since });
    }
}

/// The chain of causes in one line: the library's own `Display` stops at the first.
fn explain(error: &CallError) -> Arc<str> {
    match error {
        CallError::Failed { source, .. } => source.to_string().into(),
        CallError::Down(_) | CallError::TimedOut(_) => error.to_string().into(),
    }
}

/// Connects and logs in, within [`CALL_BOUND`]; whatever is left of a late attempt is ended.
async fn connect(endpoint: &Endpoint, purpose: Purpose) -> Result<Handle, CallError> {
    let socket = Arc::new(OnceLock::new());
    let name = format!("posthaste:{}:{}", endpoint.name, purpose.as_str());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let slot = socket.clone();
    let connecting = async {
        let runtime = lapin::runtime::default_runtime()?;
        let reactor = runtime.clone();
        let dial = async move |uri: lapin::uri::AMQPUri, _| {
            let dialled = tokio::time::timeout(CALL_BOUND, uri.connect_async(&reactor)).await;
            let stream = dialled.map_err(std::io::Error::from).flatten().map_err(lapin::Error::from)?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                let copy = std::os::fd::AsFd::as_fd(plain.get_ref()).try_clone_to_owned();
                let _first = slot.set(copy.map_err(lapin::Error::from)?.into());
            }
            Ok(stream)
        };
        Connection::connector(endpoint.uri(), runtime, dial, properties).await
    };
    // Boxed: the library's handshake is a large future.
    match bounded("connect", Box::pin(connecting)).await {
        Ok(connection) => Ok(Handle(Arc::new(Inner {
            connection,
            socket,
            given_up: OnceLock::new(),
            given_up_now: CancellationToken::new(),
        }))),
        Err(error) => {
            shut(&socket);
            Err(error)
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
