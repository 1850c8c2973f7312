//! Whether a POST would be accepted now, and whether messages are processed; with reasons, and since when each stands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::Parts;
use super::entrances::{Entrance, Exit, entrances, exits};
use crate::console::{Part, Readiness, Reason};
use crate::inbound::Acceptor;
use crate::lifecycle::{NeededFor, Watch};
use crate::model::{AdapterName, AdapterState};
use crate::pipeline::{Failing, Reach};
use crate::relay::{Shared, T_RECOVER};

/// May be asked at any time, and asks no server itself.
pub(super) struct Probe {
    pub acceptor: Arc<Acceptor>,
    pub entrances: Vec<Entrance>,
    exits: Vec<Exit>,
    shared: Shared,
    home: String,
    watch: Watch,
    /// When each trouble was seen first whose beginning nobody else knows: it is looked once a second.
    seen: Mutex<BTreeMap<String, Timestamp>>,
}

/// A trouble.
struct Found {
    part: Part,
    /// For people.
    what: String,
    /// What it is with: the same as long as it lasts, whatever is said of it.
    about: String,
    /// Where that is known.
    since: Option<Timestamp>,
    /// An operator wanted it so.
    wanted: bool,
}

impl Found {
    fn known(part: Part, what: String, since: Timestamp) -> Self {
        Self { part, about: String::new(), what, since: Some(since), wanted: false }
    }

    fn seen(part: Part, about: String, what: String) -> Self {
        Self { part, what, about, since: None, wanted: false }
    }
}

impl Probe {
    pub fn of(parts: &Parts, watch: &Watch) -> Self {
        let Parts { settings, acceptor, outcomes, shared, .. } = parts;
        Self {
            acceptor: acceptor.clone(),
            entrances: entrances(&settings.inbound, &settings.adapters, outcomes),
            exits: exits(&settings.receivers, &settings.adapters, outcomes),
            shared: shared.clone(),
            home: settings.instance.home.clone(),
            watch: watch.clone(),
            seen: Mutex::default(),
        }
    }

    pub fn ask(&self) -> Readiness {
        let reasons = self.with_times(self.find());
        let none = |part| !reasons.iter().any(|reason: &Reason| reason.part == part);
        Readiness { accepting: none(Part::Accepting), processing: none(Part::Processing), reasons }
    }

    /// Whether messages are accepted and processed, as far as operators want it.
    pub fn is_at_work(&self) -> bool {
        self.find().iter().all(|one| one.wanted)
    }

    /// A stopped adapter is no trouble by itself; one that others call is.
    fn find(&self) -> Vec<Found> {
        let mut found = self.home();
        // What is accepted for them waits; of what is refused for that each adapter speaks below.
        let troubled = self.acceptor.relay.all_troubled();
        found.extend(troubled.into_iter().map(|one| Found::known(Part::Processing, one.what, one.since)));
        let registry = &self.acceptor.registry;
        for entrance in self.entrances.iter().filter(|one| registry.is_started(&one.settings.adapter)) {
            found.extend(self.entrance(entrance));
        }
        for exit in self.exits.iter().filter(|one| registry.is_wanted(&one.settings.adapter)) {
            found.extend(self.exit(exit));
        }
        let waiting = self.acceptor.store.databases.waiting().into_iter();
        found.extend(waiting.map(|(name, why)| Found::seen(Part::Processing, format!("database {name}"), why)));
        found.extend(doubts(&self.shared).into_iter().map(|(about, what)| Found::seen(Part::Processing, about, what)));
        for trouble in self.watch.troubles() {
            let parts = parts_of(trouble.needed_for).iter();
            found.extend(parts.map(|part| Found::known(*part, trouble.what.clone(), trouble.since)));
        }
        each_once(found)
    }

    fn home(&self) -> Vec<Found> {
        let Self { shared, home, .. } = self;
        let (about, what, since) = match shared.trouble() {
            Some(trouble) => ("home", format!("home database {home}: {trouble}"), shared.troubled_since()),
            None if shared.compared() => return Vec::new(),
            None => ("home not compared", format!("{home} is not compared with the brokers yet"), None),
        };
        let found = |part| Found { since, ..Found::seen(part, about.to_owned(), what.clone()) };
        vec![found(Part::Accepting), found(Part::Processing)]
    }

    fn entrance(&self, Entrance { settings, path, reach, outcomes }: &Entrance) -> Vec<Found> {
        // Each connection speaks for itself, also while another is down.
        let not_ready = self.acceptor.ready(settings, path).err().map(|one| (one.about, one.reason, one.since));
        let trouble = self.acceptor.trouble(settings, path).into_iter().map(|one| (one.about, one.what, one.since));
        let found = |(about, what, since)| Found { since, ..Found::seen(Part::Accepting, format!("{about} in"), what) };
        let mut found: Vec<Found> = not_ready.into_iter().chain(trouble).map(found).collect();
        found.extend(failing(Part::Accepting, &settings.adapter, "are refused", outcomes.failing()));
        found.extend(self.stopped(Part::Accepting, &settings.adapter, reach));
        found
    }

    fn exit(&self, Exit { settings, reach, outcomes }: &Exit) -> Vec<Found> {
        let mut found = Vec::new();
        let status = self.acceptor.registry.get(&settings.adapter);
        if let Some(status) = status.filter(|status| status.state != AdapterState::Started) {
            let why = status.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let what = format!("adapter {} is {}{why}", status.name, status.state);
            found.push(Found::known(Part::Processing, what, status.troubled_since.unwrap_or(status.since)));
        }
        found.extend(failing(Part::Processing, &settings.adapter, "fail", outcomes.failing()));
        found.extend(self.stopped(Part::Processing, &settings.adapter, reach));
        found
    }

    /// Adapters that this one calls, and that do not run: its messages fail.
    fn stopped(&self, part: Part, adapter: &AdapterName, reach: &Reach) -> Vec<Found> {
        let registry = &self.acceptor.registry;
        let called = reach.adapters.iter().filter_map(|name| registry.get(name));
        let stopped = called.filter(|status| status.state != AdapterState::Started).map(|status| {
            let what = format!("adapter {}, which {adapter} calls, is {}", status.name, status.state);
            let wanted = !registry.is_wanted(&status.name);
            Found { wanted, ..Found::known(part, what, status.troubled_since.unwrap_or(status.since)) }
        });
        stopped.collect()
    }

    /// Since when each stands: as it is known, or else since it was seen first.
    fn with_times(&self, found: Vec<Found>) -> Vec<Reason> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|about, _| found.iter().any(|one| one.since.is_none() && one.about == *about));
        let reason = |Found { part, what, about, since, .. }: Found| {
            let since = since.unwrap_or_else(|| *seen.entry(about).or_insert_with(Timestamp::now));
            Reason { part, what, since }
        };
        found.into_iter().map(reason).collect()
    }
}

fn failing(part: Part, adapter: &AdapterName, fail: &str, failing: Option<Failing>) -> Option<Found> {
    let Failing { reason, since, .. } = failing?;
    Some(Found::known(part, format!("messages of adapter {adapter} {fail}: {reason}"), since))
}

/// Several adapters may say the same, and each of them since another moment: the first counts.
fn each_once(found: Vec<Found>) -> Vec<Found> {
    let mut once: Vec<Found> = Vec::new();
    for one in found {
        match once.iter_mut().find(|other| (other.part, &other.what) == (one.part, &one.what)) {
            Some(other) => other.since = other.since.into_iter().chain(one.since).min(),
            None => once.push(one),
        }
    }
    once
}

const fn parts_of(needed_for: NeededFor) -> &'static [Part] {
    match needed_for {
        NeededFor::Accepting => &[Part::Accepting],
        NeededFor::Processing => &[Part::Processing],
        NeededFor::Both => &[Part::Accepting, Part::Processing],
        NeededFor::Neither => &[],
    }
}

/// What recovery should have finished by now (I6), and which databases it could not ask.
fn doubts(shared: &Shared) -> Vec<(String, String)> {
    let round = shared.recovery();
    let mut found = Vec::new();
    let mut late: BTreeMap<&str, usize> = BTreeMap::new();
    for (database, _) in round.in_doubt.iter().filter(|(_, one)| one.age > T_RECOVER) {
        *late.entry(database).or_default() += 1;
    }
    for (database, count) in late {
        let bound = T_RECOVER.as_secs();
        let what = format!(
            "{count} transactions in database {database} are in doubt for more than {bound} s: `posthaste txn list`"
        );
        found.push((format!("in doubt in {database}"), what));
    }
    for (database, gid) in &round.lost {
        let what = format!(
            "database {database} cannot show that it committed its part of a transaction (it was lost, a fail-over hides \
             it, or somebody finished it): look there, put right what is missing, then `posthaste txn resolve {gid} \
             commit --force`"
        );
        found.push((format!("lost in {database}: {gid}"), what));
    }
    for (database, reason) in &round.unreachable {
        let what = format!("database {database} cannot be asked what is in doubt there: {reason}");
        found.push((format!("not asked: {database}"), what));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(what: &str, since: Option<i64>) -> Found {
        let since = since.map(|seconds| Timestamp::from_second(seconds).unwrap());
        Found { since, ..Found::seen(Part::Accepting, what.to_owned(), what.to_owned()) }
    }

    #[test]
    fn what_several_say_is_told_once_since_the_first_of_them() {
        let once = each_once(vec![found("down", Some(20)), found("full", None), found("down", Some(10))]);
        let told: Vec<_> = once.iter().map(|one| (one.what.as_str(), one.since.map(Timestamp::as_second))).collect();
        assert_eq!(told, [("down", Some(10)), ("full", None)]);
    }
}
