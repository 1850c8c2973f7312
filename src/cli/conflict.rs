//! `posthaste conflict list`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::encode;
use super::output::{cell, list as elements, member, moment, print_result, table};
use super::{Failure, Global, find};

/// Largest page of the management API.
const PAGE: usize = 500;
/// Digits of a body's hash in a table: enough to compare two.
const DIGITS: usize = 12;

#[derive(Debug, Subcommand)]
pub(super) enum ConflictCommand {
    /// Show which ids came again with another body, which was refused as a repeat
    List(ListArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The message log's slot [default: all]
    slot: Option<String>,
    /// With exactly this id
    #[arg(long)]
    id: Option<String>,
    /// At most so many, by slot and id
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

pub(super) async fn conflict(global: &Global, command: &ConflictCommand) -> Result<(), Failure> {
    match command {
        ConflictCommand::List(args) => list(global, args).await,
    }
}

async fn list(global: &Global, args: &ListArgs) -> Result<(), Failure> {
    let client = find::console(global)?;
    let option = |name: &str, value: Option<&str>| value.map(|value| format!("&{name}={}", encode(value)));
    let (mut found, mut next) = (Vec::new(), None::<String>);
    let more = loop {
        let limit = (args.limit - found.len()).clamp(1, PAGE);
        let words = [
            option("slotId", args.slot.as_deref()),
            option("id", args.id.as_deref()),
            option("cursor", next.as_deref()),
        ];
        let words: String = words.into_iter().flatten().collect();
        let page = client.get(&format!("/api/v1/conflicts?as=cli&limit={limit}{words}")).await?;
        found.extend_from_slice(elements(&page, "items"));
        next = member(&page, "next").as_str().map(ToOwned::to_owned);
        if next.is_none() || found.len() >= args.limit {
            break next.is_some();
        }
    };
    print_result(global, &json!({"items": found, "more": more}), |out| {
        if found.is_empty() {
            return writeln!(out, "no id came again with another body");
        }
        let headings = ["SLOT", "ID", "TIMES", "LAST SEEN", "OTHER BODY", "BYTES", "ACCEPTED BODY", "BYTES", "KEY"];
        out.write_all(table(&headings, found.iter().map(row).collect()).as_bytes())?;
        if more {
            writeln!(out, "there are more; raise --limit to see them")?;
        }
        Ok(())
    })
}

fn row(one: &Value) -> Vec<String> {
    let digits = |body: &Value| cell(body, "sha256").chars().take(DIGITS).collect::<String>();
    let accepted = member(one, "accepted");
    vec![
        cell(one, "slotId"),
        cell(one, "id"),
        cell(one, "times"),
        moment(one, "lastSeen"),
        digits(one),
        cell(one, "size"),
        digits(accepted),
        cell(accepted, "size"),
        cell(accepted, "key"),
    ]
}
