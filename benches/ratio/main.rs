//! `make bench`: the product against the floor, side by side on private servers. See docs/performance.md.
//!
//! The same program is the floor and the loop written by hand, as processes of their own.
#![expect(clippy::disallowed_methods, reason = "a benchmark has no graceful stop; its tasks end with it")]

mod child;
mod database;
mod facts;
mod figures;
mod fill;
mod floor;
mod http;
mod ledger;
mod load;
mod overload;
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
    /// Rounds of each side; the table shows medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load in each round.
    #[arg(long, default_value_t = 5)]
    window: u64,
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

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Floor { postgres, amqp, port, column }) => {
            all_cores()?.block_on(floor::serve(&postgres, &amqp, port, column))
        }
        Some(Part::Twice { one, other, tasks, messages }) => {
            all_cores()?.block_on(twice::run(&one, &other, tasks, messages))
        }
        None => {
            // One thread: the clients must not crowd out what is measured.
            let runtime = Builder::new_current_thread().enable_all().build()?;
            if let Some(seconds) = arguments.overload {
                return runtime.block_on(overload::run(seconds.max(10)));
            }
            let rows = rows::select(arguments.rows.as_deref()).map_err(anyhow::Error::msg)?;
            let options = run::Options {
                rows,
                rounds: arguments.rounds.max(1),
                window: Duration::from_secs(arguments.window.max(1)),
                docs: arguments.docs,
            };
            runtime.block_on(run::run(&options))
        }
    }
}

fn all_cores() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

/// To standard output, at once. That nobody reads it any more is no reason to stop.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _unread = writeln!(out, "{text}").and_then(|()| out.flush());
}
