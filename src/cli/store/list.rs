//! `posthaste store list`.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::client::{Client, encode};
use crate::cli::output::{cell, list as elements, member, moment, print_result, table};
use crate::cli::select::Select;
use crate::cli::{Failure, Global, find};
use crate::model::text::cut;

/// Largest page of the management API.
const PAGE: usize = 500;
/// Messages that are listed, unless told otherwise.
const LIMIT: usize = 50;
/// Characters of the comments in a table.
const COMMENTS: usize = 160;

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// The slot; without it all slots are counted
    slot: Option<String>,
    /// At most so many messages, newest first [default: 50]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    select: Select,
}

pub(super) async fn list(global: &Global, args: &ListArgs) -> Result<(), Failure> {
    if args.slot.is_none() && (args.limit.is_some() || !args.select.filter().is_empty()) {
        let advice = "name the slot before its filters; `posthaste store list` alone shows which there are";
        return Err(Failure::failed(format!("without a slot nothing can be filtered: {advice}")));
    }
    let client = find::console(global)?;
    match &args.slot {
        None => counts(global, &client).await,
        Some(slot) => messages(global, &client, slot, args).await,
    }
}

async fn counts(global: &Global, client: &Client) -> Result<(), Failure> {
    let stores = client.get("/api/v1/stores").await?;
    print_result(global, &stores, |out| {
        let row = |one: &Value| {
            let more = if member(one, "atLeast") == true { "+" } else { "" };
            let owner = if member(one, "orphaned") == true { "(no receiver)".to_owned() } else { cell(one, "adapter") };
            vec![cell(one, "slotId"), cell(one, "type"), format!("{}{more}", cell(one, "count")), owner]
        };
        let rows = elements(&stores, "items").iter().map(row).collect();
        out.write_all(table(&["SLOT", "TYPE", "MESSAGES", "ADAPTER"], rows).as_bytes())
    })
}

async fn messages(global: &Global, client: &Client, slot: &str, args: &ListArgs) -> Result<(), Failure> {
    let mut pages = Pages::new(slot, &args.select);
    let limit = args.limit.unwrap_or(LIMIT);
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(page) = pages.next(client, limit - found.len()).await?
    {
        found.extend(page);
    }
    let more = !pages.ended();
    print_result(global, &json!({"items": found, "more": more}), |out| {
        let row = |one: &Value| {
            vec![
                cell(one, "key"),
                cell(one, "type"),
                cell(one, "messageId"),
                moment(one, "messageDate"),
                cell(one, "attempts"),
                cell(one, "size"),
                cut(&cell(one, "comments"), COMMENTS),
            ]
        };
        let headings = ["KEY", "TYPE", "MESSAGE ID", "STORED", "ATTEMPTS", "BYTES", "COMMENTS"];
        out.write_all(table(&headings, found.iter().map(row).collect()).as_bytes())?;
        if more {
            writeln!(out, "there may be more; raise --limit to see them")?;
        }
        Ok(())
    })
}

/// Page after page of one slot, newest first.
pub(super) struct Pages {
    path: String,
    cursor: Option<String>,
    ended: bool,
}

impl Pages {
    pub(super) fn new(slot: &str, select: &Select) -> Self {
        let path = format!("/api/v1/stores/{}/messages?as=cli{}", encode(slot), select.query());
        Self { path, cursor: None, ended: false }
    }

    pub(super) const fn ended(&self) -> bool {
        self.ended
    }

    /// The next page, possibly empty; None after the last one.
    pub(super) async fn next(&mut self, client: &Client, most: usize) -> Result<Option<Vec<Value>>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let cursor = self.cursor.as_deref().map(|cursor| format!("&cursor={}", encode(cursor))).unwrap_or_default();
        let limit = most.clamp(1, PAGE);
        let mut page = client.get(&format!("{}&limit={limit}{cursor}", self.path)).await?;
        self.cursor = member(&page, "next").as_str().map(ToOwned::to_owned);
        self.ended = self.cursor.is_none();
        match page.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) | None => Err(Failure::internal("the answer holds no list of messages")),
        }
    }
}
