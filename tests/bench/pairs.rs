use crate::figures::Round;
use crate::pairs::*;
use crate::rows::{Row, select};

fn row(name: &str) -> Row {
    select(Some(name)).unwrap().pop().unwrap()
}

/// So many pairs with these figures of the other build, and this one's times `factor`.
fn pairs(many: usize, factor: f64) -> Pairs {
    let rate = |at: usize| 1000.0 + at as f64;
    let round = |rate: f64, p50: f64| Round {
        accepted: Some(rate),
        end_to_end: Some(rate),
        p50: Some(p50),
        ..Round::default()
    };
    Pairs {
        this: (0..many).map(|at| round(rate(at) * factor, 2.0 / factor)).collect(),
        other: (0..many).map(|at| round(rate(at), 2.0)).collect(),
    }
}

#[test]
fn a_build_that_is_as_fast_meets_what_is_wanted_and_a_slower_one_does_not() {
    for name in ["conn-1", "conn-16", "base", "conn-256"] {
        for (factor, met) in [(1.0, true), (0.951, true), (0.949, false), (0.5, false), (2.0, true)] {
            assert_eq!(verdict(&[(row(name), pairs(20, factor))]).1, met, "{name} {factor}");
        }
    }
}

#[test]
fn one_row_that_is_slower_is_enough() {
    let results = [(row("conn-16"), pairs(20, 1.0)), (row("base"), pairs(20, 0.9))];
    let (told, met) = verdict(&results);
    assert!(!met);
    assert_eq!(told.lines().filter(|line| line.ends_with(" met")).count(), 2, "{told}");
    assert!(told.ends_with("NOT MET"), "{told}");
}

#[test]
fn a_median_that_is_met_is_not_enough_when_the_interval_is_wide() {
    let mut noisy = pairs(20, 1.0);
    for (at, round) in noisy.this.iter_mut().enumerate() {
        round.accepted = Some(if at % 3 == 0 { 800.0 } else { 1200.0 });
    }
    let found = noisy.claimed(Claim::Accepted).unwrap();
    assert!(found.median > 1.0 && !is_met(&found), "{found:?}");
}

#[test]
fn of_too_few_pairs_and_of_none_nothing_is_met() {
    assert!(!verdict(&[(row("base"), pairs(5, 1.0))]).1);
    assert!(!verdict(&[]).1);
}

#[test]
fn of_one_connection_the_answers_count_and_of_more_the_throughput() {
    assert_eq!(claims(&row("conn-1")), [Claim::Quickness]);
    assert_eq!(claims(&row("conn-256")), [Claim::Accepted, Claim::EndToEnd]);
    let faster = pairs(20, 2.0).claimed(Claim::Quickness).unwrap();
    assert_eq!((faster.lower, faster.median, faster.upper), (2.0, 2.0, 2.0));
}

#[test]
fn what_a_message_costs_is_told_without_a_verdict() {
    let mut costly = pairs(20, 1.0);
    costly.this.iter_mut().for_each(|round| round.cpu_self = Some(3.0));
    costly.other.iter_mut().for_each(|round| round.cpu_self = Some(2.0));
    let (told, met) = verdict(&[(row("base"), costly)]);
    assert!(met && told.contains("CPU/message    1.500 [1.500, 1.500] at 95.9 %"), "{told}");
}
