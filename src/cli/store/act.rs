//! `posthaste store resend` and `posthaste store delete`.

use clap::Args;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cli::client::encode;
use crate::cli::output::{cell, list, member, print_result, table};
use crate::cli::select::Target;
use crate::cli::{Failure, Global, OutputFormat, find};

#[derive(Debug, Args)]
pub(in crate::cli) struct ResendArgs {
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// Also what was parked so long ago that it was probably processed
    #[arg(long)]
    confirmed: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DeleteArgs {
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// Also log rows that still detect repeats: a repeat will be accepted again
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn resend(global: &Global, args: &ResendArgs) -> Result<(), Failure> {
    let more = json!({"reason": args.reason, "confirmed": args.confirmed});
    act(global, "resend", &args.target, more).await
}

pub(super) async fn delete(global: &Global, args: &DeleteArgs) -> Result<(), Failure> {
    let more = json!({"reason": args.reason, "force": args.force});
    act(global, "delete", &args.target, more).await
}

/// One key has an answer of its own; keys and filters are summarised.
async fn act(global: &Global, verb: &str, target: &Target, more: Value) -> Result<(), Failure> {
    let mut body = target.body()?;
    let (slot, who) = (encode(&target.slot), encode(&find::who(global)));
    let client = find::console(global)?;
    if let [key] = target.keys.as_slice() {
        let path = format!("/api/v1/stores/{slot}/messages/{key}");
        let answer = match verb {
            "delete" => client.request(Method::DELETE, &format!("{path}?as={who}"), &more).await?,
            _ => client.request(Method::POST, &format!("{path}/{verb}?as={who}"), &more).await?,
        };
        let running = answer.status == StatusCode::ACCEPTED;
        if !answer.status.is_success() && global.output == OutputFormat::Json {
            let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            print_result(global, &problem, |_| Ok(()))?;
        }
        let answer = answer.success()?;
        return print_result(global, &answer, |out| match running {
            true => writeln!(out, "message {key} is still being processed; posthaste trace tells how it ends"),
            false => writeln!(out, "message {key}: {verb} succeeded"),
        });
    }
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    let summary = client.act(Method::POST, &format!("/api/v1/stores/{slot}/{verb}?as={who}"), &body).await?;
    print_result(global, &summary, |out| {
        let failed = list(&summary, "failed");
        if !failed.is_empty() {
            let row = |one: &Value| ["key", "outcome", "step", "reason"].map(|member| cell(one, member)).to_vec();
            let rows = failed.iter().map(row).collect();
            writeln!(out, "{}", table(&["KEY", "OUTCOME", "STEP", "REASON"], rows))?;
        }
        writeln!(out, "{verb}: {}", figures(&summary))
    })?;
    verdict(verb, &summary)
}

fn figures(summary: &Value) -> String {
    let length = |name: &str| list(summary, name).len();
    let mut text = format!(
        "{} of {} succeeded, {} failed",
        member(summary, "succeeded"),
        member(summary, "total"),
        length("failed")
    );
    if length("running") > 0 {
        text.push_str(&format!(", {} still running", length("running")));
    }
    if member(summary, "more") == true {
        text.push_str("; more messages match: repeat the command for them");
    }
    text
}

fn verdict(verb: &str, summary: &Value) -> Result<(), Failure> {
    if let Some(reason) = member(member(summary, "stopped"), "reason").as_str() {
        let left = member(summary, "untouched");
        return Err(Failure::try_again(format!("{verb} stopped, {left} messages are untouched: {reason}")));
    }
    match list(summary, "failed").len() {
        0 => Ok(()),
        n => Err(Failure::failed(format!("{verb} failed for {n} of {} messages", member(summary, "total")))),
    }
}
