use crate::figures::{Measured, Round};
use crate::report::*;
use crate::rows::{Row, select};

fn results() -> Vec<(Row, Measured)> {
    let round = |rate, rss| Round { accepted: Some(rate), end_to_end: Some(rate), rss: Some(rss), ..Round::default() };
    let measured = Measured { product: vec![round(790.4, 50.0); 3], other: vec![round(1000.0, 20.0); 3] };
    let idle = Measured { product: vec![Round { idle: Some(0.25), ..Round::default() }], other: Vec::new() };
    let rows = select(Some("base,idle")).unwrap();
    rows.into_iter().zip([measured, idle]).collect()
}

#[test]
fn the_table_has_three_lines_for_a_row_that_is_compared_and_one_for_another() {
    let table = table(&results());
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + 3 + 1, "{table}");
    assert!(lines[2].contains("64 connections, 16 B") && lines[2].contains("| 790 "), "{table}");
    assert!(lines[3].contains("| floor") && lines[3].contains("| 1000 "), "{table}");
    assert!(lines[4].contains("| ratio") && lines[4].contains("| 0.79 "), "{table}");
    assert!(lines[5].contains("| 0.25 "), "{table}");
    let widths: std::collections::BTreeSet<usize> = lines.iter().map(|line| line.len()).collect();
    assert_eq!(widths.len(), 1, "{table}");
}

#[test]
fn a_missed_target_says_so() {
    let text = targets(&results());
    let line = |what: &str| text.lines().find(|line| line.contains(what)).unwrap_or_default().to_owned();
    assert!(
        line("accepted/s, ratio").contains("at least 0.8") && line("accepted/s, ratio").contains("MISSED"),
        "{text}"
    );
    assert!(line("idle").contains("at most 1") && line("idle").contains("| met"), "{text}");
}

#[test]
fn rows_without_targets_or_ratios_are_left_out() {
    let rows = select(Some("conn-16")).unwrap();
    let results: Vec<_> = rows.into_iter().map(|row| (row, Measured::default())).collect();
    assert_eq!(targets(&results), "");
    assert!(bars(&results).is_empty());
}

#[test]
fn a_bar_has_the_ratio_and_the_mark_of_its_row() {
    let bars = bars(&results());
    assert_eq!(bars.len(), 1, "the idle row has no rate");
    assert_eq!((bars[0].label.as_str(), bars[0].target), ("64 connections, 16 B", Some(0.8)));
    assert!((bars[0].ratio - 0.7904).abs() < 1e-9);
}

#[test]
fn the_document_has_a_place_for_the_last_run_and_only_that_is_replaced() {
    let document = include_str!("../../docs/performance.md");
    let once = with_last_run(document, "1\n").unwrap();
    let twice = with_last_run(&once, "22").unwrap();
    assert!(once.contains("-->\n\n1\n\n<!--") && !twice.contains("\n1\n") && twice.contains("\n22\n"), "{twice}");
    assert_eq!(twice.replace("\n22\n", "\n1\n"), once);
    assert!(with_last_run("no place", "1").is_err());
}
