//! What a queue's type, arguments and policies mean for the promises. Pure.
//!
//! On a queue that a receiver here reads, a message of ours that the broker drops is published again from the journal;
//! one that somebody else has put there is gone. On a queue of others our part ends with the broker's confirm: what its
//! owner drops is his, but what was confirmed must be there.

use std::time::Duration;

use super::finding::{Check, Finding};
use crate::broker::{QueueFacts, Ruled, ServerVersion};

const EXISTS: Check = Check::new("queue", "what is accepted has somewhere to go", &["I1"]);
const KIND: Check = Check::new("queue-type", "what the broker has confirmed survives its crash", &["I1"]);
const TTL: Check = Check::new("message-ttl", KEPT, &["I1"]);
const LENGTH: Check = Check::new("max-length", KEPT, &["I1"]);
const EXPIRES: Check = Check::new("expires", KEPT, &["I1"]);
const DELIVERIES: Check = Check::new("delivery-limit", KEPT, &["I1", "I7"]);
const BACKSTOP: Check = Check::new("dead-letter-exchange", "what the broker drops can be found again", &["I1"]);
const SINGLE: Check = Check::new("single-active-consumer", "every instance takes its part of the work", &[]);
const TIMEOUT: Check = Check::new("consumer-timeout", "the broker waits for as long as a transaction may take", &[]);
const CONSUMERS: Check = Check::new("consumers", "a message takes effect once, by us alone", &["I1"]);
const MEMBERS: Check = Check::new("replicas", "the queue outlives one node of the cluster", &[]);

const KEPT: &str = "the broker keeps a message until it is processed";

/// From here on a quorum queue without a limit has one of 20, and -1 means none.
const DEFAULT_LIMIT_SINCE: ServerVersion = ServerVersion(4, 0, 0);

/// Where dropped messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Backstop {
    /// No dead-letter exchange is set.
    None,
    Exists(String),
    Missing(String),
    Unseen(String),
}

/// A queue by a passive declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presence {
    There { ready: u32 },
    Missing,
    Unseen(String),
}

/// One queue that the configurations use.
#[derive(Debug, Clone)]
pub(super) struct SeenQueue {
    /// `connection/queue`.
    pub place: String,
    pub queue: String,
    /// The `transactionTimeout` of the receiver here that reads it; `None`: a queue of others.
    pub reader: Option<Duration>,
    pub presence: Presence,
    /// Whether `run` and `migrate` declare it.
    pub made_here: bool,
    /// From the management plugin.
    pub facts: Option<(QueueFacts, Backstop)>,
}

/// The broker around the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    pub version: Option<ServerVersion>,
    pub nodes: usize,
}

pub(super) fn judge(queue: &SeenQueue, around: Around) -> Vec<Finding> {
    let mut found = vec![presence(queue)];
    let Some((facts, backstop)) = &queue.facts else { return found };
    let see = See { queue, facts, backstop };
    found.extend([see.kind(), see.ttl(), see.length(), see.expires(), see.replicas(around.nodes)]);
    found.extend(see.missing_backstop());
    if let Some(transaction) = queue.reader {
        found.extend(see.deliveries(around.version));
        found.extend([see.consumers(), see.single(), see.timeout(transaction)]);
    }
    found
}

fn presence(queue: &SeenQueue) -> Finding {
    match &queue.presence {
        Presence::There { ready } => EXISTS.ok(&queue.place, format!("exists, {ready} message(s) ready")),
        Presence::Missing if queue.made_here => {
            EXISTS.warning(&queue.place, "does not exist yet; nothing is accepted for it", "run `posthaste migrate`")
        }
        Presence::Missing => {
            let change = "make it, a durable quorum queue; or set createDestination: true in resources.yml";
            EXISTS.void(&queue.place, "does not exist, and may not be made from here", change)
        }
        Presence::Unseen(reason) => EXISTS.unseen(&queue.place, reason, "see the finding on the broker"),
    }
}

/// One queue with what the plugin says of it.
struct See<'a> {
    queue: &'a SeenQueue,
    facts: &'a QueueFacts,
    backstop: &'a Backstop,
}

impl See<'_> {
    fn kind(&self) -> Finding {
        let (place, facts) = (&self.queue.place, self.facts);
        let anew = "make it anew as a durable quorum queue (x-queue-type: quorum)";
        if facts.kind != "quorum" && facts.kind != "classic" {
            let found = format!("a {}: acknowledged messages stay, and are delivered again and again", facts.kind);
            return KIND.void(place, found, anew);
        }
        let weakness = if !facts.durable {
            "not durable: it is gone when the broker restarts"
        } else if facts.auto_delete {
            "auto-delete: it is gone with its last consumer"
        } else if facts.kind == "classic" {
            "classic: confirmed before it is on disk, and on one node alone"
        } else {
            return KIND.ok(place, "a durable quorum queue");
        };
        if self.queue.reader.is_none() {
            return KIND.void(place, format!("{weakness}; our part ends with the confirm"), anew);
        }
        let found = format!("{weakness}; ours are published again from the journal, those of others are lost");
        KIND.warning(place, found, anew)
    }

    fn ttl(&self) -> Finding {
        match self.facts.limit("message-ttl") {
            Some(limit) => {
                let found = format!("messages expire after {:?} ({})", millis(limit.value), limit.by);
                self.dropped(&TTL, found, remove("message-ttl", &limit.by))
            }
            None => TTL.ok(&self.queue.place, "none"),
        }
    }

    fn length(&self) -> Finding {
        let limits = ["max-length", "max-length-bytes"];
        let limits: Vec<_> = limits.iter().filter_map(|name| Some((*name, self.facts.limit(name)?))).collect();
        let Some((name, limit)) = limits.first() else { return LENGTH.ok(&self.queue.place, "none") };
        let overflow = self.facts.word("overflow").map_or_else(|| "drop-head".to_owned(), |word| word.value);
        let all: Vec<String> =
            limits.iter().map(|(name, limit)| format!("{name} {} ({})", limit.value, limit.by)).collect();
        let all = all.join(", ");
        if overflow.starts_with("reject-publish") {
            return LENGTH.ok(&self.queue.place, format!("{all}, {overflow}: beyond it the broker refuses"));
        }
        let change = format!("set overflow: reject-publish, or {}", remove(name, &limit.by));
        self.dropped(&LENGTH, format!("{all}, {overflow}: beyond it the oldest messages are dropped"), change)
    }

    fn expires(&self) -> Finding {
        match self.facts.limit("expires") {
            Some(limit) => {
                let unused = millis(limit.value);
                let found = format!("unused for {unused:?} it is deleted with its messages ({})", limit.by);
                self.dropped(&EXPIRES, found, remove("expires", &limit.by))
            }
            None => EXPIRES.ok(&self.queue.place, "never"),
        }
    }

    /// Of a queue that is read here: handing a message back counts as a delivery.
    fn deliveries(&self, version: Option<ServerVersion>) -> Option<Finding> {
        if self.facts.kind != "quorum" {
            return None;
        }
        let Some(version) = version else {
            let found = "the broker does not tell its version, which decides what a limit means";
            return Some(DELIVERIES.unseen(
                &self.queue.place,
                found,
                "set x-delivery-limit: -1 from 4.0 on, none below",
            ));
        };
        let none = "never: no limit on deliveries";
        let unlimited = version >= DEFAULT_LIMIT_SINCE;
        Some(match self.deliveries_limit(unlimited) {
            None if !unlimited => DELIVERIES.ok(&self.queue.place, none),
            None => {
                let found = "not set, and from 4.0 on that means: dropped after 20 deliveries".to_owned();
                self.dropped(&DELIVERIES, found, "set delivery-limit: -1 by a policy".to_owned())
            }
            Some(limit) if limit.value < 0 && unlimited => DELIVERIES.ok(&self.queue.place, none),
            Some(limit) if limit.value < 0 => {
                let found = format!(
                    "{} ({}): {version} takes that and destroys a message when it is handed back for the first time",
                    limit.value, limit.by
                );
                self.dropped(&DELIVERIES, found, remove("delivery-limit", &limit.by))
            }
            Some(limit) => {
                let found = format!("dropped after {} deliveries ({})", limit.value, limit.by);
                let instead = if unlimited { " or set it to -1" } else { "" };
                self.dropped(&DELIVERIES, found, remove("delivery-limit", &limit.by) + instead)
            }
        })
    }

    /// Of several the lowest holds; from 4.0 on a negative one is no limit, and gives way to any other.
    fn deliveries_limit(&self, unlimited: bool) -> Option<Ruled<i64>> {
        let limits = self.facts.limits("delivery-limit").into_iter();
        if unlimited && limits.clone().any(|limit| limit.value < 0) {
            return limits.max_by_key(|limit| limit.value);
        }
        limits.min_by_key(|limit| limit.value)
    }

    /// Something drops messages: how bad that is depends on whose queue it is, and on the backstop.
    fn dropped(&self, check: &Check, found: String, change: String) -> Finding {
        let place = &self.queue.place;
        if self.queue.reader.is_none() {
            return check.warning(place, format!("{found}; the queue is another's, and so is the loss"), change);
        }
        let ours = "ours are published again from the journal, later";
        match self.backstop {
            Backstop::Exists(exchange) => {
                check.warning(place, format!("{found}; {ours}, all go to the exchange {exchange}"), change)
            }
            Backstop::None | Backstop::Missing(_) => {
                check.void(place, format!("{found}; {ours}, those of others are gone"), change)
            }
            Backstop::Unseen(why) => {
                let found =
                    format!("{found}; {ours}, those of others are gone unless a dead-letter exchange takes them");
                check.void(place, format!("{found} ({why})"), change)
            }
        }
    }

    fn missing_backstop(&self) -> Option<Finding> {
        match self.backstop {
            Backstop::None | Backstop::Unseen(_) => None,
            Backstop::Exists(exchange) => Some(BACKSTOP.ok(&self.queue.place, format!("the exchange {exchange}"))),
            Backstop::Missing(exchange) => {
                let found = format!("there is no exchange {exchange}: what it should take is gone");
                Some(BACKSTOP.warning(
                    &self.queue.place,
                    found,
                    format!("make the exchange {exchange} and bind a queue"),
                ))
            }
        }
    }

    fn consumers(&self) -> Finding {
        let place = &self.queue.place;
        let Some(consumers) = &self.facts.consumers else {
            return CONSUMERS.unseen(
                place,
                "the plugin gathers no statistics",
                "look at the queue's consumers yourself",
            );
        };
        let named = |is_of: fn(Option<&str>) -> bool| -> Vec<String> {
            let of = consumers.iter().filter(|one| is_of(one.client.as_deref()));
            of.map(|one| format!("{} by user {}", one.connection, one.user)).collect()
        };
        let foreign = named(|client| client.is_some_and(|name| !name.starts_with("posthaste:")));
        let unknown = named(|client| client.is_none());
        if !foreign.is_empty() {
            let found = format!("somebody else reads it, too: {}", foreign.join(", "));
            return CONSUMERS.void(place, found, "let no other program read this queue");
        }
        if !unknown.is_empty() {
            let found = format!("it cannot be seen whose they are: {}", unknown.join(", "));
            return CONSUMERS.unseen(place, found, "give the user of managementUrl the tag `monitoring`");
        }
        CONSUMERS.ok(place, format!("{}, all ours", consumers.len()))
    }

    fn single(&self) -> Finding {
        if self.facts.has_single_active_consumer() {
            let found = "one consumer at a time: one instance does all the work";
            return SINGLE.warning(&self.queue.place, found, "make it anew without x-single-active-consumer");
        }
        SINGLE.ok(&self.queue.place, "no")
    }

    /// It counts from the delivery, and a message may wait for one before it.
    fn timeout(&self, transaction: Duration) -> Finding {
        let needed = transaction.saturating_mul(2);
        match self.facts.limit("consumer-timeout") {
            Some(limit) if millis(limit.value) < needed => {
                let found = format!(
                    "{:?} ({}); a message may wait for one before it and then take {transaction:?}: consumers are cut off",
                    millis(limit.value),
                    limit.by
                );
                TIMEOUT.warning(&self.queue.place, found, format!("set it to {needed:?} or more"))
            }
            Some(limit) => TIMEOUT.ok(&self.queue.place, format!("{:?} ({})", millis(limit.value), limit.by)),
            None => TIMEOUT.ok(&self.queue.place, "the broker's own; half an hour unless rabbitmq.conf says otherwise"),
        }
    }

    fn replicas(&self, nodes: usize) -> Finding {
        let (place, members) = (&self.queue.place, self.facts.members);
        if !matches!(self.facts.state.as_str(), "running" | "idle" | "flow" | "") {
            let found = format!("the queue is {}: nothing moves", self.facts.state);
            return MEMBERS.warning(place, found, "bring the broker's other nodes back");
        }
        if members < 2 && nodes > 1 {
            let found = format!("on one of {nodes} nodes: when that is away nothing moves");
            return MEMBERS.warning(place, found, format!("rabbitmq-queues add_member … {}", self.queue.queue));
        }
        MEMBERS.ok(place, format!("{members} of {nodes} node(s)"))
    }
}

fn millis(value: i64) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

/// How to be rid of a rule that an argument or a policy has set.
fn remove(name: &str, by: &str) -> String {
    if by.starts_with("argument") {
        format!("make the queue anew without the {by}")
    } else {
        format!("take {name} out of the {by}")
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
