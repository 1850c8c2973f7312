//! What is measured, and what is made of it: medians and ratios. Pure.

use serde::{Deserialize, Serialize};

/// One round of one side. What a kind of row does not measure is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// 202s per second while the load ran.
    pub accepted: Option<f64>,
    /// Messages per second from the first POST until the last one has taken effect.
    pub end_to_end: Option<f64>,
    /// Of a POST, in milliseconds, as the client sees it.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    /// Seconds of CPU per 1,000 messages.
    pub cpu_self: Option<f64>,
    pub cpu_postgres: Option<f64>,
    pub cpu_rabbit: Option<f64>,
    /// Of the clients: what the load itself takes from the machine. In the file of all rounds only.
    pub cpu_clients: Option<f64>,
    /// The most memory that one process of this side has had, in MiB.
    pub rss: Option<f64>,
    /// Per message.
    pub wal_bytes: Option<f64>,
    pub flushes: Option<f64>,
    /// Share of one core in per cent, without any message.
    pub idle: Option<f64>,
    /// Of this side alone, per message, where the machine counts them.
    pub instructions: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Figure {
    Accepted,
    EndToEnd,
    P50,
    P99,
    /// Of all three.
    Cpu,
    CpuSelf,
    CpuPostgres,
    CpuRabbit,
    Rss,
    WalBytes,
    Flushes,
    Idle,
    Instructions,
}

impl Figure {
    pub fn of(self, round: &Round) -> Option<f64> {
        match self {
            Self::Accepted => round.accepted,
            Self::EndToEnd => round.end_to_end,
            Self::P50 => round.p50,
            Self::P99 => round.p99,
            Self::Cpu => Some(round.cpu_self? + round.cpu_postgres? + round.cpu_rabbit?),
            Self::CpuSelf => round.cpu_self,
            Self::CpuPostgres => round.cpu_postgres,
            Self::CpuRabbit => round.cpu_rabbit,
            Self::Rss => round.rss,
            Self::WalBytes => round.wal_bytes,
            Self::Flushes => round.flushes,
            Self::Idle => round.idle,
            Self::Instructions => round.instructions,
        }
    }

    /// In a heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Accepted => "accepted/s",
            Self::EndToEnd => "end-to-end/s",
            Self::P50 => "p50 ms",
            Self::P99 => "p99 ms",
            Self::Cpu => "CPU",
            Self::CpuSelf => "self",
            Self::CpuPostgres => "PostgreSQL",
            Self::CpuRabbit => "RabbitMQ",
            Self::Rss => "RSS MiB",
            Self::WalBytes => "WAL B",
            Self::Flushes => "flushes",
            Self::Idle => "idle %",
            Self::Instructions => "instructions",
        }
    }
}

/// What was measured for one row, round by round; both sides have run equally often.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Measured {
    pub product: Vec<Round>,
    /// The other side: the floor, or what the row compares with. Empty when it compares with nothing.
    pub other: Vec<Round>,
}

impl Measured {
    pub fn product(&self, figure: Figure) -> Option<f64> {
        told(&self.product, figure)
    }

    pub fn other(&self, figure: Figure) -> Option<f64> {
        told(&self.other, figure)
    }

    /// The median of the rounds' ratios, product by other: a machine that grows slower meanwhile slows both of a round.
    pub fn ratio(&self, figure: Figure) -> Option<f64> {
        let pairs = self.product.iter().zip(&self.other);
        median(pairs.map(|(product, other)| {
            let (product, other) = (figure.of(product)?, figure.of(other)?);
            (other > 0.0).then_some(product / other)
        }))
    }
}

/// The median of the rounds; of memory the most, since a bound on it is none if some rounds exceed it.
fn told(rounds: &[Round], figure: Figure) -> Option<f64> {
    let values = rounds.iter().map(|round| figure.of(round));
    if figure == Figure::Rss { most(values) } else { median(values) }
}

/// `None` when one is missing or there are none.
fn most(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    values.collect::<Option<Vec<f64>>>()?.into_iter().reduce(f64::max)
}

/// The middle one, or the mean of the two in the middle. `None` when one is missing or there are none.
pub fn median(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect::<Option<_>>()?;
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// The smallest value that is not below this share (in per mille) of all; they are sorted here.
pub fn percentile(values: &mut [u32], per_mille: usize) -> Option<u32> {
    values.sort_unstable();
    let rank = (values.len() * per_mille).div_ceil(1000).max(1);
    values.get(rank - 1).copied()
}
