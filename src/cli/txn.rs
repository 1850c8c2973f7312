//! `posthaste txn list|resolve`.

use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

use super::client::encode;
use super::output::{cell, list as elements, member, print_result, table};
use super::{Failure, Global, find};

#[derive(Debug, Subcommand)]
pub(super) enum TxnCommand {
    /// Show what is prepared in the databases and waits for its outcome
    List,
    /// Finish one prepared transaction by hand; recorded as heuristic
    Resolve(Resolve),
}

#[derive(Debug, Args)]
pub(super) struct Resolve {
    /// As `posthaste txn list` shows it
    gid: String,
    outcome: Outcome,
    /// Why, for the record
    #[arg(long)]
    reason: String,
    /// Also against the decision log, or while its coordinator lives: databases may then disagree for ever
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Outcome {
    /// COMMIT PREPARED
    Commit,
    /// ROLLBACK PREPARED
    Rollback,
}

pub(super) async fn txn(global: &Global, command: &TxnCommand) -> Result<(), Failure> {
    match command {
        TxnCommand::List => list(global).await,
        TxnCommand::Resolve(args) => resolve(global, args).await,
    }
}

async fn list(global: &Global) -> Result<(), Failure> {
    let found = find::console(global)?.get("/api/v1/transactions").await?;
    let row = |one: &Value| {
        let age = member(one, "ageSeconds").as_f64().map_or_else(|| "-".to_owned(), |age| format!("{age:.0} s"));
        let mut cells = vec![cell(one, "gid"), age, cell(one, "database"), cell(one, "adapter"), messages(one)];
        cells.extend(["decision", "coordinator", "locks"].map(|name| cell(one, name)));
        cells
    };
    let unreachable = elements(&found, "unreachable");
    print_result(global, &found, |out| {
        let rows: Vec<_> = elements(&found, "items").iter().map(row).collect();
        if rows.is_empty() && unreachable.is_empty() {
            return writeln!(out, "nothing is in doubt");
        }
        let headings = ["GID", "AGE", "DATABASE", "ADAPTER", "MESSAGE ID", "DECISION", "COORDINATOR", "LOCKS"];
        out.write_all(table(&headings, rows).as_bytes())?;
        for one in unreachable {
            writeln!(out, "database {} could not be asked: {}", cell(one, "database"), cell(one, "reason"))?;
        }
        Ok(())
    })?;
    if unreachable.is_empty() {
        return Ok(());
    }
    Err(Failure::try_again(format!("{} databases could not be asked", unreachable.len())))
}

/// Of a transaction that is not decided yet, only the first of its messages is known.
fn messages(one: &Value) -> String {
    let first = cell(one, "messageId");
    match elements(one, "others").len() {
        0 => first,
        1 => format!("{first} and 1 other"),
        others => format!("{first} and {others} others"),
    }
}

async fn resolve(global: &Global, args: &Resolve) -> Result<(), Failure> {
    let word = match args.outcome {
        Outcome::Commit => "commit",
        Outcome::Rollback => "rollback",
    };
    let path = format!("/api/v1/transactions/{}/{word}?as={}", encode(&args.gid), encode(&find::who(global)));
    let body = json!({"reason": args.reason, "force": args.force});
    let done = find::console(global)?.act(Method::POST, &path, &body).await?;
    print_result(global, &done, |out| {
        writeln!(out, "{} in database {}", cell(&done, "outcome"), cell(&done, "database"))
    })
}
