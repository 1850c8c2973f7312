use crate::figures::{Measured, Round};
use crate::rows::*;

#[test]
fn rows_are_chosen_by_name_and_each_has_its_own() {
    let all = select(None).unwrap();
    let names: std::collections::BTreeSet<&str> = all.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), all.len());
    let some: Vec<&str> = select(Some("conn-256, base")).unwrap().iter().map(|row| row.name).collect();
    assert_eq!(some, ["conn-256", "base"]);
}

#[test]
fn a_row_that_is_not_there_is_refused_with_those_that_are() {
    let refused = select(Some("base,bass")).unwrap_err();
    assert!(refused.contains("\"bass\"") && refused.contains("two-databases") && refused.contains("idle"), "{refused}");
}

#[test]
fn two_builds_are_compared_at_1_16_64_and_256_connections_with_16_bytes() {
    let names = |rows: Vec<Row>| rows.iter().map(|row| row.name).collect::<Vec<_>>();
    let all = select_compared(None).unwrap();
    assert_eq!(
        all.iter().map(|row| (row.connections, row.bytes)).collect::<Vec<_>>(),
        [1, 16, 64, 256].map(|n| (n, 16))
    );
    assert_eq!(names(select_compared(Some("conn-256,base")).unwrap()), ["conn-256", "base"]);
    let refused = select_compared(Some("base,poison")).unwrap_err();
    assert!(refused.contains("poison") && refused.contains("conn-16"), "{refused}");
}

#[test]
fn a_target_is_met_at_its_bound_and_missed_beyond_it() {
    let accepted = |rate| vec![Round { accepted: Some(rate), ..Round::default() }];
    let measured = |rate| Measured { product: accepted(rate), other: accepted(10.0) };
    assert_eq!(RATES[0].judge(&measured(8.0)), Some((0.8, true)));
    assert_eq!(RATES[0].judge(&measured(7.9)).map(|(_, met)| met), Some(false));
    assert_eq!(RATES[1].judge(&measured(8.0)), None);
    let rss = |rounds: &[f64]| {
        let product = rounds.iter().map(|rss| Round { rss: Some(*rss), ..Round::default() });
        Measured { product: product.collect(), other: Vec::new() }
    };
    assert_eq!(MEMORY.judge(&rss(&[100.0])), Some((100.0, true)));
    // The worst round counts.
    assert_eq!(MEMORY.judge(&rss(&[50.0, 100.5, 50.0])), Some((100.5, false)));
}
