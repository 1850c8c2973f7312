//! What is compared with what, one factor at a time, and what is wanted of it. Pure.

use super::figures::{Figure, Measured};

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// As it is named in `ROWS=`.
    pub name: &'static str,
    pub title: &'static str,
    pub kind: Kind,
    pub connections: usize,
    /// Of a message.
    pub bytes: usize,
    pub targets: &'static [Target],
}

/// What else differs from the base row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The product and the floor under the same load.
    Plain,
    /// Two instances of the product, against one floor.
    TwoInstances,
    /// The product with 10^6 messages in its tables, against the product with none.
    Stored,
    /// The product gets 5 % messages that fail; the floor gets none.
    Poison,
    /// Processing alone, into two databases, against a loop written by hand.
    TwoDatabases,
    /// The product without any message.
    Idle,
}

/// What the median must be.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub figure: Figure,
    pub of: Of,
    pub bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Ratio,
    Product,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const fn ratio(figure: Figure, bound: Bound) -> Target {
    Target { figure, of: Of::Ratio, bound }
}

pub const RATES: [Target; 2] =
    [ratio(Figure::Accepted, Bound::AtLeast(0.8)), ratio(Figure::EndToEnd, Bound::AtLeast(0.8))];
pub const MEMORY: Target = Target { figure: Figure::Rss, of: Of::Product, bound: Bound::AtMost(100.0) };
const RATES_AND_MEMORY: [Target; 3] = [RATES[0], RATES[1], MEMORY];
const STORED: [Target; 2] =
    [ratio(Figure::Accepted, Bound::AtLeast(0.9)), ratio(Figure::EndToEnd, Bound::AtLeast(0.9))];
const IDLE: [Target; 1] = [Target { figure: Figure::Idle, of: Of::Product, bound: Bound::AtMost(1.0) }];

const fn row(name: &'static str, title: &'static str, connections: usize, bytes: usize) -> Row {
    Row { name, title, kind: Kind::Plain, connections, bytes, targets: &[] }
}

const BASE: Row = Row { targets: &RATES, ..row("base", "64 connections, 16 B", 64, 16) };

/// All rows, in the order in which they are measured and shown.
pub const ROWS: [Row; 12] = [
    BASE,
    Row { targets: &[ratio(Figure::P50, Bound::AtMost(1.3))], ..row("conn-1", "1 connection, 16 B", 1, 16) },
    row("conn-16", "16 connections, 16 B", 16, 16),
    Row { targets: &RATES_AND_MEMORY, ..row("conn-256", "256 connections, 16 B", 256, 16) },
    Row { targets: &RATES, ..row("size-1k", "64 connections, 1 KiB", 64, 1024) },
    Row { targets: &RATES_AND_MEMORY, ..row("conn-256-1k", "256 connections, 1 KiB", 256, 1024) },
    row("size-64k", "64 connections, 64 KiB", 64, 65_536),
    Row { targets: &[MEMORY], ..row("conn-256-64k", "256 connections, 64 KiB", 256, 65_536) },
    Row { name: "instances-2", title: "2 instances", kind: Kind::TwoInstances, targets: &[], ..BASE },
    Row { name: "stored-1m", title: "10^6 stored, against none", kind: Kind::Stored, targets: &STORED, ..BASE },
    Row {
        name: "two-databases",
        title: "two databases, against a loop",
        kind: Kind::TwoDatabases,
        targets: &[RATES[1]],
        ..BASE
    },
    Row { name: "poison", title: "5 % poison", kind: Kind::Poison, targets: &[], ..BASE },
];

pub const IDLE_ROW: Row =
    Row { name: "idle", title: "no messages", kind: Kind::Idle, connections: 0, bytes: 0, targets: &IDLE };

/// The rows named in a list with commas; all of them when there is none.
///
/// # Errors
/// Names the word that is no row, and all that are.
pub fn select(names: Option<&str>) -> Result<Vec<Row>, String> {
    let all: Vec<Row> = ROWS.into_iter().chain([IDLE_ROW]).collect();
    let Some(names) = names else { return Ok(all) };
    let find = |name: &str| {
        let known: Vec<&str> = all.iter().map(|row| row.name).collect();
        let row = all.iter().find(|row| row.name == name).copied();
        row.ok_or_else(|| format!("there is no row {name:?}; there are {}", known.join(", ")))
    };
    names.split(',').map(str::trim).map(find).collect()
}

/// What two builds are compared in, unless some of it is asked for.
pub const COMPARED: &str = "conn-1,conn-16,base,conn-256";

/// The rows named in a list with commas, of those that two builds can be compared in.
///
/// # Errors
/// Names the word that is none.
pub fn select_compared(names: Option<&str>) -> Result<Vec<Row>, String> {
    let rows = select(Some(names.unwrap_or(COMPARED)))?;
    match rows.iter().find(|row| !COMPARED.split(',').any(|name| name == row.name)) {
        Some(row) => Err(format!("two builds are not compared in {}, only in {COMPARED}", row.name)),
        None => Ok(rows),
    }
}

impl Target {
    /// The median that this is about, and whether it is as wanted; `None` when it was not measured.
    pub fn judge(&self, measured: &Measured) -> Option<(f64, bool)> {
        let value = match self.of {
            Of::Ratio => measured.ratio(self.figure),
            Of::Product => measured.product(self.figure),
        }?;
        let met = match self.bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        };
        Some((value, met))
    }
}
