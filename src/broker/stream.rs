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

use super::frame_watch::{Deadly, Refused, Watch};
use super::frames as f;

/// A socket to a broker. What the library would not survive is an error of reading, behind all that stands before it.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Compat<TcpStream>,
    watch: Watch,
    over: Option<Over>,
}

/// Nothing more is read.
#[derive(Debug)]
struct Over {
    why: Deadly,
    /// The library was told once that nothing is there: only then does it act on what it has read before, as the answer that
    /// there is a consumer. After an error it forgets that.
    waited: bool,
}

impl Watched {
    /// Nothing may have been read from it. `frame_max`: the largest frame that we offer, in bytes.
    pub(super) fn new(stream: TcpStream, frame_max: u32) -> Self {
        Self { stream: stream.compat(), watch: Watch::new(frame_max), over: None }
    }

    fn refuse(&mut self, context: &Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.over {
            Some(Over { why, waited: true }) => Poll::Ready(Err(io::Error::other(*why))),
            Some(Over { waited, .. }) => {
                *waited = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

/// Whether an error is one of ours.
pub(super) fn is_deadly(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Deadly>())
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.over.is_some() {
            return self.refuse(context);
        }
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        match self.watch.look(into.get(..read).unwrap_or_default()) {
            Ok(()) => Poll::Ready(Ok(read)),
            Err(Refused { before, why }) => {
                self.over = Some(Over { why, waited: false });
                // Nothing read would mean that the connection has ended.
                if before == 0 { self.refuse(context) } else { Poll::Ready(Ok(before)) }
            }
        }
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
        let dialled = TcpStream::connect(address);
        async move { Ok(Watched::new(dialled.await?, f::LEAST_MAX)) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use futures_util::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The broker's end and ours.
    async fn both() -> (TcpStream, Watched) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (theirs.unwrap().0, Watched::new(ours.unwrap(), 131_072))
    }

    fn poll(watched: &mut Watched, woken: &Arc<Woken>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let waker = Waker::from(woken.clone());
        Pin::new(watched).poll_read(&mut Context::from_waker(&waker), into)
    }

    const CONSUME_OK: &[u8] = b"\x01\0\x01\0\0\0\x06\0\x3c\0\x15\x01c\xce";
    /// The head of headers of 4 GiB.
    const DEADLY: &[u8] = b"\x02\0\x01\xff\xff\xff\xff";

    #[tokio::test]
    async fn what_came_with_a_deadly_frame_is_handed_over_and_acted_on_before_the_error() {
        let (mut broker, mut watched) = both().await;
        broker.write_all(&[CONSUME_OK, DEADLY].concat()).await.unwrap();
        let mut read = [0; 100];
        assert_eq!(watched.read(&mut read).await.unwrap(), CONSUME_OK.len());
        assert!(read.starts_with(CONSUME_OK));
        let woken = Arc::default();
        assert!(poll(&mut watched, &woken, &mut read).is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "or nobody would ask again");
        for _ in 0..2 {
            let Poll::Ready(Err(error)) = poll(&mut watched, &woken, &mut read) else { panic!("no error") };
            assert!(is_deadly(&error), "{error}");
        }
    }

    #[tokio::test]
    async fn a_deadly_frame_that_comes_alone_is_no_end_of_the_stream() {
        let (mut broker, mut watched) = both().await;
        broker.write_all(DEADLY).await.unwrap();
        let error = watched.read(&mut [0; 100]).await.unwrap_err();
        assert!(is_deadly(&error), "{error}");
    }
}
