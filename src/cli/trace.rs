//! `posthaste trace`.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use super::client::encode;
use super::output::{cell, list, moment, print_result, table};
use super::{Failure, Global, find};
use crate::model::text::cut;

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// The message id, as its sender gave it
    message_id: String,
}

/// Characters of an error in a table.
const ERROR: usize = 160;

pub(super) async fn trace(global: &Global, args: &TraceArgs) -> Result<(), Failure> {
    let path = format!("/api/v1/messages/{}", encode(&args.message_id));
    let trace = find::console(global)?.get(&path).await?;
    print_result(global, &trace, |out| {
        writeln!(out, "Message {}: {}", cell(&trace, "messageId"), cell(&trace, "state"))?;
        for message in list(&trace, "messages") {
            acceptance(message, out)?;
        }
        Ok(())
    })
}

fn acceptance(message: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "\nAcceptance {}: {}", cell(message, "rootId"), cell(message, "state"))?;
    section(out, "Stored", &["SLOT", "TYPE", "KEY", "STORED", "COMMENTS"], list(message, "store"), |row| {
        let comments = cut(&cell(row, "comments"), ERROR);
        vec![cell(row, "slotId"), cell(row, "type"), cell(row, "key"), moment(row, "messageDate"), comments]
    })?;
    section(
        out,
        "Journal",
        &["CAUSE", "TO", "MODE", "STATE", "ATTEMPTS", "NOT BEFORE"],
        list(message, "journal"),
        |row| {
            let attempts = format!("{} of {}", cell(row, "attempts"), cell(row, "maxAttempts"));
            let (cause, to) = (cell(row, "cause"), cell(row, "destination"));
            vec![cause, to, cell(row, "mode"), cell(row, "state"), attempts, moment(row, "notBefore")]
        },
    )?;
    let headings = ["N", "STARTED", "FINISHED", "OUTCOME", "ADAPTER", "STEP", "ERROR"];
    section(out, "Attempts", &headings, list(message, "attempts"), |row| {
        let times = [moment(row, "startedAt"), moment(row, "finishedAt")];
        let (n, [started, finished], outcome) = (cell(row, "n"), times, cell(row, "outcome"));
        let error = cut(&cell(row, "error"), ERROR);
        vec![n, started, finished, outcome, cell(row, "adapter"), cell(row, "step"), error]
    })?;
    section(out, "Acts", &["AT", "WHO", "WHAT", "TARGET", "WHY", "OUTCOME"], list(message, "audit"), |row| {
        let rest = ["who", "what", "target", "why", "outcome"].map(|member| cell(row, member));
        std::iter::once(moment(row, "at")).chain(rest).collect()
    })
}

/// A titled table; nothing when it has no rows.
fn section(
    out: &mut dyn Write,
    title: &str,
    headings: &[&str],
    rows: &[Value],
    row: impl Fn(&Value) -> Vec<String>,
) -> std::io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    out.write_all(table(headings, rows.iter().map(row).collect()).as_bytes())
}
