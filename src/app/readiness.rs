//! Whether a POST would be accepted now, and whether messages are processed; with reasons.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::console::{Part, Readiness, Reason};
use crate::inbound::{Acceptor, InboundSettings, Path};
use crate::lifecycle::{NeededFor, Trouble, Watch};
use crate::model::AdapterState;
use crate::pipeline::AdapterSettings;
use crate::receiver::ReceiverSettings;
use crate::relay::{Shared, T_RECOVER};

/// A question that may be asked at any time and asks no server itself. A stopped adapter is no reason.
pub fn probe(
    acceptor: Arc<Acceptor>,
    inbound: Vec<InboundSettings>,
    adapters: Vec<AdapterSettings>,
    receivers: Vec<ReceiverSettings>,
    shared: Shared,
    home: String,
    watch: Watch,
) -> impl Fn() -> Readiness + Send + Sync {
    let inbound: Vec<(InboundSettings, Path)> = inbound
        .into_iter()
        .map(|one| {
            let path = Path::of(&one, &adapters);
            (one, path)
        })
        .collect();
    let since: Mutex<BTreeMap<String, Timestamp>> = Mutex::default();
    move || {
        let registry = &acceptor.registry;
        let mut found = Vec::new();
        let trouble = shared.trouble().map(|trouble| format!("home database {home}: {trouble}"));
        let uncompared = || (!shared.compared()).then(|| format!("{home} is not compared with the brokers yet"));
        if let Some(what) = trouble.or_else(uncompared) {
            found.push((Part::Accepting, what.clone()));
            found.push((Part::Processing, what));
        }
        // What is accepted for them waits; of what is refused for that each adapter speaks below.
        let troubled = acceptor.relay.all_troubled();
        found.extend(troubled.iter().map(|one| (Part::Processing, one.what.clone())));
        for (one, path) in inbound.iter().filter(|(one, _)| registry.is_started(&one.adapter)) {
            // Each connection speaks for itself, also while another is down.
            let not_ready = acceptor.ready(one, path).err().map(|one| one.reason);
            let trouble = not_ready.into_iter().chain(acceptor.trouble(one, path));
            for what in trouble {
                if !found.contains(&(Part::Accepting, what.clone())) {
                    found.push((Part::Accepting, what));
                }
            }
        }
        for receiver in receivers.iter().filter(|receiver| registry.is_wanted(&receiver.adapter)) {
            let Some(status) = registry.get(&receiver.adapter) else { continue };
            if status.state != AdapterState::Started {
                let why = status.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
                found.push((Part::Processing, format!("adapter {} is {}{why}", status.name, status.state)));
            }
        }
        let waiting = acceptor.store.databases.waiting();
        found.extend(waiting.into_iter().map(|(_, why)| (Part::Processing, why)));
        found.extend(doubts(&shared).into_iter().map(|what| (Part::Processing, what)));
        let known = troubled.into_iter().map(|one| (one.what, one.since)).collect();
        let mut reasons = with_times(found, &known, &since);
        reasons.extend(watch.troubles().into_iter().flat_map(of_task));
        let none = |part| !reasons.iter().any(|reason: &Reason| reason.part == part);
        Readiness { accepting: none(Part::Accepting), processing: none(Part::Processing), reasons }
    }
}

/// A task that is not well, for each part that needs it.
fn of_task(trouble: Trouble) -> impl Iterator<Item = Reason> {
    let parts: &[Part] = match trouble.needed_for {
        NeededFor::Accepting => &[Part::Accepting],
        NeededFor::Processing => &[Part::Processing],
        NeededFor::Both => &[Part::Accepting, Part::Processing],
        NeededFor::Neither => &[],
    };
    parts.iter().map(move |part| Reason { part: *part, what: trouble.what.clone(), since: trouble.since })
}

/// What recovery should have finished by now (I6), and which databases it could not ask.
fn doubts(shared: &Shared) -> Vec<String> {
    let round = shared.recovery();
    let mut found = Vec::new();
    let mut late: BTreeMap<&str, usize> = BTreeMap::new();
    for (database, _) in round.in_doubt.iter().filter(|(_, one)| one.age > T_RECOVER) {
        *late.entry(database).or_default() += 1;
    }
    for (database, count) in late {
        let bound = T_RECOVER.as_secs();
        found.push(format!(
            "{count} transactions in database {database} are in doubt for more than {bound} s: `posthaste txn list`"
        ));
    }
    for (database, gid) in &round.lost {
        found.push(format!(
            "database {database} cannot show that it committed its part of a transaction (it was lost, a fail-over hides \
             it, or somebody finished it): look there, put right what is missing, then `posthaste txn resolve {gid} \
             commit --force`"
        ));
    }
    for (database, reason) in &round.unreachable {
        found.push(format!("database {database} cannot be asked what is in doubt there: {reason}"));
    }
    found
}

/// Since when each reason stands: as it is known, or else as far as it was asked.
fn with_times(
    found: Vec<(Part, String)>,
    known: &BTreeMap<String, Timestamp>,
    since: &Mutex<BTreeMap<String, Timestamp>>,
) -> Vec<Reason> {
    let mut since = since.lock().unwrap_or_else(PoisonError::into_inner);
    since.retain(|what, _| found.iter().any(|(_, other)| other == what));
    let reason = |(part, what): (Part, String)| {
        let asked = *since.entry(what.clone()).or_insert_with(Timestamp::now);
        let since = known.get(&what).copied().unwrap_or(asked);
        Reason { part, what, since }
    };
    found.into_iter().map(reason).collect()
}
