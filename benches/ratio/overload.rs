//! `make overload`: twice as much as the product can take, and what becomes of it.
//!
//! The load is open: what is due is sent whether or not earlier messages were answered, as long as a connection is free.
//! Each body is a number that no other message has, so that at the end every message is looked for by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::database::Database;
use super::facts::Facts;
use super::fill::Templates;
use super::ledger::{Fate, Ledger};
use super::load::{Client, Load, Until};
use super::product::{Application, Product};
use super::servers::Servers;
use super::{proc, say};

/// Some thousands are in the line, in groups and waiting for confirms; the others are answered 503, and come again.
const CONNECTIONS: usize = 8000;
/// How many it lets in (`maxConnections`; 1,024 by default). Who waits before its door is not told anything.
const ADMITTED: usize = 8192;
/// Of what is sent, at least so much must be refused, or it was no overload. Not twice what it takes can be sent: clients and
/// servers share the machine, a refusal costs some, too, and with more connections all wait longer.
const REFUSED: f64 = 0.1;
/// The load that its capacity is taken from.
const MEASURING: Duration = Duration::from_secs(10);
/// Its connections: with fewer, groups are smaller, and it takes less.
const MANY: usize = 512;
const TICK: Duration = Duration::from_millis(5);
/// A backlog that has not shrunk for so long will not.
const STANDS_STILL: Duration = Duration::from_secs(120);

pub async fn run(seconds: u64) -> Result<()> {
    let servers = Servers::start().await?;
    say(&Facts::of(&servers).await?.to_string());
    let template = Templates::default().of(&servers, Application::Text).await?;
    let ground = servers.ground(&[Some(&template)]).await?;
    let mut product = Product::lay_out(Application::Text, &ground.urls, &ground.amqp)?;
    product.admit(ADMITTED)?;
    product.take_copy().await?;
    product.start().await?;
    let home = Database::connect(ground.urls.first().map(String::as_str).unwrap_or_default()).await?;

    let until = Until::Elapsed(MEASURING);
    let load = Load { addresses: vec![product.api], connections: MANY, bytes: 16, until, poison: false };
    let capacity = load.run().await?.rate;
    until_done(&home).await?;
    home.batch(r#"TRUNCATE message, "otherMessage""#).await?;
    let wanted = 2.0 * capacity;
    say(&format!("it takes {capacity:.0}/s; now {wanted:.0}/s for {seconds} s over {CONNECTIONS} connections"));

    let (ledger, memory) =
        tokio::join!(flood(product.api, wanted, Duration::from_secs(seconds)), sample(product.pid()?, seconds));
    let mut ledger = ledger?;
    say(&ledger.summary(seconds));
    let (sent, refused) = (ledger.sent() as f64, ledger.refused() as f64);
    let (times, share) = (sent / seconds as f64 / capacity, refused / sent);
    say(&format!("{times:.2} times what it takes was sent, {:.0} % of that refused", share * 100.0));
    say(&memory_told(&memory));
    let begun = Instant::now();
    until_done(&home).await?;
    say(&format!("everything that was accepted is done after {} s more", begun.elapsed().as_secs()));
    let [one, other] = [bodies(&home, "message").await?, bodies(&home, "\"otherMessage\"").await?];
    let faults = [ledger.faults(&one), ledger.faults(&other)].concat();
    product.stop().await?;
    drop(home);
    servers.shutdown().await?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(share >= REFUSED, "hardly anything was refused: that was no overload");
    say("none is lost, none is doubled, none was refused and done all the same");
    Ok(())
}

/// Sends `rate` messages a second, and tells what was answered.
async fn flood(address: SocketAddr, rate: f64, time: Duration) -> Result<Ledger> {
    let due = Arc::new(Semaphore::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        clients.spawn(send(address, due.clone()));
    }
    let (begun, mut dealt, mut unsent) = (Instant::now(), 0.0, 0);
    let mut clock = tokio::time::interval(TICK);
    while begun.elapsed() < time {
        clock.tick().await;
        // What no connection was free for is not saved up for later.
        let waiting = due.available_permits();
        due.forget_permits(waiting);
        unsent += waiting;
        let mut now_due = 0;
        while dealt < rate * begun.elapsed().as_secs_f64() {
            dealt += 1.0;
            now_due += 1;
        }
        due.add_permits(now_due);
    }
    due.close();
    let mut all = Ledger::default();
    all.unsent = unsent;
    while let Some(ledger) = clients.join_next().await {
        all.add(ledger??);
    }
    Ok(all)
}

/// One connection, and another one when it is lost.
async fn send(address: SocketAddr, due: Arc<Semaphore>) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    let mut dice = fastrand::Rng::new();
    let mut client = None;
    while let Ok(permit) = due.acquire().await {
        permit.forget();
        let id = dice.u128(..);
        let body = super::ledger::body_of(id);
        let mut connected = match client.take() {
            Some(client) => client,
            None => match Client::connect(address).await {
                Ok(client) => client,
                Err(_refused) => {
                    ledger.note("not connected".to_owned(), id, Fate::Refused);
                    continue;
                }
            },
        };
        let asked = Instant::now();
        match connected.post(id, body.as_bytes()).await {
            Ok(head) => {
                ledger.latencies.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
                let fate = match head.status {
                    202 => Fate::Accepted,
                    _ if head.nothing_done => Fate::Refused,
                    _ => Fate::Unknown,
                };
                let after = if head.retry_after { ", Retry-After" } else { "" };
                let none = if head.nothing_done { ", X-Outcome: none" } else { "" };
                ledger.note(format!("{}{after}{none}", head.status), id, fate);
                client = Some(connected);
            }
            Err(_broken) => ledger.note("connection lost".to_owned(), id, Fate::Unknown),
        }
    }
    Ok(ledger)
}

/// The product's memory in MiB, second by second.
async fn sample(pid: u32, seconds: u64) -> Vec<f64> {
    let mut samples = Vec::new();
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    for _ in 0..seconds {
        clock.tick().await;
        samples.extend(proc::rss(pid));
    }
    samples
}

fn memory_told(samples: &[f64]) -> String {
    let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let tenths: Vec<String> =
        samples.chunks((samples.len() / 10).max(1)).map(|part| format!("{:.0}", most(part))).collect();
    format!("memory, the most of each tenth, in MiB: {}; of all: {:.0}", tenths.join(" "), most(samples))
}

/// Waits until no journal row is open.
async fn until_done(home: &Database) -> Result<()> {
    let (mut last, mut since) = (i64::MAX, Instant::now());
    loop {
        let open = home.number("SELECT count(*) FROM posthaste.journal WHERE state IN ('READY', 'PUBLISHED')").await?;
        if open == 0 {
            return Ok(());
        }
        if open < last {
            (last, since) = (open, Instant::now());
        } else if since.elapsed() > STANDS_STILL {
            bail!("{open} messages are not done, and nothing moves");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// How often each body stands in a table.
async fn bodies(home: &Database, table: &str) -> Result<BTreeMap<String, u32>> {
    let rows = home.client().query(&format!("SELECT message FROM {table}"), &[]).await?;
    let mut found = BTreeMap::new();
    for row in rows {
        *found.entry(row.try_get::<_, String>(0)?).or_insert(0) += 1;
    }
    Ok(found)
}
