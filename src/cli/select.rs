//! Which rows of a store: filters in common to list, resend, delete and export.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Failure;
use super::client::encode;
use crate::console::parse_timestamp;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct Select {
    /// Types: A log, E error, H held, M waiting, I in process, L sender log; several as E,H
    #[arg(long = "type", value_name = "TYPES")]
    kind: Option<String>,
    /// With exactly this message id
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// With exactly this correlation id
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Stored at this moment or later, such as 2026-01-31 or 2026-01-31T13:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    from: Option<String>,
    /// Stored before this moment
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    to: Option<String>,
    /// With this text in the comments, in any case
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// With so many attempts or more
    #[arg(long, value_name = "N")]
    min_attempts: Option<u32>,
}

fn moment(text: &str) -> Result<String, String> {
    read_moment(text).map(|moment| moment.to_string())
}

pub(super) fn read_moment(text: &str) -> Result<Timestamp, String> {
    parse_timestamp(text).ok_or_else(|| "write 2026-01-31, 2026-01-31T13:00 (UTC) or 2026-01-31T13:00:00Z".to_owned())
}

impl Select {
    /// As the management API's `filter`.
    pub(super) fn filter(&self) -> Map<String, Value> {
        let Self { kind, message_id, correlation_id, from, to, text, min_attempts } = self;
        let texts = [
            ("type", kind),
            ("messageId", message_id),
            ("correlationId", correlation_id),
            ("from", from),
            ("to", to),
            ("text", text),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text.clone()?))));
        texts.chain(min_attempts.map(|n| ("minAttempts".to_owned(), Value::from(n)))).collect()
    }

    /// As the query string of a page, starting with `&` when there is anything.
    pub(super) fn query(&self) -> String {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        self.filter().iter().map(|(name, value)| format!("&{name}={}", encode(&text(value)))).collect()
    }
}

/// What an action acts on: keys, or what the filters say.
#[derive(Debug, Clone, Args)]
pub(super) struct Target {
    /// The slot
    pub(super) slot: String,
    /// Keys of the messages
    pub(super) keys: Vec<i64>,
    /// Every message in the error store of the slot
    #[arg(long, conflicts_with = "keys")]
    all: bool,
    // Last: its heading would hold for what follows.
    #[command(flatten)]
    select: Select,
}

impl Target {
    /// The body of a bulk action.
    pub(super) fn body(&self) -> Result<Value, Failure> {
        let filter = self.select.filter();
        match (self.keys.is_empty(), filter.is_empty() && !self.all) {
            (false, true) => Ok(serde_json::json!({"keys": self.keys})),
            (true, false) => Ok(serde_json::json!({"filter": filter})),
            (true, true) => Err(Failure::usage("say which messages: give keys, filters, or --all".to_owned())),
            (false, false) => Err(Failure::usage("give either keys or filters, not both".to_owned())),
        }
    }
}
