//! One round of one side under load, and what it has cost.

use std::time::Duration;

use anyhow::Result;

use super::figures::{Round, percentile};
use super::load::{Load, Until};
use super::proc::{cpu_seconds, own_cpu_seconds, peak_rss};
use super::queue;
use super::rows::{Kind, Row};
use super::servers::Servers;
use super::side::Side;

/// Connections, statements and caches of both sides are made before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// CPU seconds so far.
struct Spent {
    side: f64,
    postgres: f64,
    rabbit: f64,
    clients: f64,
}

/// Warms up, loads for `window`, waits until everything has taken effect, checks that it has, and stops the side.
/// `flushed_before`: how often the WAL had been flushed before the side was started.
pub async fn run(servers: &mut Servers, side: Side, row: &Row, window: Duration, flushed_before: f64) -> Result<Round> {
    let load = |time| Load {
        addresses: side.addresses.clone(),
        connections: row.connections,
        bytes: row.bytes,
        until: Until::Elapsed(time),
        poison: row.kind == Kind::Poison && side.is_product(),
    };
    let warm = load(WARM_UP).run().await?;
    side.until_done(warm.good, warm.poison).await?;
    servers.checkpoint().await?;

    let (wal, before) = (servers.wal_bytes().await?, spent(servers, &side)?);
    let mut loaded = load(window).run().await?;
    let (good, poison) = (warm.good + loaded.good, warm.poison + loaded.poison);
    let done = side.until_done(good, poison).await?;
    let (written, after) = (servers.wal_bytes().await? - wal, spent(servers, &side)?);

    let rss = peak_rss(&side.pids);
    let amqp = side.ground.amqp.clone();
    let queue = side.queue();
    queue::is_empty(&amqp, queue).await?;
    let ground = side.stop(servers).await?;
    let flushes = servers.flushes().await? - flushed_before;
    servers.clear(ground).await?;

    let messages = (loaded.good + loaded.poison) as f64;
    let per_thousand = |seconds: f64| Some(seconds * 1000.0 / messages);
    let milliseconds = |micros: Option<u32>| micros.map(|micros| f64::from(micros) / 1000.0);
    Ok(Round {
        accepted: Some(loaded.rate),
        end_to_end: Some(messages / done.duration_since(loaded.began).as_secs_f64()),
        p50: milliseconds(percentile(&mut loaded.latencies, 500)),
        p99: milliseconds(percentile(&mut loaded.latencies, 990)),
        cpu_self: per_thousand(after.side - before.side),
        cpu_postgres: per_thousand(after.postgres - before.postgres),
        cpu_rabbit: per_thousand(after.rabbit - before.rabbit),
        cpu_clients: per_thousand(after.clients - before.clients),
        rss,
        wal_bytes: Some(written / messages),
        flushes: Some(flushes / (good + poison) as f64),
        idle: None,
        instructions: None,
    })
}

fn spent(servers: &mut Servers, side: &Side) -> Result<Spent> {
    Ok(Spent {
        side: cpu_seconds(&side.pids),
        postgres: cpu_seconds(&[servers.postgres_pid()?]),
        rabbit: cpu_seconds(&[servers.rabbit_pid()?]),
        clients: own_cpu_seconds(),
    })
}
