//! What is told of two builds that took turns. Pure.

use super::figures::{Figure, Round};
use super::interval::{Interval, interval};
use super::rows::Row;

/// What the lower end of the interval must be.
pub const WANTED: f64 = 0.95;
/// What of a message's costs is told.
const COSTS: [(Figure, &str); 4] = [
    (Figure::CpuSelf, "CPU/message"),
    (Figure::CpuPostgres, "CPU PostgreSQL"),
    (Figure::CpuRabbit, "CPU RabbitMQ"),
    (Figure::Instructions, "instr./message"),
];
/// The fewest pairs from which anything is told.
pub const FEWEST: usize = 20;

/// The rounds of one row, pair by pair.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    pub this: Vec<Round>,
    pub other: Vec<Round>,
}

/// A figure of which more is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Accepted,
    EndToEnd,
    /// One by the p50.
    Quickness,
}

impl Claim {
    pub const fn title(self) -> &'static str {
        match self {
            Self::Accepted => "accepted/s",
            Self::EndToEnd => "end-to-end/s",
            Self::Quickness => "1 / p50",
        }
    }

    fn of(self, round: &Round) -> Option<f64> {
        match self {
            Self::Accepted => round.accepted,
            Self::EndToEnd => round.end_to_end,
            Self::Quickness => Some(1.0 / round.p50.filter(|p50| *p50 > 0.0)?),
        }
    }
}

/// What is claimed of a row: of one connection how soon it is answered, of more how many are.
pub fn claims(row: &Row) -> &'static [Claim] {
    if row.connections == 1 { &[Claim::Quickness] } else { &[Claim::Accepted, Claim::EndToEnd] }
}

impl Pairs {
    /// The ratios of the pairs, this by the other: a machine that grows slower meanwhile slows both of a pair.
    fn ratios(&self, of: impl Fn(&Round) -> Option<f64>) -> Option<Vec<f64>> {
        let pairs = self.this.iter().zip(&self.other);
        pairs.map(|(this, other)| Some(of(this)? / of(other).filter(|other| *other > 0.0)?)).collect()
    }

    pub fn ratios_of(&self, claim: Claim) -> Option<Vec<f64>> {
        self.ratios(|round| claim.of(round))
    }

    pub fn claimed(&self, claim: Claim) -> Option<Interval> {
        interval(&self.ratios_of(claim)?)
    }

    /// Of what a message costs less is better: told, and no verdict.
    fn cost(&self, figure: Figure) -> Option<Interval> {
        interval(&self.ratios(|round| figure.of(round))?)
    }
}

pub fn is_met(interval: &Interval) -> bool {
    interval.lower >= WANTED
}

/// A line for each claim, and whether all are met.
pub fn verdict(results: &[(Row, Pairs)]) -> (String, bool) {
    let (mut lines, mut all_met) = (Vec::new(), !results.is_empty());
    for (row, pairs) in results {
        for claim in claims(row) {
            let (told, met) = match pairs.claimed(*claim) {
                Some(found) => (show(&found), is_met(&found)),
                None => ("not known: too few pairs".to_owned(), false),
            };
            all_met &= met;
            let met = if met { "met" } else { "NOT MET" };
            lines.push(format!("{:<24} {:<14} {told:<32} {met}", row.title, claim.title()));
        }
        for (figure, title) in COSTS {
            if let Some(found) = pairs.cost(figure) {
                lines.push(format!("{:<24} {title:<14} {:<32} (less is better)", row.title, show(&found)));
            }
        }
    }
    let end = if all_met { "met" } else { "NOT MET" };
    lines.push(format!("wanted: the lower end at least {WANTED} in each: {end}"));
    (lines.join("\n"), all_met)
}

fn show(found: &Interval) -> String {
    let Interval { lower, median, upper, confidence } = found;
    format!("{median:.3} [{lower:.3}, {upper:.3}] at {:.1} %", confidence * 100.0)
}
