//! Receivers: which keys suit which listener, and who claims which slot, route, queue and thread.

use super::super::adapters::{Adapter, Receiver, StepKind};
use super::super::demand::Demand;
use super::super::diagnostic::{Place, Report};
use super::super::folders::Folder;
use super::super::listeners::Listener;
use super::super::reach::Reach;
use super::super::resources::Resources;
use super::super::section::Text;
use super::super::values::show_size;
use super::adapters::check_destination;
use crate::model::{Destination, TransactionAttribute};
use crate::txn::MAX_BRANCHES;

pub(super) fn check(resources: Option<&Resources>, folders: &[Folder], report: &mut Report) {
    let mut claims = Claims::default();
    for (adapter, receiver) in receivers(folders) {
        check_attribute(receiver, report);
        match &receiver.listener {
            Some(Listener::Api(_)) => check_api(receiver, report),
            Some(Listener::Amqp(listener)) => {
                check_amqp(receiver, report);
                check_destination(resources, &listener.connection, &listener.destination, report);
            }
            None => {}
        }
        check_claims(adapter, receiver, &mut claims, report);
    }
    check_handover_slots(folders, report);
}

/// What the broker does not take of a queue that nobody here reads waits in a slot named after the queue.
fn check_handover_slots(folders: &[Folder], report: &mut Report) {
    let read: Vec<Destination> = receivers(folders)
        .filter_map(|(_, receiver)| match &receiver.listener {
            Some(Listener::Amqp(listener)) => Some(destination(&listener.connection, &listener.destination)),
            Some(Listener::Api(_)) | None => None,
        })
        .collect();
    let mut sent_to = Vec::new();
    for step in folders.iter().flat_map(|folder| &folder.adapters).flat_map(|adapter| &adapter.steps) {
        if let Some(StepKind::AmqpSender { connection, destination: queue }) = &step.kind {
            let to = destination(connection, queue);
            if !read.contains(&to) {
                sent_to.push(to.error_slot());
            }
        }
    }
    for storage in receivers(folders).filter_map(|(_, receiver)| receiver.error_storage.as_ref()) {
        if sent_to.iter().any(|slot| slot.as_str() == storage.slot_id.value) {
            let message = format!("slot `{}` is that of a queue which adapters here send to", storage.slot_id.shown());
            report.error(storage.slot_id.at, message, "what cannot be sent there waits in it: choose another slotId");
        }
    }
}

fn destination(connection: &Text, queue: &Text) -> Destination {
    Destination::queue(&connection.value, &queue.value)
}

fn receivers(folders: &[Folder]) -> impl Iterator<Item = (&Adapter, &Receiver)> {
    folders
        .iter()
        .flat_map(|folder| &folder.adapters)
        .filter_map(|adapter| adapter.receiver.as_ref().map(|receiver| (adapter, receiver)))
}

fn check_attribute(receiver: &Receiver, report: &mut Report) {
    let Some(attribute) = receiver.attribute else { return };
    let log = receiver.message_log.is_some();
    match (attribute.value, &receiver.listener) {
        (TransactionAttribute::Required, _) => {}
        (TransactionAttribute::Mandatory, _) => report.error(
            attribute.at,
            "a receiver cannot be `Mandatory`: nobody brings a listener a transaction",
            "write Required; Mandatory is for adapters that are called",
        ),
        (TransactionAttribute::Supports, Some(Listener::Amqp(_))) => report.error(
            attribute.at,
            "a dequeue always is a transaction, so this receiver cannot be `Supports`",
            "write Required, or leave the key out",
        ),
        (TransactionAttribute::Supports, Some(Listener::Api(_))) if log => report.error(
            attribute.at,
            "the message log always is written in a transaction, so this receiver cannot be `Supports`",
            "write Required, or leave the key out",
        ),
        (TransactionAttribute::Supports, Some(Listener::Api(_)) | None) => {}
    }
}

fn check_api(receiver: &Receiver, report: &mut Report) {
    let place = |at: Option<Place>, key: &'static str| at.map(|at| (at, key));
    let retries = [
        place(receiver.max_retries.as_ref().map(|key| key.at), "maxRetries"),
        place(receiver.retry_scheme.as_ref().map(|key| key.at), "retryScheme"),
        place(receiver.retry_permanent_errors.map(|key| key.at), "retryPermanentErrors"),
        place(receiver.num_threads.map(|key| key.at), "numThreads"),
        place(receiver.group_size.map(|key| key.at), "groupSize"),
    ];
    for (at, key) in retries.into_iter().flatten() {
        let help = "move it to the receiver that takes the message from the queue: an API's caller repeats it himself";
        report.error(at, format!("`{key}` means nothing to an api listener"), help);
    }
    if let Some(storage) = &receiver.error_storage {
        let help = "what an api listener refuses its caller still has: move errorStorage to the receiver of the queue";
        report.error(storage.at, "an api listener stores no errors", help);
    }
    let checks = receiver.check_for_duplicates.filter(|check| check.value);
    if let Some(check) = checks.filter(|_| receiver.message_log.is_none()) {
        let help = "add messageLog: { slotId: … }: repeats are found in it";
        report.error(check.at, "`checkForDuplicates` needs a `messageLog`", help);
    }
}

fn check_amqp(receiver: &Receiver, report: &mut Report) {
    let help = "remove it: Posthaste's journal recognises repeated deliveries, and the receiver that wrote the message \
                to the queue keeps the log";
    if let Some(log) = &receiver.message_log {
        report.error(log.at, "`messageLog` belongs to an api listener", help);
    }
    if let Some(check) = receiver.check_for_duplicates.filter(|check| check.value) {
        report.error(check.at, "`checkForDuplicates` belongs to an api listener", help);
    }
    if let Some(key) = receiver.duplicate_key {
        report.error(key.at, "`checkForDuplicatesMethod` belongs to an api listener", help);
    }
}

/// What belongs to one receiver only: key, adapter, place.
#[derive(Default)]
struct Claims<'a> {
    claimed: Vec<(String, &'a Text, Place)>,
}

impl<'a> Claims<'a> {
    fn claim(&mut self, what: String, adapter: &'a Text, at: Place, help: &str, report: &mut Report) {
        match self.claimed.iter().find(|(key, ..)| *key == what) {
            Some((_, owner, first)) => {
                let first = report.describe(*first, at);
                report.error(at, format!("{what} belongs to adapter `{}` already: {first}", owner.shown()), help);
            }
            None => self.claimed.push((what, adapter, at)),
        }
    }
}

fn check_claims<'a>(adapter: &'a Adapter, receiver: &'a Receiver, claims: &mut Claims<'a>, report: &mut Report) {
    let name = &adapter.name;
    let mut claim = |what: String, at: Place, help: &str| claims.claim(what, name, at, help, report);
    if let Some(log) = receiver.message_log.as_ref().filter(|log| !log.slot_id.is_absent()) {
        let what = format!("the message log of slot `{}`", log.slot_id.shown());
        claim(what, log.slot_id.at, "give each receiver a slot of its own");
    }
    match &receiver.listener {
        Some(Listener::Api(listener)) => {
            if let Some(pattern) = &listener.uri_pattern {
                let what = format!("{} /api{}", listener.method, pattern.value);
                claim(what, pattern.at, "one listener answers a route: choose another uriPattern or method");
            }
        }
        Some(Listener::Amqp(listener)) => {
            if !listener.connection.is_absent() && !listener.destination.is_absent() {
                let (queue, connection) = (listener.destination.shown(), listener.connection.shown());
                let what = format!("queue `{queue}` of `{connection}`");
                claim(what, listener.destination.at, "one receiver reads a queue; raise its numThreads for more");
            }
            let slot = receiver.error_storage.as_ref().map_or(name, |storage| &storage.slot_id);
            if !slot.is_absent() {
                let what = format!("the error store of slot `{}`", slot.shown());
                claim(
                    what,
                    slot.at,
                    "give each receiver its own errorStorage: { slotId: … }; without, the adapter's name is taken",
                );
            }
        }
        None => {}
    }
}

/// Concurrency × connections per attempt ≤ pool: an attempt holds one connection of the home database, and one of each
/// other database that its steps reach.
pub(super) fn check_threads(resources: &Resources, folders: &[Folder], report: &mut Report) {
    let demand = Demand::of(folders);
    let home = &resources.instance.home;
    for entry in &resources.postgres {
        let is_home = entry.name.value == home.value;
        let wants = demand.of_entry(&entry.name.value, is_home);
        let sum: usize = wants.iter().map(|(_, threads)| threads).sum();
        let pool = entry.pool_max_size;
        if sum > pool.value {
            let each: Vec<_> = wants.iter().map(|(name, threads)| format!("{name} {threads}")).collect();
            let name = entry.name.shown();
            let message = format!("{sum} threads want connections of `{name}`, and its pool has {}", pool.value);
            let help = format!("set poolMaxSize to {sum} or more, or lower numThreads: {}", each.join(", "));
            report.error(pool.at, message, help);
        }
    }
}

/// One transaction takes so many databases beside the home, and no more.
pub(super) fn check_branches(resources: &Resources, folders: &[Folder], report: &mut Report) {
    let reach = Reach::of(folders);
    for (adapter, _) in receivers(folders) {
        let beside = reach.beside(&adapter.name.value, &resources.instance.home.value);
        if beside > usize::from(MAX_BRANCHES) {
            let message = format!("`{}` writes to {beside} databases beside the home", adapter.name.shown());
            report.error(adapter.name.at, message, format!("one transaction takes at most {MAX_BRANCHES}: split it"));
        }
    }
}

/// A body larger than everything that may be in flight could never be accepted.
pub(super) fn check_bodies(resources: &Resources, folders: &[Folder], report: &mut Report) {
    let most = resources.api.max_body_bytes_in_flight;
    for (_, receiver) in receivers(folders) {
        let Some(Listener::Api(listener)) = &receiver.listener else { continue };
        if listener.max_body.value > most {
            let show = |bytes: usize| show_size(u64::try_from(bytes).unwrap_or(u64::MAX));
            let message = format!(
                "a body of {} never fits into http.api.maxBodyInFlight, which is {}",
                show(listener.max_body.value),
                show(most)
            );
            report.error(listener.max_body.at, message, "lower maxBody, or raise maxBodyInFlight");
        }
    }
}
