//! `make bench AGAINST=BINARY`: this build and another one take turns.
//!
//! A pair is both of them, started anew, each in a fresh database and virtual host of the same servers: one machine's disk and
//! one cache for both, so that only the builds differ, and what one start is by chance (addresses, seeds of hashes) does not
//! stay for the whole run. Both run for all of the pair, idle but for their turn, so that a row's two rounds follow each other
//! within seconds. Who is first changes with each pair (ABBA): what drifts harms both alike.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::facts::Facts;
use super::figures::{Round, percentile};
use super::instructions::{self, Counter};
use super::load::{Load, Until};
use super::pairs::{FEWEST, Pairs, verdict};
use super::proc::cpu_seconds;
use super::product::Application;
use super::rows::Row;
use super::servers::Servers;
use super::side::Side;
use super::{pairs, queue, say};

pub struct Options {
    pub other: PathBuf,
    pub rows: Vec<Row>,
    pub pairs: usize,
    pub window: Duration,
}

/// Before each row's first round, uncounted.
const WARM_UP: Duration = Duration::from_millis(500);
/// What a round takes beside its window, and a pair beside its rounds, on a machine that is not busy.
const AROUND_A_ROUND: Duration = Duration::from_millis(1200);
const AROUND_A_PAIR: Duration = Duration::from_secs(8);
/// A run that takes so many times as long as it should is given up: the machine is busy with something else.
const PATIENCE: u32 = 4;

/// One of the two builds.
struct Build {
    program: PathBuf,
}

/// A build at work, and what it was sent so far.
struct AtWork {
    side: Side,
    sent: u64,
}

/// Answers whether this build is as fast.
pub async fn run(options: &Options) -> Result<bool> {
    ensure!(options.pairs >= FEWEST, "at least {FEWEST} pairs (ROUNDS), or nothing is known");
    let begun = Instant::now();
    let (told, met) = verdict(&compare(options).await?);
    say(&format!("\n{}, against {}\n{told}", env!("CARGO_BIN_EXE_posthaste"), options.other.display()));
    say(&format!("{} s", begun.elapsed().as_secs()));
    Ok(met)
}

/// All rounds, however few.
pub async fn compare(options: &Options) -> Result<Vec<(Row, Pairs)>> {
    let (begun, should_take) = (Instant::now(), should_take(options));
    let counts = instructions::are_counted();
    let mut servers = Servers::start().await?;
    say(&Facts::of(&servers).await?.to_string());
    say(&format!(
        "{} pairs, {} s of load in each round; some {} min, given up after {}\n{}\n",
        options.pairs,
        options.window.as_secs(),
        should_take.as_secs().div_ceil(60),
        (should_take * PATIENCE).as_secs().div_ceil(60),
        if counts {
            "instructions are counted by perf"
        } else {
            "this machine counts no instructions: for a claim of a few per cent use valgrind (docs/performance.md)"
        }
    ));
    let this = Build::new(Path::new(env!("CARGO_BIN_EXE_posthaste")))?;
    let other = Build::new(&options.other)?;
    let mut results: Vec<(Row, Pairs)> = options.rows.iter().map(|row| (*row, Pairs::default())).collect();
    for number in 0..options.pairs {
        pair(&mut servers, [&this, &other], number, &mut results, options.window, counts).await?;
        if begun.elapsed() > should_take * PATIENCE {
            bail!("{} pairs have taken {} s: the machine is busy", number + 1, begun.elapsed().as_secs());
        }
    }
    servers.shutdown().await?;
    Ok(results)
}

fn should_take(options: &Options) -> Duration {
    let rounds = u32::try_from(options.rows.len() * 2).unwrap_or(u32::MAX);
    let pair = AROUND_A_PAIR + (options.window + WARM_UP + AROUND_A_ROUND) * rounds;
    pair * u32::try_from(options.pairs).unwrap_or(u32::MAX)
}

impl Build {
    fn new(program: &Path) -> Result<Self> {
        ensure!(program.is_file(), "there is no program {}", program.display());
        Ok(Self { program: program.to_owned() })
    }

    async fn start(&self, servers: &Servers) -> Result<AtWork> {
        let side = Side::one(servers, Application::Text, &self.program).await?;
        Ok(AtWork { side, sent: 0 })
    }
}

async fn pair(
    servers: &mut Servers,
    [this, other]: [&Build; 2],
    number: usize,
    results: &mut [(Row, Pairs)],
    window: Duration,
    counts: bool,
) -> Result<()> {
    let mut both = [this.start(servers).await?, other.start(servers).await?];
    for (row, pairs) in results.iter_mut() {
        let turns = if number.is_multiple_of(2) { [0, 1] } else { [1, 0] };
        for at in turns {
            let build = both.get_mut(at).context("there are two")?;
            build.load(servers, row, WARM_UP, false).await?;
            servers.checkpoint().await?;
            let round = build.load(servers, row, window, counts).await?;
            if at == 0 { pairs.this.push(round) } else { pairs.other.push(round) }
        }
        say(&format!("{}/{} {}: {}", number + 1, row.name, row.title, brief(row, pairs)));
    }
    for build in both {
        queue::is_empty(&build.side.ground.amqp, build.side.queue()).await?;
        let ground = build.side.stop(servers).await?;
        servers.clear(ground).await?;
    }
    Ok(())
}

/// What the last pair was, this by the other.
fn brief(row: &Row, pairs: &Pairs) -> String {
    let last = Pairs {
        this: pairs.this.last().copied().into_iter().collect(),
        other: pairs.other.last().copied().into_iter().collect(),
    };
    let claims = pairs::claims(row).iter();
    let told = claims.filter_map(|claim| Some(format!("{} {:.3}", claim.title(), last.ratios_of(*claim)?.first()?)));
    told.collect::<Vec<_>>().join(", ")
}

impl AtWork {
    /// Loads it, and waits until everything has taken effect, exactly once.
    async fn load(&mut self, servers: &mut Servers, row: &Row, time: Duration, counts: bool) -> Result<Round> {
        let load = Load {
            addresses: self.side.addresses.clone(),
            connections: row.connections,
            bytes: row.bytes,
            until: Until::Elapsed(time),
            poison: false,
        };
        // The other one is idle meanwhile: what the servers do, they do for this one.
        let (postgres, rabbit) = (servers.postgres_pid()?, servers.rabbit_pid()?);
        let cpu = || [self.side.pids.as_slice(), &[postgres], &[rabbit]].map(cpu_seconds);
        let before = cpu();
        let pid = *self.side.pids.first().context("it has a process")?;
        let counter = if counts { Some(Counter::start(pid)?) } else { None };
        let mut loaded = load.run().await?;
        self.sent += loaded.good;
        let done = self.side.until_done(self.sent, 0).await?;
        let (after, messages) = (cpu(), loaded.good as f64);
        let per_thousand = |before: f64, after: f64| Some((after - before) * 1000.0 / messages);
        let ([own, postgres, rabbit], [own_after, postgres_after, rabbit_after]) = (before, after);
        let instructions = counter.map(Counter::stop).transpose()?;
        Ok(Round {
            accepted: Some(loaded.rate),
            end_to_end: Some(messages / done.duration_since(loaded.began).as_secs_f64()),
            p50: percentile(&mut loaded.latencies, 500).map(|micros| f64::from(micros) / 1000.0),
            cpu_self: per_thousand(own, own_after),
            cpu_postgres: per_thousand(postgres, postgres_after),
            cpu_rabbit: per_thousand(rabbit, rabbit_after),
            instructions: instructions.map(|count| count / messages),
            ..Round::default()
        })
    }
}
