//! Clients that behave as real ones do under failures: they repeat, retry, hurry and hang up, and write everything down.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::history::{Answer, Operation, Promise};
use crate::support::Application;

/// Ids with this ending have a body that the tables refuse: such a message ends in the error store.
pub const POISON: &str = "-poison";

/// Ids with this ending are processed slowly, where the database has been made to (`Installation`).
pub const SLOW: &str = "-slow";

/// Poison that the database refuses with an error which says that the database is at fault: with the SQLSTATE that each ending
/// names. Where the database has been made to (`Installation`).
pub const ACCUSING: [(&str, &str); 3] = [("-xx-poison", "XX000"), ("-57-poison", "57P01"), ("-53-poison", "53100")];

/// The one body of an id. A text is the id itself, and for poison longer than the tables' 30 characters; a transfer is
/// decided by the id, and poison goes to an account that ledger B does not have, after ledger A was written to.
fn body_of(application: Application, id: &str) -> String {
    match application {
        Application::WriteDb if ACCUSING.iter().any(|(ending, _)| id.ends_with(ending)) => id.to_owned(),
        Application::WriteDb if id.ends_with(POISON) => format!("{id:.<31}"),
        Application::WriteDb => id.to_owned(),
        Application::TwoDatabases => {
            let sum: u64 = id.bytes().map(u64::from).sum();
            let from = if sum.is_multiple_of(2) { "alice" } else { "anna" };
            let to = match id.ends_with(POISON) {
                true => "nobody",
                false if sum.is_multiple_of(3) => "bob",
                false => "ben",
            };
            format!(r#"{{ "from": "{from}", "to": "{to}", "amount": {} }}"#, sum % 50 + 1)
        }
    }
}

/// How much, for how long. The same seed makes the same choices; their timing is the machine's.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub application: Application,
    pub seed: u32,
    pub clients: u32,
    /// No new message after this.
    pub duration: Duration,
    /// New messages of each client, at most.
    pub messages: u32,
    /// The pause between two choices of a client.
    pub pause: Duration,
    /// Whether some poison accuses the database.
    pub accusing: bool,
}

/// Ends a run before its time.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything the clients share.
struct Run {
    load: Load,
    /// Where the posts go, in turn: the instances of one installation.
    targets: Vec<SocketAddr>,
    turn: AtomicUsize,
    http: reqwest::Client,
    started: Instant,
    log: Mutex<Vec<Operation>>,
}

/// Runs all clients to their end and answers what they saw. No error stops a client.
pub async fn run(targets: &[SocketAddr], load: Load, stop: Stop) -> Vec<Operation> {
    let http = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(2)).build().unwrap();
    let run = Arc::new(Run::new(load, targets, http));
    let mut clients = JoinSet::new();
    for number in 0..load.clients {
        let (run, stop) = (Arc::clone(&run), stop.clone());
        clients.spawn(async move { client(&run, &stop, number).await });
    }
    clients.join_all().await;
    std::mem::take(&mut *run.log.lock().unwrap())
}

/// Posts good messages, ten a second, until it is over: beside them poison that accuses the database is told from one in
/// trouble. Appends to the log.
pub async fn keep_company(
    target: SocketAddr,
    load: Load,
    log: &mut Vec<Operation>,
    mut over: impl AsyncFnMut() -> bool,
) {
    let run = Run::new(load, &[target], reqwest::Client::builder().no_proxy().build().unwrap());
    let offset = end_of(log);
    let mut count = 0;
    while !over().await {
        count += 1;
        let id = format!("{:08x}-company-{count}", load.seed);
        run.post(load.clients, &id, Duration::from_secs(10)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    run.append_to(log, offset);
}

/// Posts again, until a definite answer, every id whose last answer left its clients in doubt (I3). Appends to the log;
/// answers the ids that had none within `bound` each.
pub async fn settle_unknown(target: SocketAddr, load: Load, log: &mut Vec<Operation>, bound: Duration) -> Vec<String> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let offset = end_of(log);
    let with = |wanted: &dyn Fn(Promise) -> bool| -> BTreeSet<String> {
        let operations = log.iter().filter(|op| wanted(op.answer.promise()));
        operations.map(|op| op.message_id.clone()).collect()
    };
    let doubtful = with(&|promise| matches!(promise, Promise::Unknown | Promise::OutsideContract));
    let known = with(&|promise| matches!(promise, Promise::Accepted | Promise::Duplicate));
    let unsettled: Vec<String> = doubtful.difference(&known).cloned().collect();

    let run = Run::new(load, &[target], http);
    let mut without = Vec::new();
    for id in unsettled {
        let started = Instant::now();
        while !run.post(load.clients, &id, Duration::from_secs(10)).await {
            if started.elapsed() > bound {
                without.push(id);
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    run.append_to(log, offset);
    without
}

fn end_of(log: &[Operation]) -> u64 {
    log.iter().map(|op| op.end).max().unwrap_or(0) + 1
}

/// One JSON object per line.
pub fn write(log: &[Operation], path: &Path) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    for op in log {
        serde_json::to_writer(&mut file, op).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.flush().unwrap();
}

async fn client(run: &Run, stop: &Stop, number: u32) {
    let mut dice = Dice(u64::from(run.load.seed) << 32 | u64::from(number));
    let mut fresh = 0;
    let mut unsettled: Vec<String> = Vec::new();
    while !stop.asked() && run.started.elapsed() < run.load.duration && fresh < run.load.messages {
        let patience = if dice.one_in(20) { Duration::from_millis(dice.below(30)) } else { Duration::from_secs(5) };
        let id = match dice.below(10) {
            0..=3 if !unsettled.is_empty() => {
                let which = usize::try_from(dice.below(unsettled.len() as u64)).unwrap();
                unsettled.swap_remove(which)
            }
            4 => match run.earlier(&mut dice) {
                Some(id) => id,
                None => run.fresh(number, &mut fresh, &mut dice),
            },
            _ => run.fresh(number, &mut fresh, &mut dice),
        };
        // Now and then the same message goes out several times at once.
        let times = if dice.one_in(10) { 2 + dice.below(4) } else { 1 };
        let posts = (0..times).map(|_| run.post(number, &id, patience));
        if !join_all(posts).await.contains(&true) {
            unsettled.push(id);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(run.load.pause).await;
    }
}

impl Run {
    fn new(load: Load, targets: &[SocketAddr], http: reqwest::Client) -> Self {
        let (started, log, turn) = (Instant::now(), Mutex::default(), AtomicUsize::default());
        Self { load, targets: targets.to_vec(), turn, http, started, log }
    }

    /// What came after a log that ended then.
    fn append_to(self, log: &mut Vec<Operation>, offset: u64) {
        let later = self.log.into_inner().unwrap();
        log.extend(later.into_iter().map(|op| Operation { start: op.start + offset, end: op.end + offset, ..op }));
    }

    fn fresh(&self, client: u32, count: &mut u32, dice: &mut Dice) -> String {
        *count += 1;
        let ending = match dice.below(50) {
            0..=1 => POISON,
            2..=3 => SLOW,
            4 if self.load.accusing => {
                let which = usize::try_from(dice.below(ACCUSING.len() as u64)).unwrap();
                ACCUSING[which].0
            }
            _ => "",
        };
        format!("{:08x}-{client}-{count}{ending}", self.load.seed)
    }

    /// An id that some client has posted before.
    fn earlier(&self, dice: &mut Dice) -> Option<String> {
        let log = self.log.lock().unwrap();
        let which = usize::try_from(dice.below(log.len().max(1) as u64)).unwrap();
        log.get(which).map(|op| op.message_id.clone())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap()
    }

    /// One POST, written down; answers whether the client now knows that its message is accepted.
    async fn post(&self, client: u32, id: &str, patience: Duration) -> bool {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let target = self.targets[turn % self.targets.len()];
        let request = self.http.post(format!("http://{target}{}", self.load.application.path()));
        let request = request.header("Message-Id", id).header("Content-Type", "text/plain");
        let start = self.now();
        let body = body_of(self.load.application, id);
        let answer = self.answer(request.body(body.clone()).timeout(patience)).await;
        let known = matches!(answer.promise(), Promise::Accepted | Promise::Duplicate);
        let end = self.now();
        let (message_id, poison) = (id.to_owned(), id.ends_with(POISON));
        let op = Operation { client, message_id, body, poison, start, end, answer };
        self.log.lock().unwrap().push(op);
        known
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Answer {
        match request.send().await {
            Ok(reply) => {
                let outcome = reply.headers().get("x-outcome").map(|value| value.to_str().unwrap().to_owned());
                Answer::Http { status: reply.status().as_u16(), outcome }
            }
            Err(error) if error.is_timeout() => Answer::Timeout,
            Err(error) if error.is_connect() => Answer::NotSent,
            Err(_) => Answer::Reset,
        }
    }
}

/// SplitMix64: the same choices for the same seed, on every machine.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, usize::try_from(self.below(last as u64 + 1)).unwrap());
        }
    }
}
