//! `posthaste send`.

use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use serde_json::{Value, json};

use super::client::Answer;
use super::output::{cell, print_result};
use super::{Failure, Global, find};
use crate::inbound::InboundSettings;

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// An adapter with an API listener
    adapter: String,
    /// The message; - reads standard input
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    body: Option<String>,
    /// Send the content of this file
    #[arg(long)]
    file: Option<PathBuf>,
    /// The message id; a repeat with the same id is answered as a duplicate [default: minted]
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// The correlation id [default: the message id]
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// The content type
    #[arg(long, value_name = "TYPE", default_value = "text/plain; charset=utf-8")]
    content_type: String,
}

pub(super) async fn send(global: &Global, args: &SendArgs) -> Result<(), Failure> {
    let settings = global.load()?;
    let listener = listener(&args.adapter, &settings.inbound)?;
    let mut headers = vec![(CONTENT_TYPE, value("--content-type", &args.content_type)?)];
    let id_header = listener.message_id_headers.first().cloned();
    if let (Some(id), Some(name)) = (&args.message_id, id_header) {
        headers.push((name, value("--message-id", id)?));
    }
    if let Some(id) = &args.correlation_id {
        headers.push((listener.correlation_id_header.clone(), value("--correlation-id", id)?));
    }
    let body = body(args)?;
    let path = format!("/api{}", listener.uri_pattern);
    let answer = find::api(global).await?.send(listener.method.clone(), &path, &headers, body).await?;
    report(global, &answer)
}

fn listener<'a>(adapter: &str, inbound: &'a [InboundSettings]) -> Result<&'a InboundSettings, Failure> {
    if let Some(found) = inbound.iter().find(|one| one.adapter.as_str() == adapter) {
        return Ok(found);
    }
    let known: Vec<_> = inbound.iter().map(|one| one.adapter.as_str()).collect();
    let known = if known.is_empty() { "there is none".to_owned() } else { format!("there are: {}", known.join(", ")) };
    Err(Failure::usage(format!("no adapter {adapter:?} has an API listener; {known}")))
}

fn value(option: &str, text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text)
        .map_err(|_| Failure::usage(format!("{option}: only visible ASCII characters can be sent")))
}

fn body(args: &SendArgs) -> Result<Bytes, Failure> {
    let unreadable = |what: &str, error: std::io::Error| Failure::failed(format!("{what} cannot be read: {error}"));
    match (&args.file, args.body.as_deref()) {
        (Some(file), _) => {
            std::fs::read(file).map(Bytes::from).map_err(|error| unreadable(&file.display().to_string(), error))
        }
        (None, Some("-")) => {
            let mut all = Vec::new();
            std::io::stdin().lock().read_to_end(&mut all).map_err(|error| unreadable("standard input", error))?;
            Ok(Bytes::from(all))
        }
        (None, Some(text)) => Ok(Bytes::from(text.to_owned())),
        (None, None) => Ok(Bytes::new()),
    }
}

/// A duplicate is no failure: the message was accepted before.
fn report(global: &Global, answer: &Answer) -> Result<(), Failure> {
    let duplicate = answer.status == StatusCode::NOT_MODIFIED;
    let header = |name: &HeaderName| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let receipt: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let outcome = header(&HeaderName::from_static("x-outcome"));
    let shown = json!({
        "status": answer.status.as_u16(), "location": header(&LOCATION), "outcome": outcome, "receipt": receipt,
    });
    print_result(global, &shown, |out| {
        let known = if duplicate { " (accepted before)" } else { "" };
        writeln!(out, "{}{known}", answer.status)?;
        if let Some(location) = header(&LOCATION) {
            writeln!(out, "location: {location}")?;
        }
        if let Some(outcome) = outcome {
            writeln!(out, "outcome: {outcome}")?;
        }
        // What a problem says goes to standard error.
        let members = receipt.as_object().filter(|_| answer.status.is_success());
        for name in members.into_iter().flat_map(|members| members.keys()) {
            writeln!(out, "{name}: {}", cell(&receipt, name))?;
        }
        Ok(())
    })?;
    if answer.status.is_success() || duplicate { Ok(()) } else { Err(answer.problem()) }
}
