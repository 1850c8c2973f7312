//! The judgement: everything known of one id is put together, then judged by itself.

use std::collections::BTreeMap;

use super::{FinalState, Kind, Operation, Promise, Violations};

/// Everything known of one message id.
#[derive(Default)]
struct Record<'a> {
    operations: Vec<&'a Operation>,
    message: usize,
    other_message: usize,
    logged: usize,
    errors: usize,
    parked: usize,
    open: usize,
}

/// Names every violation of I1 to I6 that can be seen from outside.
pub fn check(log: &[Operation], end: &FinalState) -> Violations {
    let mut found = Violations::default();
    for (id, record) in records(log, end) {
        for kind in judge(&record) {
            found.add(kind, id);
        }
    }
    for gid in &end.prepared {
        found.add(Kind::OrphanedPrepared, gid);
    }
    if end.queue_depth > 0 {
        found.add(Kind::Stuck, format!("{} in the queue", end.queue_depth));
    }
    found
}

fn records<'a>(log: &'a [Operation], end: &'a FinalState) -> BTreeMap<&'a str, Record<'a>> {
    let id_of: BTreeMap<&str, &str> = log.iter().map(|op| (op.body.as_str(), op.message_id.as_str())).collect();
    // A text that nobody posted stands for itself.
    let by_text = |text: &'a String| *id_of.get(text.as_str()).unwrap_or(&text.as_str());

    let mut records: BTreeMap<&str, Record<'_>> = BTreeMap::new();
    for op in log {
        records.entry(&op.message_id).or_default().operations.push(op);
    }
    for text in &end.message {
        records.entry(by_text(text)).or_default().message += 1;
    }
    for text in &end.other_message {
        records.entry(by_text(text)).or_default().other_message += 1;
    }
    for id in &end.logged {
        records.entry(id).or_default().logged += 1;
    }
    for id in &end.errors {
        records.entry(id).or_default().errors += 1;
    }
    for id in &end.parked {
        records.entry(id).or_default().parked += 1;
    }
    for id in &end.open {
        records.entry(id).or_default().open += 1;
    }
    records
}

fn judge(record: &Record<'_>) -> Vec<Kind> {
    let outside = record.with(Promise::OutsideContract).next().is_some();
    if record.operations.iter().all(|op| op.answer.promise() == Promise::Nothing) {
        return if record.leaves_a_trace() { vec![Kind::Phantom] } else { Vec::new() };
    }
    let effect = record.message > 0 || record.other_message > 0;
    let accepted = record.with(Promise::Accepted).count();
    let settled = effect || record.errors > 0;
    let elsewhere = record.open > 0 || record.parked > 0;

    let rules = [
        (Kind::OutsideContract, outside),
        (Kind::Lost, (accepted > 0 || record.logged > 0) && !settled && !elsewhere),
        (
            Kind::Duplicated,
            record.message > 1 || record.other_message > 1 || record.errors > 1 || (effect && record.errors > 0),
        ),
        (Kind::Torn, (record.message > 0) != (record.other_message > 0)),
        (Kind::FalseDuplicate, record.has_false_duplicate()),
        (Kind::TwiceAccepted, accepted > 1 || record.logged > 1),
        (Kind::Blamed, record.errors > 0 && !effect && !record.operations.iter().any(|op| op.poison)),
        (Kind::Unlogged, (settled || elsewhere) && record.logged == 0),
        (Kind::Parked, record.parked > 0),
        (Kind::Stuck, record.open > 0),
    ];
    rules.into_iter().filter_map(|(kind, broken)| broken.then_some(kind)).collect()
}

impl<'a> Record<'a> {
    fn with(&self, promise: Promise) -> impl Iterator<Item = &&'a Operation> {
        self.operations.iter().filter(move |op| op.answer.promise() == promise)
    }

    fn leaves_a_trace(&self) -> bool {
        self.message + self.other_message + self.logged + self.errors + self.parked + self.open > 0
    }

    /// A duplicate answer needs an acceptance, and the request that was accepted must have started before the duplicate
    /// answer ended. With a 202 that request is known; without one it is any whose outcome is unknown.
    fn has_false_duplicate(&self) -> bool {
        let never_accepted = self.with(Promise::Accepted).next().is_none() && !self.leaves_a_trace();
        let known = self.with(Promise::Accepted).map(|op| op.start).min();
        let possible = || {
            let open = self.with(Promise::Unknown).chain(self.with(Promise::OutsideContract));
            open.map(|op| op.start).min()
        };
        let earliest = known.or_else(possible);
        self.with(Promise::Duplicate).any(|op| never_accepted || earliest.is_none_or(|start| op.end < start))
    }
}
