//! The socket that the library reads from: each frame is looked at before the library sees it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::frame_watch::{Deadly, Watch};

/// A socket to a broker. What the library would not survive is an error of reading; the bytes that came with it are lost.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Compat<TcpStream>,
    watch: Watch,
}

impl Watched {
    /// Nothing may have been read from it.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream: stream.compat(), watch: Watch::default() }
    }
}

/// Whether an error is one of ours.
pub(super) fn is_deadly(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Deadly>())
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        self.watch.look(into.get(..read).unwrap_or_default()).map_err(io::Error::other)?;
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

/// What the library runs on: tokio, but for the type of its sockets.
pub(super) type OurRuntime = Runtime<RuntimeParts<Tokio, OurReactor>>;

/// To be called within tokio's runtime.
pub(super) fn runtime() -> OurRuntime {
    Runtime::new(RuntimeParts::new(Tokio::current(), OurReactor(Tokio::current())))
}

#[derive(Debug, Clone)]
pub(super) struct OurReactor(Tokio);

impl Reactor for OurReactor {
    type TcpStream = Watched;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    // Not called: connections are dialled beforehand.
    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        async move { Ok(Watched::new(TcpStream::connect(address).await?)) }
    }
}
