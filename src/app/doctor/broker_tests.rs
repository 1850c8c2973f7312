use super::super::finding::Level;
use super::super::queue::{Backstop, Presence};
use super::*;
use crate::broker::QueueFacts;

fn node(name: &str) -> NodeFacts {
    NodeFacts { name: name.to_owned(), running: true, ..NodeFacts::default() }
}

fn broker(management: SeenManagement) -> SeenBroker {
    SeenBroker {
        place: "rabbit".to_owned(),
        address: "localhost:5672 (virtual host /)".to_owned(),
        down: None,
        version: Some(ServerVersion(3, 10, 8)),
        management,
        witness: None,
        queues: Vec::new(),
        inlets: Vec::new(),
    }
}

fn complaints(broker: &SeenBroker) -> Vec<(&'static str, Level)> {
    judge(broker).iter().filter(|one| one.level != Level::Ok).map(|one| (one.check, one.level)).collect()
}

fn of(node: NodeFacts) -> Vec<(&'static str, Level)> {
    complaints(&broker(SeenManagement::Nodes(vec![node])))
}

fn queue(kind: &str) -> SeenQueue {
    let facts = QueueFacts { kind: kind.to_owned(), durable: true, members: 1, ..QueueFacts::default() };
    SeenQueue {
        place: format!("rabbit/{kind}"),
        queue: kind.to_owned(),
        reader: None,
        presence: Presence::There { ready: 0 },
        made_here: false,
        facts: Some((facts, Backstop::None)),
    }
}

#[test]
fn what_cannot_be_seen_is_said_and_is_no_fault() {
    assert_eq!(of(node("a")), []);
    let unseen = [("management", Level::Unseen)];
    assert_eq!(complaints(&broker(SeenManagement::NotGiven)), unseen);
    assert_eq!(complaints(&broker(SeenManagement::Refused("401".to_owned()))), unseen);
    assert_eq!(complaints(&broker(SeenManagement::Unreachable("refused".to_owned()))), unseen);
    let down = SeenBroker { down: Some("refused".to_owned()), ..broker(SeenManagement::Nodes(vec![node("a")])) };
    assert_eq!(complaints(&down), [("reachable", Level::Unseen)]);
}

#[test]
fn a_newer_epoch_at_the_broker_voids_and_a_user_that_may_show_none_is_warned_of() {
    let seen = |held, newest, shown, allowed| {
        let witness = Some(SeenWitness::Answered { held, newest, shown, allowed });
        complaints(&SeenBroker { witness, ..broker(SeenManagement::Nodes(vec![node("a")])) })
    };
    assert_eq!(seen(7, 7, true, true), []);
    assert_eq!(seen(7, 7, false, true), []);
    assert_eq!(seen(7, 7, false, false), [("witness", Level::Warning)]);
    assert_eq!(seen(7, 9, false, false), [("witness", Level::Void)]);
    let unseen = Some(SeenWitness::Unseen("gone".to_owned()));
    let unseen = SeenBroker { witness: unseen, ..broker(SeenManagement::Nodes(vec![node("a")])) };
    assert_eq!(complaints(&unseen), [("witness", Level::Unseen)]);
}

#[test]
fn an_alarm_is_a_warning_since_a_refusal_is_honest() {
    assert_eq!(of(NodeFacts { memory_alarm: true, ..node("a") }), [("alarm", Level::Warning)]);
    assert_eq!(of(NodeFacts { disk_alarm: true, ..node("a") }), [("alarm", Level::Warning)]);
    let found = judge(&broker(SeenManagement::Nodes(vec![
        NodeFacts { memory_alarm: true, ..node("a") },
        NodeFacts { memory_alarm: true, disk_alarm: true, ..node("b") },
    ])));
    let alarm = found.iter().find(|one| one.check == "alarm").unwrap();
    assert!(alarm.found.starts_with("memory at a, b, disk at b: "), "{alarm:?}");
}

#[test]
fn a_node_that_is_down_is_named() {
    assert_eq!(of(NodeFacts { running: false, ..node("a") }), [("nodes", Level::Warning)]);
}

#[test]
fn a_partition_voids_only_where_a_queue_is_no_quorum_queue() {
    let parted = |kinds: &[&str]| {
        let node = NodeFacts { partitions: vec!["b".to_owned()], ..node("a") };
        let queues = kinds.iter().map(|kind| queue(kind)).collect();
        let broker = SeenBroker { queues, ..broker(SeenManagement::Nodes(vec![node])) };
        complaints(&broker).into_iter().find(|(check, _)| *check == "partitions").map(|(_, level)| level)
    };
    assert_eq!(parted(&["quorum"]), Some(Level::Warning));
    assert_eq!(parted(&["quorum", "classic"]), Some(Level::Void));
}

#[test]
fn a_body_that_the_broker_would_refuse_is_found_by_its_version() {
    const MIB: usize = 1024 * 1024;
    let size = |version, max_body| {
        let inlets = vec![Inlet { adapter: "a".to_owned(), max_body }];
        let broker = SeenBroker { version, inlets, ..broker(SeenManagement::NotGiven) };
        judge(&broker).into_iter().find(|one| one.check == "message-size").unwrap()
    };
    for (version, limit) in [((3, 7, 28), 2048), ((3, 8, 0), 128), ((3, 13, 7), 128), ((4, 0, 0), 16), ((4, 2, 1), 16)]
    {
        let version = ServerVersion(version.0, version.1, version.2);
        assert_eq!(size(Some(version), limit * MIB).level, Level::Ok, "{version}");
        let above = size(Some(version), limit * MIB + 1);
        assert_eq!((above.level, above.place.as_str()), (Level::Warning, "a"), "{version}");
        assert!(above.found.contains(&(limit * MIB).to_string()), "{above:?}");
    }
    assert_eq!(size(None, MIB).level, Level::Unseen);
}
