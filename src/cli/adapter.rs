//! `posthaste adapter list|start|stop`.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::client::encode;
use super::output::{cell, list as elements, moment, print_result, table};
use super::{Failure, Global, find};

#[derive(Debug, Subcommand)]
pub(super) enum AdapterCommand {
    /// Show all adapters and their states
    List,
    /// Start an adapter, and wait until it is started
    Start(Change),
    /// Stop an adapter, and wait until it is stopped; it stays stopped over restarts
    Stop(Change),
}

#[derive(Debug, Args)]
pub(super) struct Change {
    /// The adapter's name
    name: String,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
}

pub(super) async fn adapter(global: &Global, command: &AdapterCommand) -> Result<(), Failure> {
    match command {
        AdapterCommand::List => list(global).await,
        AdapterCommand::Start(change) => set(global, change, "start").await,
        AdapterCommand::Stop(change) => set(global, change, "stop").await,
    }
}

async fn list(global: &Global) -> Result<(), Failure> {
    let adapters = find::console(global)?.get("/api/v1/adapters").await?;
    let row = |one: &Value| {
        ["name", "state", "since", "listener", "configuration", "reason"]
            .map(|member| if member == "since" { moment(one, member) } else { cell(one, member) })
            .to_vec()
    };
    print_result(global, &adapters, |out| {
        let rows = elements(&adapters, "items").iter().map(row).collect();
        let headings = ["ADAPTER", "STATE", "SINCE", "LISTENS TO", "CONFIGURATION", "REASON"];
        out.write_all(table(&headings, rows).as_bytes())
    })
}

async fn set(global: &Global, change: &Change, verb: &str) -> Result<(), Failure> {
    let path = format!("/api/v1/adapters/{}/{verb}?as={}", encode(&change.name), encode(&find::who(global)));
    let body = json!({"reason": change.reason});
    let status = find::console(global)?.act(Method::POST, &path, &body).await?;
    print_result(global, &status, |out| writeln!(out, "{} is {}", cell(&status, "name"), cell(&status, "state")))
}
