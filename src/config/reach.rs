//! Which databases an attempt touches: its adapter's queries, and those of all adapters that it calls.

use std::collections::{BTreeMap, BTreeSet};

use super::adapters::{Adapter, StepKind};
use super::folders::Folder;

/// Per adapter the `postgres` entries that it reaches.
pub(super) struct Reach<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Reach<'a> {
    pub(super) fn of(folders: &'a [Folder]) -> Self {
        let adapters: BTreeMap<&str, &Adapter> =
            folders.iter().flat_map(|folder| &folder.adapters).map(|one| (one.name.value.as_str(), one)).collect();
        let reached = adapters.keys().map(|name| (*name, reached(name, &adapters))).collect();
        Self(reached)
    }

    pub(super) fn of_adapter(&self, adapter: &str) -> impl Iterator<Item = &'a str> {
        self.0.get(adapter).into_iter().flatten().copied()
    }

    /// How many databases beside this one an adapter reaches.
    pub(super) fn beside(&self, adapter: &str, home: &str) -> usize {
        self.0.get(adapter).map_or(0, |databases| databases.iter().filter(|database| **database != home).count())
    }

    pub(super) fn reaches(&self, adapter: &str, database: &str) -> bool {
        self.0.get(adapter).is_some_and(|databases| databases.contains(database))
    }
}

fn reached<'a>(name: &'a str, adapters: &BTreeMap<&'a str, &'a Adapter>) -> BTreeSet<&'a str> {
    let (mut seen, mut waiting, mut databases) = (BTreeSet::new(), vec![name], BTreeSet::new());
    while let Some(name) = waiting.pop() {
        // Circles are a mistake of their own, reported elsewhere.
        if !seen.insert(name) {
            continue;
        }
        let steps = adapters.get(name).map(|adapter| adapter.steps.as_slice()).unwrap_or_default();
        for step in steps {
            match &step.kind {
                Some(StepKind::Query { database, .. }) => drop(databases.insert(database.value.as_str())),
                Some(StepKind::Call { adapter }) => waiting.push(&adapter.value),
                Some(StepKind::AmqpSender { .. }) | None => {}
            }
        }
    }
    databases
}
