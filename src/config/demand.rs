//! How many connections of a database may be wanted at once.

use super::adapters::{Adapter, Receiver};
use super::folders::Folder;
use super::listeners::Listener;
use super::reach::Reach;
use super::settings::DEFAULT_THREADS;
use crate::store::SUBMIT_CONNECTIONS;

/// Who processes how many messages at once, and where.
pub(super) struct Demand<'a> {
    reach: Reach<'a>,
    receivers: Vec<(&'a Adapter, &'a Receiver)>,
}

impl<'a> Demand<'a> {
    pub(super) fn of(folders: &'a [Folder]) -> Self {
        let adapters = folders.iter().flat_map(|folder| &folder.adapters);
        let receivers = adapters.filter_map(|adapter| Some((adapter, adapter.receiver.as_ref()?))).collect();
        Self { reach: Reach::of(folders), receivers }
    }

    /// Each adapter with its threads. Accepting pipelines have connections of the home apart, and never more branches
    /// than those.
    pub(super) fn of_entry(&self, entry: &str, is_home: bool) -> Vec<(String, usize)> {
        let mut wants = Vec::new();
        for (adapter, receiver) in &self.receivers {
            let reaches = self.reach.reaches(&adapter.name.value, entry);
            match &receiver.listener {
                Some(Listener::Amqp(_)) if is_home || reaches => {
                    let threads = receiver.num_threads.map_or(DEFAULT_THREADS, |threads| threads.value);
                    wants.push((adapter.name.shown().into_owned(), threads));
                }
                Some(Listener::Api(_)) if !is_home && reaches => {
                    wants.push((adapter.name.shown().into_owned(), SUBMIT_CONNECTIONS));
                }
                Some(Listener::Amqp(_) | Listener::Api(_)) | None => {}
            }
        }
        wants
    }

    /// The entries that an adapter's attempts touch.
    pub(super) fn reached_by(&self, adapter: &str) -> Vec<String> {
        self.reach.of_adapter(adapter).map(str::to_owned).collect()
    }

    /// Transactions that one instance may have prepared in a database at once; none in the home.
    pub(super) fn branches(&self, entry: &str, is_home: bool) -> usize {
        if is_home { 0 } else { self.of_entry(entry, false).iter().map(|(_, threads)| threads).sum() }
    }
}
