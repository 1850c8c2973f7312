//! A TCP relay in front of the broker that can cut its connections, refuse new ones, and stop carrying bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Carry,
    /// Connections stay open, bytes do not move.
    Stall,
    /// What the broker says does not move.
    StallAnswers,
    /// Connections are cut and new ones refused.
    Cut,
}

pub struct Relay {
    pub address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    sent: Arc<AtomicUsize>,
    /// How many bytes may be carried to the broker.
    limit: watch::Sender<usize>,
}

impl Relay {
    pub async fn start(target: &str) -> Self {
        let target = target.to_owned();
        let tasks = TaskTracker::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(watch::Sender::new(Mode::Carry));
        let modes = mode.clone();
        let connections = tasks.clone();
        let (sent, received) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let to_server = sent.clone();
        let (limit, limited) = watch::channel(usize::MAX);
        tasks.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *modes.borrow() == Mode::Cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let (client_reads, client_writes) = client.into_split();
                let (server_reads, server_writes) = server.into_split();
                let way = |carried: &Arc<AtomicUsize>, limit, stalled_by| Way {
                    mode: modes.subscribe(),
                    stalled_by,
                    carried: carried.clone(),
                    limit,
                };
                connections.spawn(way(&to_server, limited.clone(), &[Mode::Stall]).carry(client_reads, server_writes));
                let unlimited = watch::channel(usize::MAX).1;
                connections.spawn(
                    way(&received, unlimited, &[Mode::Stall, Mode::StallAnswers]).carry(server_reads, client_writes),
                );
            }
        });
        Self { address, mode, sent, limit }
    }

    /// How many bytes were carried to the broker.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Carries about so many more bytes to the broker, whose answers come back all the same.
    pub fn stall_after(&self, bytes: usize) {
        self.limit.send_replace(self.sent() + bytes);
    }

    pub fn carry(&self) {
        self.limit.send_replace(usize::MAX);
        self.mode.send_replace(Mode::Carry);
    }

    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    pub fn stall_answers(&self) {
        self.mode.send_replace(Mode::StallAnswers);
    }

    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }
}

/// One way of a connection.
struct Way {
    mode: watch::Receiver<Mode>,
    stalled_by: &'static [Mode],
    carried: Arc<AtomicUsize>,
    limit: watch::Receiver<usize>,
}

impl Way {
    /// Ends with a cut, wherever it finds it: a relay that only looked while it waited would miss one that comes amid a write.
    async fn carry(self, from: OwnedReadHalf, to: OwnedWriteHalf) {
        let mut cut = self.mode.clone();
        tokio::select! {
            _ = cut.wait_for(|mode| *mode == Mode::Cut) => {}
            () = self.copy(from, to) => {}
        }
    }

    async fn copy(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
            let carried = self.carried.load(Ordering::Relaxed);
            if self.limit.wait_for(|limit| carried < *limit).await.is_err()
                || self.mode.wait_for(|mode| !self.stalled_by.contains(mode)).await.is_err()
                || to.write_all(&buffer[..bytes]).await.is_err()
            {
                return;
            }
            self.carried.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_ends_a_connection_that_carries_both_ways_at_that_moment() {
    let tasks = TaskTracker::new();
    for _ in 0..100 {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start(&echo.local_addr().unwrap().to_string()).await;
        let client = TcpStream::connect(relay.address).await.unwrap();
        let (mut server, _) = echo.accept().await.unwrap();
        let (mut reads, mut writes) = client.into_split();
        let echoed = tasks.spawn(async move {
            let (mut from, mut to) = server.split();
            let _ended = tokio::io::copy(&mut from, &mut to).await;
        });
        let written = tasks.spawn(async move { while writes.write_all(&[7; 512]).await.is_ok() {} });
        let mut buffer = vec![0; 16 * 1024];
        for _ in 0..20 {
            assert_ne!(reads.read(&mut buffer).await.unwrap(), 0);
        }
        relay.cut();
        let read = tasks.spawn(async move { while matches!(reads.read(&mut buffer).await, Ok(1..)) {} });
        let ended = tokio::time::timeout(Duration::from_secs(10), join_all([echoed, written, read])).await;
        assert!(ended.is_ok(), "it carries on");
    }
}
