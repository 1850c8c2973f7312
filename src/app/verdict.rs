//! From what the tables and the brokers say to a verdict (B2). Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::store::{Snapshot, Standing};

/// Who claims which slot and which queue, as the configurations say.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// Adapter by slot, message logs and error stores.
    pub slots: BTreeMap<String, String>,
    /// Adapter by destination that it consumes.
    pub consumers: BTreeMap<String, String>,
    /// Destinations that are only sent to.
    pub sent_to: BTreeSet<String>,
}

/// What a broker says of one of our queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    pub ready: i64,
    pub consumers: i64,
}

/// The answer of `posthaste prove`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// Every message is accounted for and no rule is broken.
    pub accounted_for: bool,
    pub taken_at: Timestamp,
    /// Only what was accepted at this moment or later is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only what was accepted before this moment is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    pub balance: Vec<Line>,
    pub violations: Vec<Violation>,
    pub queues: Vec<Queue>,
    /// Rows in slots that no configuration names, and open rows that no receiver here consumes. No violation.
    pub orphans: Vec<Orphan>,
    pub conflicts: Conflicts,
}

/// accepted = the sum of all that follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub adapter: Option<String>,
    /// The message log, else the error store, that holds it; else where it goes.
    pub slot: Option<String>,
    pub accepted: i64,
    pub processed: i64,
    pub handed_over: i64,
    pub waiting: i64,
    pub retrying: i64,
    pub in_error: i64,
    pub resent: i64,
    pub deleted: i64,
    pub parked: i64,
    /// Settled so long ago that the journal has forgotten how.
    pub cleaned: i64,
    pub unaccounted: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    pub rule: &'static str,
    pub meaning: &'static str,
    /// Exact, however few are named.
    pub count: i64,
    pub ids: Vec<Id>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Id {
    pub tx_id: Option<String>,
    pub message_id: Option<String>,
}

/// Open rows of a destination beside what its broker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    pub destination: String,
    pub published: i64,
    pub ready_to_publish: i64,
    /// Handed over, resent or adopted: not on our queue, or not any more.
    pub other: i64,
    /// Messages ready on the queue; those out at consumers are invisible. None: not asked, or no such queue.
    pub on_queue: Option<i64>,
    pub consumers: Option<i64>,
    pub oldest_tx_id: Option<String>,
    pub oldest_seconds: Option<u64>,
    /// What the comparison can tell.
    pub told: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    pub what: String,
    pub rows: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Conflicts {
    pub ids: i64,
    pub times: i64,
}

impl Line {
    fn add(&mut self, standing: Standing, messages: i64) {
        let column = match standing {
            Standing::Processed => &mut self.processed,
            Standing::HandedOver => &mut self.handed_over,
            Standing::Waiting => &mut self.waiting,
            Standing::Retrying => &mut self.retrying,
            Standing::InError => &mut self.in_error,
            Standing::Resent => &mut self.resent,
            Standing::Deleted => &mut self.deleted,
            Standing::Parked => &mut self.parked,
            Standing::Cleaned => &mut self.cleaned,
            Standing::Unaccounted => &mut self.unaccounted,
        };
        *column += messages;
        self.accepted += messages;
    }
}

/// `depths`: by destination, for the queues that a broker was asked about; `None`: there is no such queue.
pub fn judge(snapshot: &Snapshot, claims: &Claims, depths: &BTreeMap<String, Option<Depth>>) -> Proof {
    let balance = balance(snapshot, claims);
    let violations: Vec<Violation> = snapshot.findings.iter().filter(|found| found.count > 0).map(violation).collect();
    let lost = balance.iter().any(|line| line.unaccounted > 0);
    Proof {
        accounted_for: violations.is_empty() && !lost,
        taken_at: snapshot.taken_at,
        since: None,
        until: None,
        balance,
        violations,
        queues: queues(snapshot, claims, depths),
        orphans: orphans(snapshot, claims),
        conflicts: Conflicts { ids: snapshot.conflicts.0, times: snapshot.conflicts.1 },
    }
}

fn balance(snapshot: &Snapshot, claims: &Claims) -> Vec<Line> {
    let mut lines: BTreeMap<(Option<String>, Option<String>), Line> = BTreeMap::new();
    for count in &snapshot.counts {
        let slot = count.slot.clone().or_else(|| count.destination.clone());
        let adapter = slot.as_ref().and_then(|slot| claims.slots.get(slot).or_else(|| claims.consumers.get(slot)));
        let line = lines.entry((adapter.cloned(), slot.clone())).or_default();
        line.adapter = adapter.cloned();
        line.slot = slot;
        line.add(count.standing, count.messages);
    }
    lines.into_values().collect()
}

fn violation(found: &crate::store::Finding) -> Violation {
    let id = |offender: &crate::store::Offender| Id {
        tx_id: offender.tx_id.map(|tx_id| tx_id.to_string()),
        message_id: offender.message_id.clone(),
    };
    Violation {
        rule: found.rule.as_str(),
        meaning: found.rule.meaning(),
        count: found.count,
        // The index has no id.
        ids: found.ids.iter().map(id).filter(|id| id.tx_id.is_some() || id.message_id.is_some()).collect(),
    }
}

fn queues(snapshot: &Snapshot, claims: &Claims, depths: &BTreeMap<String, Option<Depth>>) -> Vec<Queue> {
    let open = snapshot.loads.iter().map(|load| &load.destination);
    let names: BTreeSet<&String> = claims.consumers.keys().chain(open).collect();
    names
        .into_iter()
        .map(|destination| {
            let load = snapshot.loads.iter().find(|load| load.destination == *destination);
            let (published, ready) = load.map_or((0, 0), |load| (load.own_published, load.own_ready));
            let depth = depths.get(destination);
            Queue {
                destination: destination.clone(),
                published,
                ready_to_publish: ready,
                other: load.map_or(0, |load| load.other),
                on_queue: depth.copied().flatten().map(|depth| depth.ready),
                consumers: depth.copied().flatten().map(|depth| depth.consumers),
                oldest_tx_id: load.map(|load| load.oldest.to_string()),
                oldest_seconds: load.map(|load| load.oldest_age.as_secs()),
                told: told(published, ready, depth.copied()),
            }
        })
        .collect()
}

/// What a depth tells. Never a loss: a row stays open, and is published again, until its message is done (protocol §1).
fn told(published: i64, ready: i64, depth: Option<Option<Depth>>) -> String {
    let depth = match depth {
        None => return "the broker was not asked".to_owned(),
        Some(None) => return "there is no such queue: nothing moves until it is made".to_owned(),
        Some(Some(depth)) => depth,
    };
    let surplus = depth.ready - published - ready;
    let missing = published - depth.ready;
    if surplus > 0 {
        return format!(
            "at least {surplus} are repeats, which will be dropped, or messages of others, not adopted yet"
        );
    }
    if missing > 0 && depth.consumers > 0 {
        return format!("at least {missing} are out at consumers, or lost by the broker and to be published again");
    }
    if missing > 0 {
        return format!("nobody consumes, so at least {missing} are lost by the broker and to be published again");
    }
    "no contradiction; repeats and messages of others cannot be told from our own by number".to_owned()
}

fn orphans(snapshot: &Snapshot, claims: &Claims) -> Vec<Orphan> {
    let known = |slot: &String| {
        claims.slots.contains_key(slot) || claims.consumers.contains_key(slot) || claims.sent_to.contains(slot)
    };
    let rows = snapshot.slots.iter().filter(|rows| !known(&rows.slot));
    let rows = rows.map(|rows| Orphan {
        what: format!("slot {} ({}) belongs to no adapter here", rows.slot, rows.kind),
        rows: rows.rows,
    });
    let own = |load: &&crate::store::Load| load.own_published + load.own_ready > 0;
    let loads = snapshot.loads.iter().filter(own).filter(|load| !claims.consumers.contains_key(&load.destination));
    let loads = loads.map(|load| Orphan {
        what: format!("no adapter here consumes {}", load.destination),
        rows: load.own_published + load.own_ready,
    });
    rows.chain(loads).collect()
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
