//! `posthaste store show`.

use clap::Args;
use serde_json::Value;

use crate::cli::client::encode;
use crate::cli::output::{cell, member, print_result};
use crate::cli::{Failure, Global, find};
use crate::model::text;

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// The slot
    slot: String,
    /// The message's key
    key: i64,
}

/// Members in the order in which people ask for them; the body follows.
const MEMBERS: &[(&str, &str)] = &[
    ("key", "Key"),
    ("slotId", "Slot"),
    ("type", "Type"),
    ("messageId", "Message id"),
    ("correlationId", "Correlation id"),
    ("messageDate", "Stored"),
    ("expiryDate", "Expires"),
    ("attempts", "Attempts"),
    ("comments", "Comments"),
    ("contentType", "Content type"),
    ("size", "Bytes"),
    ("sha256", "SHA-256"),
    ("headers", "Headers"),
    ("context", "Context"),
    ("label", "Label"),
    ("host", "Host"),
    ("txId", "Transaction"),
    ("rootId", "Acceptance"),
];

pub(super) async fn show(global: &Global, args: &ShowArgs) -> Result<(), Failure> {
    let path = format!("/api/v1/stores/{}/messages/{}", encode(&args.slot), args.key);
    let message = find::console(global)?.get(&path).await?;
    print_result(global, &message, |out| {
        for (name, title) in MEMBERS {
            let value = member(&message, name);
            let empty = value.as_object().is_some_and(serde_json::Map::is_empty);
            if !value.is_null() && !empty {
                writeln!(out, "{title:<16}{}", cell(&message, name))?;
            }
        }
        match (member(&message, "message"), member(&message, "messageBase64")) {
            (Value::String(body), _) => writeln!(out, "\n{}", text::lines(body)),
            (_, Value::String(base64)) => writeln!(out, "\n(not text; base64)\n{base64}"),
            _ => Ok(()),
        }
    })
}
