//! Clients, each with one connection that is kept: POST, wait for the answer, POST again. They must cost little: servers,
//! product and clients share the machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::http::{Head, head_in};

/// What is sent.
#[derive(Debug, Clone)]
pub struct Load {
    /// The clients are dealt out to these.
    pub addresses: Vec<SocketAddr>,
    pub connections: usize,
    pub bytes: usize,
    pub until: Until,
    /// Every twentieth message is too long for its column.
    pub poison: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// Nothing is sent after this time.
    Elapsed(Duration),
    Messages(u64),
}

/// What was answered; all of it with 202.
#[derive(Debug)]
pub struct Loaded {
    pub began: Instant,
    pub good: u64,
    pub poison: u64,
    /// Accepted before the window closed, per second of the window.
    pub rate: f64,
    /// Of each POST, in microseconds.
    pub latencies: Vec<u32>,
}

/// One client's share.
#[derive(Default)]
struct Share {
    good: u64,
    poison: u64,
    in_window: u64,
    latencies: Vec<u32>,
}

/// Of a message that the sample's column does not take.
const POISON_BYTES: usize = 40;

impl Load {
    /// # Errors
    /// Any answer but 202.
    pub async fn run(self) -> Result<Loaded> {
        let mut streams = Vec::new();
        for address in self.addresses.iter().cycle().take(self.connections) {
            streams.push(Client::connect(*address).await?);
        }
        let began = Instant::now();
        let load = Arc::new(self);
        let sent = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for (number, client) in streams.into_iter().enumerate() {
            clients.spawn(load.clone().send(client, number, began, sent.clone()));
        }
        let mut all = Share::default();
        while let Some(share) = clients.join_next().await {
            let share = share??;
            all.good += share.good;
            all.poison += share.poison;
            all.in_window += share.in_window;
            all.latencies.extend(share.latencies);
        }
        let window = match load.until {
            Until::Elapsed(window) => window,
            Until::Messages(_) => began.elapsed(),
        };
        let rate = all.in_window as f64 / window.as_secs_f64();
        Ok(Loaded { began, good: all.good, poison: all.poison, rate, latencies: all.latencies })
    }

    async fn send(
        self: Arc<Self>,
        mut client: Client,
        number: usize,
        began: Instant,
        sent: Arc<AtomicU64>,
    ) -> Result<Share> {
        let mut share = Share::default();
        // Random ones: an index takes them anywhere, not at its end.
        let mut dice = fastrand::Rng::new();
        let good = body(&mut dice, self.bytes);
        let bad = body(&mut dice, POISON_BYTES);
        let mut turn = number;
        while self.goes_on(began, &sent) {
            turn += 1;
            let poison = self.poison && turn.is_multiple_of(20);
            let asked = Instant::now();
            let head = client.post(dice.u128(..), if poison { &bad } else { &good }).await?;
            ensure!(head.status == 202, "a message was answered with {}", client.answered());
            let took = asked.elapsed();
            share.latencies.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
            share.good += u64::from(!poison);
            share.poison += u64::from(poison);
            let within = match self.until {
                Until::Elapsed(window) => asked + took <= began + window,
                Until::Messages(_) => true,
            };
            share.in_window += u64::from(within);
        }
        Ok(share)
    }

    fn goes_on(&self, began: Instant, sent: &AtomicU64) -> bool {
        match self.until {
            Until::Elapsed(window) => began.elapsed() < window,
            Until::Messages(messages) => sent.fetch_add(1, Ordering::Relaxed) < messages,
        }
    }
}

/// Letters and digits in no order, so that nothing can be saved by compressing them.
pub fn body(dice: &mut fastrand::Rng, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| u8::try_from(dice.alphanumeric()).unwrap_or(b'x')).collect()
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    address: SocketAddr,
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, address, out: Vec::new(), input: Vec::new() })
    }

    /// The last answer, as it came.
    fn answered(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.input)
    }

    /// One message under this id.
    pub async fn post(&mut self, id: u128, body: &[u8]) -> Result<Head> {
        use std::io::Write as _;
        self.out.clear();
        write!(
            self.out,
            "POST /api/write HTTP/1.1\r\nHost: {}\r\nMessage-Id: {id:032x}\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )?;
        self.out.extend_from_slice(body);
        self.stream.write_all(&self.out).await?;
        self.input.clear();
        loop {
            let read = self.stream.read_buf(&mut self.input).await?;
            ensure!(read > 0, "{} has hung up", self.address);
            if let Some(head) = head_in(&self.input).map_err(|error| anyhow!(error))?
                && self.input.len() >= head.length
            {
                return Ok(head);
            }
        }
    }
}
