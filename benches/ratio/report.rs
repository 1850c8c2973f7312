//! The tables that are printed and stand in docs/performance.md, and the bars of the picture. Pure.

use super::figures::{Figure, Measured};
use super::rows::{Bound, Kind, Of, Row};
use super::svg::Bar;

/// One table: for each row what the product does, what the other side does, their ratio and what is wanted.
pub fn table(results: &[(Row, Measured)]) -> String {
    let mut lines = vec![heading()];
    lines.push(["---"; COLUMNS.len() + 2].map(str::to_owned).to_vec());
    for (row, measured) in results {
        lines.push(line(row.title, "Posthaste", |figure| show(figure, measured.product(figure))));
        if !measured.other.is_empty() {
            lines.push(line("", other_name(row.kind), |figure| show(figure, measured.other(figure))));
            lines.push(line("", "ratio", |figure| show_ratio(measured.ratio(figure))));
        }
    }
    aligned(&lines)
}

/// What is wanted, and whether it is so.
pub fn targets(results: &[(Row, Measured)]) -> String {
    let words = ["row", "figure", "wanted", "measured", ""];
    let mut lines = vec![words.map(str::to_owned).to_vec(), ["---"; 5].map(str::to_owned).to_vec()];
    for (row, measured) in results {
        for target in row.targets {
            let of = match target.of {
                Of::Ratio => format!("{}, ratio", target.figure.title()),
                Of::Product => target.figure.title().to_owned(),
            };
            let wanted = match target.bound {
                Bound::AtLeast(bound) => format!("at least {bound}"),
                Bound::AtMost(bound) => format!("at most {bound}"),
            };
            let (value, verdict) = match target.judge(measured) {
                Some((value, true)) => (format!("{value:.2}"), "met"),
                Some((value, false)) => (format!("{value:.2}"), "MISSED"),
                None => ("-".to_owned(), "not measured"),
            };
            lines.push(vec![row.title.to_owned(), of, wanted, value, verdict.to_owned()]);
        }
    }
    if lines.len() == 2 { String::new() } else { aligned(&lines) }
}

/// The end-to-end ratio of each row that has one, with the mark of what is wanted.
pub fn bars(results: &[(Row, Measured)]) -> Vec<Bar> {
    let bar = |(row, measured): &(Row, Measured)| {
        let ratio = measured.ratio(Figure::EndToEnd)?;
        let wanted = row.targets.iter().find(|target| target.figure == Figure::EndToEnd && target.of == Of::Ratio);
        let target = wanted.and_then(|target| match target.bound {
            Bound::AtLeast(bound) => Some(bound),
            Bound::AtMost(_) => None,
        });
        Some(Bar { label: row.title.to_owned(), ratio, target })
    };
    results.iter().filter_map(bar).collect()
}

const COLUMNS: [Figure; 12] = [
    Figure::Accepted,
    Figure::EndToEnd,
    Figure::P50,
    Figure::P99,
    Figure::Cpu,
    Figure::CpuSelf,
    Figure::CpuPostgres,
    Figure::CpuRabbit,
    Figure::Rss,
    Figure::WalBytes,
    Figure::Flushes,
    Figure::Idle,
];

/// Between these the document holds what was measured last.
const FROM: &str = "<!-- The last run: written by make bench DOCS=1. -->\n";
const TO: &str = "<!-- End of the last run. -->\n";

/// The document with another last run.
///
/// # Errors
/// It has no place for one.
pub fn with_last_run(document: &str, run: &str) -> Result<String, String> {
    let place = || {
        let (before, rest) = document.split_once(FROM)?;
        Some((before, rest.split_once(TO)?.1))
    };
    let (before, after) = place().ok_or_else(|| format!("there is no {FROM:?} with {TO:?} after it"))?;
    Ok(format!("{before}{FROM}\n{}\n\n{TO}{after}", run.trim()))
}

fn other_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Plain | Kind::TwoInstances | Kind::Poison => "floor",
        Kind::Stored => "none stored",
        Kind::TwoDatabases => "loop",
        Kind::Idle => "-",
    }
}

fn heading() -> Vec<String> {
    let first = ["row", "side"].map(str::to_owned);
    first.into_iter().chain(COLUMNS.map(|figure| figure.title().to_owned())).collect()
}

fn line(row: &str, side: &str, cell: impl Fn(Figure) -> String) -> Vec<String> {
    [row.to_owned(), side.to_owned()].into_iter().chain(COLUMNS.map(cell)).collect()
}

fn show(figure: Figure, value: Option<f64>) -> String {
    let Some(value) = value else { return String::new() };
    match figure {
        Figure::Accepted | Figure::EndToEnd | Figure::Rss | Figure::WalBytes | Figure::Instructions => {
            format!("{value:.0}")
        }
        Figure::P50 | Figure::P99 | Figure::Flushes | Figure::Idle => format!("{value:.2}"),
        Figure::Cpu | Figure::CpuSelf | Figure::CpuPostgres | Figure::CpuRabbit => format!("{value:.3}"),
    }
}

fn show_ratio(value: Option<f64>) -> String {
    value.map(|value| format!("{value:.2}")).unwrap_or_default()
}

/// Lines of a Markdown table, filled up so that a terminal shows columns, too.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |line: &[String], column: usize| line.get(column).cloned().unwrap_or_default();
    let width = |column: usize| lines.iter().map(|line| cell(line, column).chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let shown = |line: &Vec<String>| {
        let cells: Vec<String> = widths
            .iter()
            .enumerate()
            .map(|(column, width)| {
                let text = cell(line, column);
                if text == "---" { "-".repeat(*width) } else { format!("{text:<width$}") }
            })
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    lines.iter().map(shown).collect()
}
