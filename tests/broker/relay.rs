//! A TCP relay in front of the broker that can cut its connections, refuse new ones, and stop carrying bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Carry,
    /// Connections stay open, bytes do not move.
    Stall,
    /// Connections are cut and new ones refused.
    Cut,
}

pub struct Relay {
    pub address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    sent: Arc<AtomicUsize>,
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
        let (sent, received) = (Arc::<AtomicUsize>::default(), Arc::default());
        let to_server = sent.clone();
        tasks.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *modes.borrow() == Mode::Cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let (client_reads, client_writes) = client.into_split();
                let (server_reads, server_writes) = server.into_split();
                connections.spawn(carry(client_reads, server_writes, modes.subscribe(), to_server.clone()));
                connections.spawn(carry(server_reads, client_writes, modes.subscribe(), Arc::clone(&received)));
            }
        });
        Self { address, mode, sent }
    }

    /// How many bytes were carried to the broker.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn carry(&self) {
        self.mode.send_replace(Mode::Carry);
    }

    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    carried: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if mode.wait_for(|mode| *mode != Mode::Stall).await.is_err() {
            return;
        }
        let read = tokio::select! {
            changed = mode.changed() => match changed {
                Ok(()) if *mode.borrow() == Mode::Cut => return,
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut buffer) => read,
        };
        match read {
            Ok(0) | Err(_) => return,
            Ok(bytes) if to.write_all(&buffer[..bytes]).await.is_err() => return,
            Ok(bytes) => {
                carried.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }
}
