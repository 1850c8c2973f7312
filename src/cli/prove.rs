//! `posthaste prove`: is every message accounted for?

use std::io::Write;

use clap::Args;
use jiff::Timestamp;

use super::output::{one_line, print_result, table};
use super::select::read_moment;
use super::{Failure, Global};
use crate::app::{self, AcceptedIn, Proof, ProveRequest};

#[derive(Debug, Clone, Args)]
pub struct ProveArgs {
    /// How many offending ids are named per broken rule; all are counted
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    ids: u16,
    /// Account for what was accepted at this moment or later, such as 2026-01-31 or 2026-01-31T13:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = read_moment)]
    since: Option<Timestamp>,
    /// Account for what was accepted before this moment
    #[arg(long, value_name = "MOMENT", value_parser = read_moment)]
    until: Option<Timestamp>,
    /// Do not ask the brokers how deep the queues are.
    #[arg(long)]
    without_brokers: bool,
}

pub async fn prove(global: &Global, args: &ProveArgs) -> Result<(), Failure> {
    global.start_logging()?;
    if let (Some(since), Some(until)) = (args.since, args.until)
        && since >= until
    {
        return Err(Failure::usage(format!("nothing was accepted since {since} and before {until}: exchange them")));
    }
    let settings = global.load_running().await?;
    let accepted = AcceptedIn { since: args.since, until: args.until };
    let request = ProveRequest { named: args.ids.into(), accepted, brokers: !args.without_brokers };
    let proof = Box::pin(app::prove(&settings, request)).await?;
    print_result(global, &proof, |out| write(&proof, out))?;
    if proof.accounted_for {
        return Ok(());
    }
    Err(Failure::failed("not every message is accounted for"))
}

fn write(proof: &Proof, out: &mut dyn Write) -> std::io::Result<()> {
    balance(proof, out)?;
    for violation in &proof.violations {
        writeln!(out, "\n{} x {}: {}", violation.count, violation.rule, violation.meaning)?;
        for id in &violation.ids {
            let tx_id = id.tx_id.as_deref().unwrap_or("-");
            writeln!(out, "  {tx_id}  {}", one_line(id.message_id.as_deref().unwrap_or("-")))?;
        }
    }
    queues(proof, out)?;
    for orphan in &proof.orphans {
        writeln!(out, "note: {}: {} row(s)", one_line(&orphan.what), orphan.rows)?;
    }
    if proof.conflicts.ids > 0 {
        let conflicts = proof.conflicts;
        writeln!(out, "note: {} id(s) came again with another body, {} time(s)", conflicts.ids, conflicts.times)?;
    }
    let verdict = if proof.accounted_for { "every message is accounted for" } else { "NOT accounted for" };
    writeln!(out, "\n{}: {verdict}{}", proof.taken_at.strftime("%Y-%m-%d %H:%M:%SZ"), range(proof))
}

/// Of which messages the verdict speaks, when not of all.
fn range(proof: &Proof) -> String {
    match (proof.since, proof.until) {
        (None, None) => String::new(),
        (Some(since), None) => format!(", of those accepted since {since}"),
        (None, Some(until)) => format!(", of those accepted before {until}"),
        (Some(since), Some(until)) => format!(", of those accepted since {since} and before {until}"),
    }
}

fn balance(proof: &Proof, out: &mut dyn Write) -> std::io::Result<()> {
    let headings = [
        "ADAPTER",
        "SLOT",
        "ACCEPTED",
        "PROCESSED",
        "HANDED OVER",
        "WAITING",
        "RETRYING",
        "IN ERROR",
        "RESENT",
        "DELETED",
        "PARKED",
        "CLEANED",
        "UNACCOUNTED",
    ];
    let text = |name: Option<&String>| name.map_or_else(|| "-".to_owned(), |name| one_line(name));
    let rows = proof.balance.iter().map(|line| {
        let counts = [
            line.accepted,
            line.processed,
            line.handed_over,
            line.waiting,
            line.retrying,
            line.in_error,
            line.resent,
            line.deleted,
            line.parked,
            line.cleaned,
            line.unaccounted,
        ];
        let names = [text(line.adapter.as_ref()), text(line.slot.as_ref())];
        names.into_iter().chain(counts.iter().map(i64::to_string)).collect()
    });
    out.write_all(table(&headings, rows.collect()).as_bytes())
}

fn queues(proof: &Proof, out: &mut dyn Write) -> std::io::Result<()> {
    if proof.queues.is_empty() {
        return Ok(());
    }
    let number = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let rows = proof.queues.iter().map(|queue| {
        let oldest = queue.oldest_seconds.map_or_else(|| "-".to_owned(), |age| format!("{age} s"));
        vec![
            one_line(&queue.destination),
            queue.published.to_string(),
            queue.ready_to_publish.to_string(),
            queue.other.to_string(),
            oldest,
            number(queue.on_queue),
            queue.told.clone(),
        ]
    });
    let headings = ["QUEUE", "PUBLISHED", "TO PUBLISH", "OTHER OPEN", "OLDEST", "ON QUEUE", "WHICH TELLS"];
    writeln!(out)?;
    out.write_all(table(&headings, rows.collect()).as_bytes())
}
