//! What was answered to each message of the overload, and whether what is in a table agrees. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::figures::percentile;

/// What an answer says of the message's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Once.
    Accepted,
    /// Never.
    Refused,
    /// Once or never: nobody asked again.
    Unknown,
}

#[derive(Debug, Default)]
pub struct Ledger {
    /// How often each kind of answer came.
    answers: BTreeMap<String, u64>,
    /// By the message's body.
    fates: BTreeMap<String, Fate>,
    /// Of each answer, in microseconds.
    pub latencies: Vec<u32>,
    /// Was due when all connections were waiting for an answer.
    pub unsent: usize,
}

/// The body of the message with this id: sixteen digits that no other one has.
pub fn body_of(id: u128) -> String {
    format!("{:016x}", id >> 64)
}

impl Ledger {
    pub fn note(&mut self, answer: String, id: u128, fate: Fate) {
        *self.answers.entry(answer).or_insert(0) += 1;
        self.fates.insert(body_of(id), fate);
    }

    pub fn add(&mut self, other: Self) {
        for (answer, times) in other.answers {
            *self.answers.entry(answer).or_insert(0) += times;
        }
        self.fates.extend(other.fates);
        self.latencies.extend(other.latencies);
        self.unsent += other.unsent;
    }

    /// Answered, or lost on the way.
    pub fn sent(&self) -> u64 {
        self.answers.values().sum()
    }

    pub fn refused(&self) -> usize {
        self.fates.values().filter(|fate| **fate == Fate::Refused).count()
    }

    pub fn summary(&mut self, seconds: u64) -> String {
        let mut text = String::new();
        let mut within = |per_mille| percentile(&mut self.latencies, per_mille).unwrap_or(0) / 1000;
        // Writing to a String does not fail.
        let _written = writeln!(text, "answered within {} ms (p50), {} ms (p99)", within(500), within(990));
        for (answer, times) in &self.answers {
            let _written = writeln!(text, "{times:>9} {answer} ({:.0}/s)", *times as f64 / seconds as f64);
        }
        let _written = write!(text, "{:>9} not sent: every connection was waiting", self.unsent);
        text
    }

    /// What is in a table, by body and how often, against what was told: at most ten lines.
    pub fn faults(&self, found: &BTreeMap<String, u32>) -> Vec<String> {
        let told = self.fates.iter().filter_map(|(body, fate)| {
            let times = found.get(body).copied().unwrap_or(0);
            let right = match fate {
                Fate::Accepted => times == 1,
                Fate::Refused => times == 0,
                Fate::Unknown => times <= 1,
            };
            (!right).then(|| format!("{body} was {fate:?} and stands there {times} times"))
        });
        let strange = found.keys().filter(|body| !self.fates.contains_key(*body));
        told.chain(strange.map(|body| format!("nobody has sent {body}"))).take(10).collect()
    }
}
