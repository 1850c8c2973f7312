//! One connection to the broker, and calls over it that end in time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::Stream;
use lapin::types::FrameSize;
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Event};
use tokio_util::sync::CancellationToken;

use super::endpoint::{CALL_BOUND, Endpoint};
use super::stream::{OurRuntime, Watched, is_deadly, runtime};
use super::wire::WireError;

const CLOSE_BOUND: Duration = Duration::from_secs(2);
/// For an answer on another channel, when one had none.
const ANSWER_BOUND: Duration = Duration::from_millis(500);

/// Why a call to the broker did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection now; nothing was asked.
    #[error("not connected: {0}")]
    Down(Arc<str>),
    /// The queue is not there.
    #[error("queue {0} does not exist")]
    NoQueue(String),
    #[error(transparent)]
    Unfit(#[from] WireError),
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
    /// The broker's own code, as 404 when something is not there.
    pub(super) fn code(&self) -> Option<u16> {
        match self.0.kind() {
            lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
            _ => None,
        }
    }
}

impl CallError {
    /// Whether the broker has said no, in its own words.
    #[must_use]
    pub fn by_broker(&self) -> bool {
        match self {
            Self::NoQueue(_) => true,
            Self::Failed { source, .. } => source.code().is_some(),
            Self::Down(_) | Self::Unfit(_) | Self::TimedOut(_) => false,
        }
    }

    /// Whether the library could not read what the broker sent, or was not let read it.
    pub(super) fn unreadable(&self) -> bool {
        matches!(self, Self::Failed { source, .. } if unreadable(&source.0))
    }

    /// The same error, more exact when the broker said that the queue does not exist.
    pub(super) fn about(self, queue: &str) -> Self {
        match self {
            Self::Failed { source, .. } if source.code() == Some(404) => Self::NoQueue(queue.to_owned()),
            error => error,
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

/// Whether the library could not read what the broker sent, or was not let read it. It reads ids, content types and header
/// names as UTF-8 only, takes no frame that is larger than was agreed, and ends the whole connection over one; the broker
/// then delivers the same message again.
pub(super) fn unreadable(error: &lapin::Error) -> bool {
    match error.kind() {
        lapin::ErrorKind::ParsingError(_) => true,
        lapin::ErrorKind::IOError(error) => is_deadly(error),
        _ => false,
    }
}

/// What a connection is for; publishing and consuming never share one (protocol §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Publish,
    Consume,
}

impl Purpose {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
        }
    }

    /// The largest frame in bytes, if the broker allows it. For each direction the library keeps a ring of 32 frames, and
    /// told only by the broker how large they are it fills it with zeros at once.
    pub(super) const fn frame_max(self) -> FrameSize {
        match self {
            // A body of 64 KiB in one frame. What comes back has our own headers: no more than `MAX_HEADER_BYTES`.
            Self::Publish => 68 * 1024,
            // RabbitMQ's default: others' headers may fill it. What is larger is parked (ADR 24).
            Self::Consume => 128 * 1024,
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

    /// Whether the broker still answers on it, within a bound: on a channel that is nobody's.
    pub(super) async fn answers(&self, bound: Duration) -> bool {
        let asked = async {
            let channel = self.0.connection.create_channel().await?;
            channel.close(200, "it answers".into()).await
        };
        matches!(tokio::time::timeout(bound, asked).await, Ok(Ok(())))
    }

    /// A call on a channel had no answer in time. Whether it is the one queue that is silent, or everything, another channel
    /// tells: others are not cut off for one queue. The channel is closed whenever it answers. True: the connection lives.
    pub(super) async fn doubt(&self, channel: &Channel, reason: &'static str) -> bool {
        let close = tokio::time::timeout(ANSWER_BOUND, channel.close(200, "nobody waits any more".into()));
        let (_closed, answers) = tokio::join!(close, self.answers(ANSWER_BOUND));
        if !answers {
            self.give_up(reason);
        }
        answers
    }

    /// Ends the connection at once, without a word to the broker: it has stopped answering.
    /// Everything that waits on it fails.
    pub(super) fn give_up(&self, reason: &'static str) {
        if self.0.given_up.set(reason).is_ok() {
            tracing::warn!(reason, "the connection to the broker is given up");
        }
        self.end();
    }

    /// The same for a connection that is nobody else's, and of which nobody need hear.
    pub(super) fn abandon(&self) {
        let _known = self.0.given_up.set("a channel of it hangs");
        self.end();
    }

    fn end(&self) {
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

    /// Why it was given up, if it was.
    pub(super) fn given_up(&self) -> Option<&'static str> {
        self.0.given_up.get().copied()
    }

    pub(super) async fn until_given_up(&self) {
        self.0.given_up_now.cancelled().await;
    }

    pub(super) fn events(&self) -> impl Stream<Item = Event> + Send + 'static {
        self.0.connection.events_listener()
    }

    /// Takes leave of the broker; without its answer within two seconds the connection is given up.
    pub(super) async fn close(&self) {
        let close = self.0.connection.close(200, "stopping".into());
        if tokio::time::timeout(CLOSE_BOUND, close).await.is_err() {
            self.give_up("closing timed out");
        }
        self.hang_up();
    }

    /// Takes leave if it is still alive, and closes the socket in any case.
    pub(super) async fn leave(&self) {
        if self.alive() { self.close().await } else { self.hang_up() }
    }

    /// Closes the socket of a connection that has ended. The library closes only its own descriptor: as long as ours is
    /// open the broker takes the connection for alive and keeps what it has delivered.
    pub(super) fn hang_up(&self) {
        shut(&self.0.socket);
    }
}

fn shut(socket: &OnceLock<std::net::TcpStream>) {
    if let Some(socket) = socket.get()
        && let Err(error) = socket.shutdown(std::net::Shutdown::Both)
    {
        tracing::debug!(%error, "the socket was closed already");
    }
}

/// Connects and logs in, within [`CALL_BOUND`]; whatever is left of a late attempt is ended.
pub(super) async fn connect(endpoint: &Endpoint, purpose: Purpose) -> Result<Handle, CallError> {
    let socket = Arc::new(OnceLock::new());
    let name = format!("posthaste:{}:{}", endpoint.name, purpose.as_str());
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let slot = socket.clone();
    let address = endpoint.clone();
    let connecting = async {
        let dial = async move |_uri: lapin::uri::AMQPUri, _runtime: OurRuntime| {
            let dialled = tokio::time::timeout(CALL_BOUND, address.dial()).await;
            let stream = dialled.map_err(std::io::Error::from).flatten().map_err(lapin::Error::from)?;
            let copy = std::os::fd::AsFd::as_fd(&stream).try_clone_to_owned();
            let _first = slot.set(copy.map_err(lapin::Error::from)?.into());
            Ok(AsyncTcpStream::Plain(Watched::new(stream, purpose.frame_max())))
        };
        Connection::connector(endpoint.uri(purpose.frame_max()), runtime(), dial, properties).await
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
