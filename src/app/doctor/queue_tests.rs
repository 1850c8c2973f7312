use serde_json::{Map, Value, json};

use super::super::finding::Level;
use super::*;
use crate::broker::ConsumerFacts;

const OLD: ServerVersion = ServerVersion(3, 10, 8);
const NEW: ServerVersion = ServerVersion(4, 0, 0);
const TRANSACTION: Duration = Duration::from_secs(30);

fn map(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn quorum(arguments: Value) -> QueueFacts {
    QueueFacts {
        kind: "quorum".to_owned(),
        durable: true,
        state: "running".to_owned(),
        members: 1,
        arguments: map(arguments),
        consumers: Some(vec![consumer(Some("posthaste:rabbit:consume"))]),
        ..QueueFacts::default()
    }
}

fn consumer(client: Option<&str>) -> ConsumerFacts {
    ConsumerFacts { client: client.map(str::to_owned), ..ConsumerFacts::default() }
}

fn own(facts: QueueFacts, backstop: Backstop) -> SeenQueue {
    SeenQueue {
        place: "rabbit/q".to_owned(),
        queue: "q".to_owned(),
        reader: Some(TRANSACTION),
        presence: Presence::There { ready: 0 },
        made_here: true,
        facts: Some((facts, backstop)),
    }
}

/// What is not ok: check and level.
fn complaints(queue: &SeenQueue, version: ServerVersion) -> Vec<(&'static str, Level)> {
    let found = judge(queue, Around { version: Some(version), nodes: 1 });
    found.iter().filter(|one| one.level != Level::Ok).map(|one| (one.check, one.level)).collect()
}

/// Of a queue that is read here, by a 3.10 broker, without a backstop.
fn of(facts: QueueFacts) -> Vec<(&'static str, Level)> {
    complaints(&own(facts, Backstop::None), OLD)
}

fn theirs(facts: QueueFacts) -> SeenQueue {
    SeenQueue { reader: None, ..own(facts, Backstop::None) }
}

#[test]
fn a_plain_quorum_queue_has_nothing_to_change_below_4_0() {
    assert_eq!(of(quorum(json!({}))), []);
    assert_eq!(complaints(&theirs(quorum(json!({}))), NEW), []);
}

#[test]
fn a_delivery_limit_means_what_the_version_says() {
    let limit = |value: Value, version| {
        complaints(&own(quorum(value), Backstop::None), version).first().map(|(check, level)| (*check, *level))
    };
    let void = Some(("delivery-limit", Level::Void));
    for (version, unset, minus_one, five) in [(OLD, None, void, void), (NEW, void, None, void)] {
        assert_eq!(limit(json!({}), version), unset, "{version}");
        assert_eq!(limit(json!({"x-delivery-limit": -1}), version), minus_one, "{version}");
        assert_eq!(limit(json!({"x-delivery-limit": 5}), version), five, "{version}");
    }
    let facts = QueueFacts { policy: map(json!({"delivery-limit": 7})), ..quorum(json!({"x-delivery-limit": -1})) };
    assert_eq!(complaints(&own(facts, Backstop::None), NEW), [("delivery-limit", Level::Void)], "the policy's holds");
    let unknown = judge(&own(quorum(json!({})), Backstop::None), Around { version: None, nodes: 1 });
    assert!(unknown.iter().any(|one| one.check == "delivery-limit" && one.level == Level::Unseen));
}

#[test]
fn what_drops_messages_voids_unless_a_dead_letter_exchange_takes_them() {
    for (check, arguments) in [
        ("message-ttl", json!({"x-message-ttl": 1000})),
        ("max-length", json!({"x-max-length": 5})),
        ("max-length", json!({"x-max-length-bytes": 5, "x-overflow": "drop-head"})),
        ("expires", json!({"x-expires": 1000})),
    ] {
        let level = |queue: &SeenQueue| complaints(queue, OLD);
        let facts = || quorum(arguments.clone());
        assert_eq!(level(&own(facts(), Backstop::None)), [(check, Level::Void)]);
        assert_eq!(level(&own(facts(), Backstop::Exists("dlx".to_owned()))), [(check, Level::Warning)]);
        assert_eq!(level(&own(facts(), Backstop::Unseen("401".to_owned()))), [(check, Level::Void)]);
        let missing = level(&own(facts(), Backstop::Missing("dlx".to_owned())));
        assert_eq!(missing, [(check, Level::Void), ("dead-letter-exchange", Level::Warning)]);
        assert_eq!(level(&theirs(facts())), [(check, Level::Warning)], "the owner's loss");
    }
    assert_eq!(of(quorum(json!({"x-max-length": 5, "x-overflow": "reject-publish"}))), []);
}

#[test]
fn a_policy_drops_like_an_argument_and_is_named() {
    let facts = QueueFacts {
        policy: map(json!({"message-ttl": 5000})),
        policies: vec!["short".to_owned()],
        ..quorum(json!({}))
    };
    let found = judge(&own(facts, Backstop::None), Around { version: Some(OLD), nodes: 1 });
    let ttl = found.iter().find(|one| one.check == "message-ttl").unwrap();
    assert!(ttl.found.starts_with("messages expire after 5s (policy short)"), "{ttl:?}");
    assert_eq!(ttl.change.as_deref(), Some("take message-ttl out of the policy short"));
}

#[test]
fn a_weak_queue_is_worse_where_the_confirm_ends_our_part() {
    let classic = || QueueFacts { kind: "classic".to_owned(), ..quorum(json!({})) };
    assert_eq!(of(classic()), [("queue-type", Level::Warning)]);
    assert_eq!(complaints(&theirs(classic()), OLD), [("queue-type", Level::Void)]);
    assert_eq!(of(QueueFacts { durable: false, ..classic() }), [("queue-type", Level::Warning)]);
    assert_eq!(of(QueueFacts { kind: "stream".to_owned(), ..classic() }), [("queue-type", Level::Void)]);
}

#[test]
fn foreign_consumers_void_and_those_that_cannot_be_seen_are_unseen() {
    let read_by = |client| {
        let consumers = Some(vec![consumer(Some("posthaste:rabbit:consume")), consumer(client)]);
        QueueFacts { consumers, ..quorum(json!({})) }
    };
    assert_eq!(of(read_by(Some("posthaste:other:consume"))), []);
    assert_eq!(of(read_by(Some("theirs"))), [("consumers", Level::Void)]);
    assert_eq!(of(read_by(Some(""))), [("consumers", Level::Void)]);
    assert_eq!(of(read_by(None)), [("consumers", Level::Unseen)]);
    assert_eq!(of(QueueFacts { consumers: None, ..quorum(json!({})) }), [("consumers", Level::Unseen)]);
    assert_eq!(complaints(&theirs(read_by(Some("theirs"))), OLD), []);
}

#[test]
fn one_active_consumer_a_short_consumer_timeout_and_a_lonely_replica_are_warnings() {
    let warning = |check| [(check, Level::Warning)];
    assert_eq!(of(quorum(json!({"x-single-active-consumer": true}))), warning("single-active-consumer"));
    assert_eq!(of(quorum(json!({"x-consumer-timeout": 59_999}))), warning("consumer-timeout"));
    assert_eq!(of(quorum(json!({"x-consumer-timeout": 60_000}))), []);
    assert_eq!(of(QueueFacts { state: "minority".to_owned(), ..quorum(json!({})) }), warning("replicas"));
    let found = judge(&own(quorum(json!({})), Backstop::None), Around { version: Some(OLD), nodes: 3 });
    assert!(found.iter().any(|one| one.check == "replicas" && one.level == Level::Warning));
}

#[test]
fn a_queue_that_is_missing_voids_only_when_nobody_here_may_make_it() {
    let missing =
        |made_here| SeenQueue { presence: Presence::Missing, made_here, facts: None, ..theirs(quorum(json!({}))) };
    assert_eq!(complaints(&missing(true), OLD), [("queue", Level::Warning)]);
    assert_eq!(complaints(&missing(false), OLD), [("queue", Level::Void)]);
    let unseen = SeenQueue { presence: Presence::Unseen("down".to_owned()), ..missing(false) };
    assert_eq!(complaints(&unseen, OLD), [("queue", Level::Unseen)]);
}
