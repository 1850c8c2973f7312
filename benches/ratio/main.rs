//! `make bench`: the product against the floor, side by side on private servers. See docs/performance.md.
//!
//! The same program is the floor and the loop written by hand, as processes of their own.
#![expect(clippy::disallowed_methods, reason = "a benchmark has no graceful stop; its tasks end with it")]

mod against;
mod child;
mod database;
mod facts;
mod figures;
mod fill;
mod floor;
mod http;
mod instructions;
mod interval;
mod ledger;
mod load;
mod overload;
mod pairs;
mod proc;
mod product;
mod queue;
mod report;
mod round;
mod rows;
mod run;
mod servers;
mod side;
mod svg;
mod twice;
mod two;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

#[derive(Parser)]
#[command(about = "Measures Posthaste against the least that PostgreSQL and RabbitMQ must do for the same job")]
struct Arguments {
    /// Only these rows, with commas.
    #[arg(long)]
    rows: Option<String>,
    /// Rounds of each side; the table shows medians. 5, or 20 pairs against another build.
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of load in each round. 5, or 2 against another build.
    #[arg(long)]
    window: Option<u64>,
    /// Not the table: whether this build is as fast as that of another `posthaste`, a file. Exit status 1: it is not.
    #[arg(long)]
    against: Option<PathBuf>,
    /// Draw docs/images/performance.svg, and put the tables into docs/performance.md.
    #[arg(long)]
    docs: bool,
    /// Not the table: twice what it can take, for so many seconds.
    #[arg(long)]
    overload: Option<u64>,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the benchmark starts beside itself.
#[derive(Subcommand)]
#[command(disable_help_subcommand = true)]
enum Part {
    #[command(hide = true)]
    Floor { postgres: String, amqp: String, port: u16, column: floor::Column },
    #[command(hide = true)]
    Twice { one: String, other: String, tasks: usize, messages: u64 },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Floor { postgres, amqp, port, column }) => {
            all_cores()?.block_on(floor::serve(&postgres, &amqp, port, column))?;
        }
        Some(Part::Twice { one, other, tasks, messages }) => {
            all_cores()?.block_on(twice::run(&one, &other, tasks, messages))?;
        }
        None => {
            // One thread: the clients must not crowd out what is measured.
            let runtime = Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(measure(arguments));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { rows, rounds, window, docs, overload, against, .. } = arguments;
    let window = |default| Duration::from_secs(window.unwrap_or(default).max(1));
    if let Some(seconds) = overload {
        overload::run(seconds.max(10)).await?;
    } else if let Some(other) = against {
        let rows = rows::select_compared(rows.as_deref()).map_err(anyhow::Error::msg)?;
        let options = against::Options { other, rows, pairs: rounds.unwrap_or(pairs::FEWEST), window: window(2) };
        if !against::run(&options).await? {
            return Ok(ExitCode::FAILURE);
        }
    } else {
        let rows = rows::select(rows.as_deref()).map_err(anyhow::Error::msg)?;
        run::run(&run::Options { rows, rounds: rounds.unwrap_or(5).max(1), window: window(5), docs }).await?;
    }
    Ok(ExitCode::SUCCESS)
}

fn all_cores() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

/// To standard output, at once. That nobody reads it any more is no reason to stop.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _unread = writeln!(out, "{text}").and_then(|()| out.flush());
}
