//! All rows, one after the other; within a row the sides take turns.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::facts::Facts;
use super::figures::{Figure, Measured, Round};
use super::fill::Templates;
use super::product::Application;
use super::rows::{Kind, Row};
use super::servers::Servers;
use super::side::Side;
use super::{proc, report, round, say, svg, two};

pub struct Options {
    pub rows: Vec<Row>,
    pub rounds: usize,
    pub window: Duration,
    pub docs: bool,
}

/// How long an instance may settle before its idle CPU is taken, and for how long it is.
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);

pub async fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let mut servers = Servers::start().await?;
    let facts = Facts::of(&servers).await?;
    say(&facts.to_string());
    say(&format!("{} rounds of each side, {} s of load in each\n", options.rounds, options.window.as_secs()));
    let mut templates = Templates::default();
    let mut results = Vec::new();
    for row in &options.rows {
        let measured = measure(&mut servers, &mut templates, row, options).await?;
        let result = vec![(*row, measured)];
        say(&report::table(&result));
        results.extend(result);
    }
    servers.shutdown().await?;
    say(&format!("\n{}\n{}", report::table(&results), report::targets(&results)));
    let path = write_json(&facts, &results)?;
    say(&format!("{} s; every round is in {}", begun.elapsed().as_secs(), path.display()));
    if options.docs {
        draw(&facts, &results)?;
        tell(&facts, options, &results)?;
        say("docs/performance.md and docs/images/performance.svg are of this run now");
    }
    Ok(())
}

async fn measure(servers: &mut Servers, templates: &mut Templates, row: &Row, options: &Options) -> Result<Measured> {
    let mut measured = Measured::default();
    for number in 0..options.rounds {
        // Whoever comes second finds warmer caches: each does in turn.
        for second in [false, true] {
            let product = second == (number % 2 == 1);
            if row.kind == Kind::Idle && !product {
                continue;
            }
            let round = one(servers, templates, row, options.window, product).await?;
            say(&format!("{} {}: {}", row.name, if product { "product" } else { "other" }, brief(&round)));
            if product { measured.product.push(round) } else { measured.other.push(round) }
        }
    }
    Ok(measured)
}

fn brief(round: &Round) -> String {
    let figures = [Figure::Accepted, Figure::EndToEnd, Figure::P50, Figure::P99, Figure::Idle];
    let shown = figures.iter().filter_map(|figure| Some(format!("{} {:.2}", figure.title(), figure.of(round)?)));
    shown.collect::<Vec<_>>().join(", ")
}

/// One round of one side.
pub async fn one(
    servers: &mut Servers,
    templates: &mut Templates,
    row: &Row,
    window: Duration,
    product: bool,
) -> Result<Round> {
    let application = match row.bytes {
        0..=30 => Application::Text,
        _ => Application::Bytes,
    };
    let instances = if row.kind == Kind::TwoInstances { 2 } else { 1 };
    let plain = templates.of(servers, application).await?;
    servers.checkpoint().await?;
    let flushed = servers.flushes().await?;
    let side = match (row.kind, product) {
        (Kind::TwoDatabases, true) => return two::product(servers, templates).await,
        (Kind::TwoDatabases, false) => return two::by_hand(servers).await,
        (Kind::Idle, _) => return idle(servers, &plain).await,
        (Kind::Stored, true) => {
            let stored = templates.stored(servers).await?;
            servers.checkpoint().await?;
            Side::product(servers, application, &stored, 1).await?
        }
        (Kind::Stored, false) | (Kind::Plain | Kind::TwoInstances | Kind::Poison, true) => {
            Side::product(servers, application, &plain, instances).await?
        }
        (Kind::Plain | Kind::TwoInstances | Kind::Poison, false) => Side::floor(servers, application).await?,
    };
    round::run(servers, side, row, window, flushed).await
}

async fn idle(servers: &Servers, template: &str) -> Result<Round> {
    let side = Side::product(servers, Application::Text, template, 1).await?;
    tokio::time::sleep(SETTLE).await;
    let (before, begun) = (proc::cpu_seconds(&side.pids), Instant::now());
    tokio::time::sleep(IDLE).await;
    let used = proc::cpu_seconds(&side.pids) - before;
    let share = used * 100.0 / begun.elapsed().as_secs_f64();
    let rss = proc::peak_rss(&side.pids);
    let ground = side.stop(servers).await?;
    servers.clear(ground).await?;
    Ok(Round { idle: Some(share), rss, ..Round::default() })
}

fn write_json(facts: &Facts, results: &[(Row, Measured)]) -> Result<PathBuf> {
    // Beside what was compiled: …/target/release/deps/ratio-…
    let target = std::env::current_exe()?.ancestors().nth(3).unwrap_or(Path::new("target")).to_owned();
    let folder = target.join("bench");
    fs::create_dir_all(&folder)?;
    let rows: Vec<_> = results
        .iter()
        .map(|(row, measured)| serde_json::json!({ "row": row.name, "title": row.title, "rounds": measured }))
        .collect();
    let all = serde_json::json!({ "facts": facts, "rows": rows });
    let path = folder.join("ratio.json");
    fs::write(&path, serde_json::to_string_pretty(&all)?)?;
    Ok(path)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn draw(facts: &Facts, results: &[(Row, Measured)]) -> Result<()> {
    let folder = root().join("docs/images");
    fs::create_dir_all(&folder)?;
    let title = "Messages per second from POST to effect, as a share of the floor's";
    let note = format!("1 = the floor, or what the row names; orange = wanted. {}", facts.brief());
    let picture = svg::draw(title, &note, &report::bars(results));
    Ok(fs::write(folder.join("performance.svg"), picture)?)
}

fn tell(facts: &Facts, options: &Options, results: &[(Row, Measured)]) -> Result<()> {
    let path = root().join("docs/performance.md");
    let rounds = format!("{} rounds of each side, {} s of load in each.", options.rounds, options.window.as_secs());
    let parts = [facts.to_string(), rounds, report::table(results), report::targets(results)];
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).collect();
    let document = report::with_last_run(&fs::read_to_string(&path)?, &parts.join("\n\n"));
    Ok(fs::write(path, document.map_err(anyhow::Error::msg)?)?)
}
