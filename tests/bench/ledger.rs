use std::collections::BTreeMap;

use crate::ledger::*;

fn id(number: u128) -> u128 {
    number << 64
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.note("202".to_owned(), id(1), Fate::Accepted);
    ledger.note("503".to_owned(), id(2), Fate::Refused);
    let mut other = Ledger::default();
    other.note("503".to_owned(), id(3), Fate::Unknown);
    ledger.add(other);
    ledger
}

fn table(rows: &[(u128, u32)]) -> BTreeMap<String, u32> {
    rows.iter().map(|(number, times)| (body_of(id(*number)), *times)).collect()
}

#[test]
fn what_agrees_with_the_answers_is_no_fault() {
    assert!(ledger().faults(&table(&[(1, 1)])).is_empty());
    assert!(ledger().faults(&table(&[(1, 1), (3, 1)])).is_empty());
}

#[test]
fn lost_doubled_phantom_and_strange_ones_are_found() {
    for (rows, what) in [
        (vec![], "Accepted and stands there 0 times"),
        (vec![(1, 2)], "Accepted and stands there 2 times"),
        (vec![(1, 1), (2, 1)], "Refused and stands there 1 times"),
        (vec![(1, 1), (3, 2)], "Unknown and stands there 2 times"),
        (vec![(1, 1), (4, 1)], "nobody has sent"),
    ] {
        let faults = ledger().faults(&table(&rows));
        assert!(faults.len() == 1 && faults[0].contains(what), "{rows:?}: {faults:?}");
    }
}

#[test]
fn the_summary_counts_each_kind_of_answer() {
    let mut ledger = ledger();
    ledger.latencies = vec![3_000, 900_000, 1_000];
    let summary = ledger.summary(2);
    assert!(summary.contains("2 503 (1/s)") && summary.contains("1 202"), "{summary}");
    assert!(summary.contains("3 ms (p50), 900 ms (p99)"), "{summary}");
    ledger.unsent = 7;
    assert_eq!((ledger.sent(), ledger.refused()), (3, 1), "what found no connection was not sent");
}

#[test]
fn a_body_has_sixteen_characters() {
    assert_eq!(body_of(id(255)), "00000000000000ff");
    assert_eq!(body_of(u128::MAX).len(), 16);
}
