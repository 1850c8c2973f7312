//! A TCP relay in front of a server: cuts connections, swallows their bytes for a while, refuses new ones.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use posthaste::dev::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Whose bytes are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
    Both,
}

/// Carries every connection to one server, until told otherwise. Dropped, it cuts them all and listens no more.
pub struct TcpRelay {
    address: SocketAddr,
    control: Arc<Control>,
}

struct Control {
    stalled: watch::Sender<Option<Direction>>,
    /// How many bytes all connections together may carry to the server, and have.
    limit: watch::Sender<usize>,
    carried: AtomicUsize,
    refuses: watch::Sender<bool>,
    /// Ends the connections of now; those that come later have another.
    cut: Mutex<CancellationToken>,
    gone: CancellationToken,
}

impl TcpRelay {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", free_port().unwrap())).await.unwrap();
        let address = listener.local_addr().unwrap();
        let control = Arc::new(Control {
            stalled: watch::Sender::new(None),
            limit: watch::Sender::new(usize::MAX),
            carried: AtomicUsize::new(0),
            refuses: watch::Sender::new(false),
            cut: Mutex::default(),
            gone: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, target, Arc::clone(&control), tasks.clone()));
        Self { address, control }
    }

    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection there is, on both sides, stalled or not. New ones are carried.
    pub fn cut(&self) {
        std::mem::take(&mut *self.control.cut.lock().unwrap()).cancel();
    }

    /// Connections stay open, and new ones open, but these bytes do not arrive, nor does the end of a connection, until
    /// `resume`: nothing is lost, as with a network that is silent for less than TCP's patience.
    pub fn stall(&self, direction: Direction) {
        self.control.stalled.send_replace(Some(direction));
    }

    /// About so many more bytes arrive at the server, and what it says arrives all the same, until `resume`.
    pub fn stall_after(&self, bytes: usize) {
        self.control.limit.send_replace(self.control.carried.load(Ordering::Relaxed) + bytes);
    }

    /// Carries on after `stall` or `stall_after`, first what was held back.
    pub fn resume(&self) {
        self.control.limit.send_replace(usize::MAX);
        self.control.stalled.send_replace(None);
    }

    /// Whether new connections are reset at once. Those that are open stay.
    pub fn refuse(&self, refuses: bool) {
        self.control.refuses.send_replace(refuses);
    }
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        self.control.gone.cancel();
        self.cut();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, control: Arc<Control>, tasks: TaskTracker) {
    while let Some(Ok((client, _))) = control.gone.run_until_cancelled(listener.accept()).await {
        if *control.refuses.borrow() {
            reset(client);
        } else {
            let cut = control.cut.lock().unwrap().clone();
            tasks.spawn(connection(client, target, Arc::clone(&control), cut));
        }
    }
}

async fn connection(mut client: TcpStream, target: SocketAddr, control: Arc<Control>, cut: CancellationToken) {
    let Ok(mut server) = TcpStream::connect(target).await else { return reset(client) };
    for socket in [&client, &server] {
        let _gone_already = socket.set_nodelay(true);
    }
    let carried = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let there = carry(client_reads, server_writes, &control, Direction::ToServer);
        let back = carry(server_reads, client_writes, &control, Direction::ToClient);
        cut.run_until_cancelled(async { tokio::try_join!(there, back) }).await
    };
    if !matches!(carried, Some(Ok(_))) {
        reset(client);
        reset(server);
    }
}

/// What it still had to send is dropped, as when its machine is gone.
fn reset(socket: TcpStream) {
    let _gone_already = socket.set_zero_linger();
}

/// Until the end of what `from` says.
async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    control: &Control,
    direction: Direction,
) -> std::io::Result<()> {
    let (mut stalled, mut limit) = (control.stalled.subscribe(), control.limit.subscribe());
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let flows = |now: &Option<Direction>| !now.is_some_and(|held| held == direction || held == Direction::Both);
        stalled.wait_for(flows).await.map_err(std::io::Error::other)?;
        if direction == Direction::ToServer {
            let carried = control.carried.fetch_add(read, Ordering::Relaxed);
            limit.wait_for(|limit| carried < *limit).await.map_err(std::io::Error::other)?;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
