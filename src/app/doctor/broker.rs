//! What a broker's own state means for the promises. Pure.

use super::finding::{Check, Finding};
use super::queue::{Around, SeenQueue, judge as judge_queue};
use crate::broker::{NodeFacts, ServerVersion};

const REACHABLE: Check = Check::new("reachable", "the server answers", &[]);
const MANAGEMENT: Check =
    Check::new("management", "queue types, limits, policies, consumers, alarms and partitions can be seen", &[]);
const SIZE: Check = Check::new("message-size", "what is accepted the broker takes, too", &[]);
const ALARM: Check = Check::new("alarm", "messages are accepted", &["I2"]);
const NODES: Check = Check::new("nodes", "every node of the cluster runs", &[]);
const PARTITIONS: Check = Check::new("partitions", "what the broker has confirmed it keeps", &["I1"]);

const WITNESS: Check = Check::new("witness", "an old copy of the home takes nothing from the broker", &["I1", "I5"]);

/// One `amqp` entry as far as it could be seen.
#[derive(Debug, Clone)]
pub(super) struct SeenBroker {
    pub place: String,
    /// Host, port and virtual host.
    pub address: String,
    /// Why it cannot be reached over AMQP.
    pub down: Option<String>,
    pub version: Option<ServerVersion>,
    pub management: SeenManagement,
    /// What it shows of the home; `None`: nobody knows which epoch to ask for.
    pub witness: Option<SeenWitness>,
    pub queues: Vec<SeenQueue>,
    /// Adapters that accept messages for it.
    pub inlets: Vec<Inlet>,
}

/// An adapter that accepts messages for a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inlet {
    pub adapter: String,
    pub max_body: usize,
}

/// What the plugin says.
#[derive(Debug, Clone)]
pub(super) enum SeenManagement {
    /// There is no `managementUrl`.
    NotGiven,
    Unreachable(String),
    /// It answers, and does not tell.
    Refused(String),
    Nodes(Vec<NodeFacts>),
}

/// What the broker shows of the home's epoch.
#[derive(Debug, Clone)]
pub(super) enum SeenWitness {
    Answered { held: u64, newest: u64, shown: bool, allowed: bool },
    Unseen(String),
}

impl SeenWitness {
    /// What the home's database held, if the broker was shown more.
    pub(super) fn held_if_newer(&mut self) -> Option<&mut u64> {
        match self {
            Self::Answered { held, newest, .. } => (*newest > *held).then_some(held),
            Self::Unseen(_) => None,
        }
    }
}

pub(super) fn judge(broker: &SeenBroker) -> Vec<Finding> {
    let mut found = vec![reachable(broker), management(broker)];
    found.extend(broker.witness.as_ref().map(|seen| witness(&broker.place, seen)));
    let mut count = 1;
    if let SeenManagement::Nodes(nodes) = &broker.management {
        found.extend([alarm(broker, nodes), running(broker, nodes), partitions(broker, nodes)]);
        count = nodes.len();
    }
    let around = Around { version: broker.version, nodes: count };
    found.extend(broker.inlets.iter().map(|inlet| size(broker, inlet)));
    found.extend(broker.queues.iter().flat_map(|queue| judge_queue(queue, around)));
    found
}

fn reachable(broker: &SeenBroker) -> Finding {
    if let Some(reason) = &broker.down {
        let change = format!("make it reachable from here, or correct the amqp entry {}", broker.place);
        return REACHABLE.unseen(&broker.place, format!("{}: {reason}", broker.address), change);
    }
    match broker.version {
        Some(version) => REACHABLE.ok(&broker.place, format!("RabbitMQ {version}")),
        None => REACHABLE.ok(&broker.place, "the broker does not tell its version"),
    }
}

fn management(broker: &SeenBroker) -> Finding {
    let place = &broker.place;
    match &broker.management {
        SeenManagement::NotGiven => {
            let change =
                format!("give the amqp entry {place} a managementUrl (rabbitmq-plugins enable rabbitmq_management)");
            MANAGEMENT.unseen(place, "without managementUrl none of it can be seen", change)
        }
        SeenManagement::Unreachable(reason) => {
            MANAGEMENT.unseen(place, reason, format!("correct managementUrl of the amqp entry {place}"))
        }
        SeenManagement::Refused(reason) => {
            let change = "give managementUrl a user with the tag `monitoring` and rights in this virtual host";
            MANAGEMENT.unseen(place, reason, change)
        }
        SeenManagement::Nodes(_) => MANAGEMENT.ok(place, "the management plugin answers"),
    }
}

const MIB: usize = 1024 * 1024;

/// The largest message that a broker takes unless its `max_message_size` says otherwise. Neither AMQP nor the management
/// plugin tells the setting itself.
fn largest(version: ServerVersion) -> usize {
    if version >= ServerVersion(4, 0, 0) {
        16 * MIB
    } else if version >= ServerVersion(3, 8, 0) {
        128 * MIB
    } else {
        2048 * MIB
    }
}

fn size(broker: &SeenBroker, inlet: &Inlet) -> Finding {
    let (adapter, bytes) = (&inlet.adapter, inlet.max_body);
    let Some(version) = broker.version else {
        let found =
            format!("the broker does not tell its version, and with it what it takes; maxBody is {bytes} bytes");
        return SIZE.unseen(adapter, found, "compare maxBody with max_message_size in rabbitmq.conf");
    };
    let limit = largest(version);
    if bytes <= limit {
        let found = format!(
            "maxBody {bytes} bytes; RabbitMQ {version} takes {limit} unless max_message_size is set to less, which cannot be seen"
        );
        return SIZE.ok(adapter, found);
    }
    let found = format!(
        "maxBody is {bytes} bytes, and RabbitMQ {version} takes {limit} unless max_message_size is set to more, which cannot be \
         seen: a larger message is accepted, refused by the broker, and ends in the error store"
    );
    let change = format!("set maxBody to {limit} or less, or max_message_size in rabbitmq.conf to {bytes} or more");
    SIZE.warning(adapter, found, change)
}

fn witness(place: &str, seen: &SeenWitness) -> Finding {
    match seen {
        SeenWitness::Answered { held, newest, .. } if newest > held => {
            let found =
                format!("it was shown epoch {newest} of the home, whose database holds epoch {held}: an old copy");
            WITNESS.void(place, found, "`posthaste migrate --home same` or `posthaste migrate --home copy`")
        }
        SeenWitness::Answered { allowed: false, .. } => {
            let found = "the user may not make exchanges: an old copy of the home would not be recognised here";
            let change = r"give it the right to configure, write and read `^posthaste\.home\.`";
            WITNESS.warning(place, found, change)
        }
        SeenWitness::Answered { held, shown: true, .. } => WITNESS.ok(place, format!("shows epoch {held}")),
        SeenWitness::Answered { held, .. } => {
            WITNESS.ok(place, format!("does not show epoch {held} yet; the next instance that connects sees to it"))
        }
        SeenWitness::Unseen(reason) => WITNESS.unseen(place, reason, "see the finding on reachable"),
    }
}

fn alarm(broker: &SeenBroker, nodes: &[NodeFacts]) -> Finding {
    let memory = named("memory", nodes, |node| node.memory_alarm);
    let disk = named("disk", nodes, |node| node.disk_alarm);
    let alarms: Vec<String> = memory.into_iter().chain(disk).collect();
    if alarms.is_empty() {
        return ALARM.ok(&broker.place, "none");
    }
    let found = format!(
        "{}: the broker takes no messages; requests are refused with 503 and X-Outcome: none, what was accepted waits",
        alarms.join(", ")
    );
    ALARM.warning(&broker.place, found, "free memory or disk, or raise vm_memory_high_watermark or disk_free_limit")
}

fn running(broker: &SeenBroker, nodes: &[NodeFacts]) -> Finding {
    match named("down", nodes, |node| !node.running) {
        Some(down) => NODES.warning(&broker.place, down, "bring the node back"),
        None => NODES.ok(&broker.place, format!("{} of {}", nodes.len(), nodes.len())),
    }
}

/// Quorum queues keep what they have confirmed; the losing side of a partition throws away what classic ones hold.
fn partitions(broker: &SeenBroker, nodes: &[NodeFacts]) -> Finding {
    let Some(parted) = named("parted", nodes, |node| !node.partitions.is_empty()) else {
        return PARTITIONS.ok(&broker.place, "none");
    };
    let change = "mend the network and restart the losing nodes; use quorum queues, or pause_minority";
    let weak =
        broker.queues.iter().filter(|queue| queue.facts.as_ref().is_none_or(|(facts, _)| facts.kind != "quorum"));
    match weak.map(|queue| queue.place.as_str()).collect::<Vec<_>>().as_slice() {
        [] => PARTITIONS.warning(&broker.place, format!("{parted}; all our queues are quorum queues"), change),
        weak => PARTITIONS.void(&broker.place, format!("{parted}; not quorum queues: {}", weak.join(", ")), change),
    }
}

/// `what at a, b`; `None` when it is so nowhere.
fn named(what: &str, nodes: &[NodeFacts], is: fn(&NodeFacts) -> bool) -> Option<String> {
    let names: Vec<&str> = nodes.iter().filter(|node| is(node)).map(|node| node.name.as_str()).collect();
    (!names.is_empty()).then(|| format!("{what} at {}", names.join(", ")))
}

#[cfg(test)]
#[path = "broker_tests.rs"]
mod tests;
