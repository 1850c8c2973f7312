use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::store::{Count, Finding, Load, Offender, Rule, SlotRows};

fn count(slot: Option<&str>, destination: Option<&str>, standing: Standing, messages: i64) -> Count {
    Count { slot: slot.map(str::to_owned), destination: destination.map(str::to_owned), standing, messages }
}

fn snapshot() -> Snapshot {
    Snapshot {
        taken_at: Timestamp::UNIX_EPOCH,
        counts: vec![
            count(Some("log"), None, Standing::Processed, 5),
            count(Some("log"), None, Standing::InError, 2),
            count(None, Some("r/q"), Standing::Retrying, 1),
        ],
        findings: vec![Finding { rule: Rule::ErrorTwice, count: 0, ids: vec![] }],
        loads: vec![],
        slots: vec![],
        conflicts: (0, 0),
    }
}

fn claims() -> Claims {
    Claims {
        slots: BTreeMap::from([("log".to_owned(), "in".to_owned()), ("errors".to_owned(), "out".to_owned())]),
        consumers: BTreeMap::from([("r/q".to_owned(), "out".to_owned())]),
        sent_to: BTreeSet::new(),
    }
}

#[test]
fn each_line_has_its_adapter_and_accepted_is_the_sum() {
    let proof = judge(&snapshot(), &claims(), &BTreeMap::new());
    let [log, queue] = proof.balance.as_slice() else { panic!("{:?}", proof.balance) };
    assert_eq!((log.adapter.as_deref(), log.accepted, log.processed, log.in_error), (Some("in"), 7, 5, 2));
    assert_eq!((queue.adapter.as_deref(), queue.slot.as_deref(), queue.retrying), (Some("out"), Some("r/q"), 1));
    assert!(proof.accounted_for);
}

#[test]
fn one_lost_message_or_one_broken_rule_is_enough_to_say_no() {
    let mut lost = snapshot();
    lost.counts.push(count(Some("log"), None, Standing::Unaccounted, 1));
    assert!(!judge(&lost, &claims(), &BTreeMap::new()).accounted_for);

    let mut broken = snapshot();
    let offender = Offender { tx_id: Some(Uuid::nil()), message_id: None };
    broken.findings.push(Finding { rule: Rule::DoneTwice, count: 30, ids: vec![offender] });
    let proof = judge(&broken, &claims(), &BTreeMap::new());
    assert!(!proof.accounted_for);
    let [violation] = proof.violations.as_slice() else { panic!("{:?}", proof.violations) };
    assert_eq!((violation.rule, violation.count, violation.ids.len()), ("doneTwice", 30, 1));
}

#[test]
fn what_nobody_claims_is_told_and_is_no_violation() {
    let mut orphaned = snapshot();
    orphaned.slots =
        ["log", "errors", "old"].map(|slot| SlotRows { slot: slot.to_owned(), kind: "E".to_owned(), rows: 3 }).to_vec();
    orphaned.loads.push(Load {
        destination: "r/old".to_owned(),
        own_published: 2,
        own_ready: 1,
        other: 0,
        oldest: Uuid::nil(),
        oldest_age: Duration::from_secs(9),
    });
    let proof = judge(&orphaned, &claims(), &BTreeMap::new());
    let told: Vec<(&str, i64)> = proof.orphans.iter().map(|orphan| (orphan.what.as_str(), orphan.rows)).collect();
    assert_eq!(told, [("slot old (E) belongs to no adapter here", 3), ("no adapter here consumes r/old", 3)]);
    assert!(proof.accounted_for);
}

#[test]
fn a_depth_tells_of_surplus_and_of_what_is_missing_but_never_of_loss_for_good() {
    let depth = |ready, consumers| Some(Some(Depth { ready, consumers }));
    for (published, ready, depth, words) in [
        (5, 0, None, "not asked"),
        (5, 0, Some(None), "no such queue"),
        (5, 2, depth(9, 1), "at least 2 are repeats"),
        (5, 2, depth(7, 1), "no contradiction"),
        (5, 2, depth(5, 0), "no contradiction"),
        (5, 0, depth(3, 1), "at least 2 are out at consumers, or lost"),
        (5, 0, depth(3, 0), "nobody consumes, so at least 2 are lost by the broker and to be published again"),
    ] {
        let told = told(published, ready, depth);
        assert!(told.contains(words), "{published} {ready} {depth:?}: {told}");
    }
}
