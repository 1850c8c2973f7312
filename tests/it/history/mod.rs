//! A pure judge of what clients saw and what was left afterwards (protocol §9.4).
//!
//! The log is written outside the system under test; the final state is read from the databases and the broker after
//! everything has settled. `check` compares the two and knows nothing of how the system works.

mod check;
mod generate;
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use check::check;

/// One POST as its client saw it. Times are microseconds since the start of the run, by the clients' one clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    pub client: u32,
    pub message_id: String,
    /// Belongs to this id alone, so that a row of a table can be matched to it.
    pub body: String,
    /// The tables refuse its body: it belongs in the error store.
    pub poison: bool,
    pub start: u64,
    pub end: u64,
    pub answer: Answer,
}

/// How a POST ended for its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Http {
        status: u16,
        /// The header `X-Outcome`.
        outcome: Option<String>,
    },
    /// No answer in time; the request may have arrived and may still arrive.
    Timeout,
    /// The connection ended after the request was sent.
    Reset,
    /// No connection could be opened: not a byte was sent.
    NotSent,
}

/// What an answer promises (I1 to I4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    Accepted,
    Duplicate,
    /// This request did nothing and will do nothing.
    Nothing,
    Unknown,
    /// An answer that the contract does not have.
    OutsideContract,
}

impl Answer {
    pub fn promise(&self) -> Promise {
        match self {
            Self::Timeout | Self::Reset => Promise::Unknown,
            Self::NotSent => Promise::Nothing,
            Self::Http { status: 202, .. } => Promise::Accepted,
            Self::Http { status: 304, .. } => Promise::Duplicate,
            Self::Http { status: 400..=499, .. } => Promise::Nothing,
            Self::Http { status: 500..=599, outcome } => match outcome.as_deref() {
                Some("none") => Promise::Nothing,
                Some("unknown") => Promise::Unknown,
                Some(_) | None => Promise::OutsideContract,
            },
            Self::Http { .. } => Promise::OutsideContract,
        }
    }
}

/// What was left when everything had settled. The same text twice means two rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalState {
    /// Texts in table `message`, or ids of the transfers in ledger A.
    pub message: Vec<String>,
    /// Texts in table `"otherMessage"`, or ids of the transfers in ledger B.
    pub other_message: Vec<String>,
    /// Message ids of the rows of type A in slot `write-db-req`.
    pub logged: Vec<String>,
    /// Message ids of the rows of type E in slot `write-db`.
    pub errors: Vec<String>,
    /// Message ids of the rows of type H in slot `write-db`.
    pub parked: Vec<String>,
    /// Message ids of journal rows that are neither DONE nor ERROR.
    pub open: Vec<String>,
    /// Messages in the queue, ready or delivered.
    pub queue_depth: u64,
    /// Global ids in `pg_prepared_xacts`.
    pub prepared: Vec<String>,
}

/// What can be wrong with one message, or with the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Accepted, but neither an effect nor an error row (I1).
    Lost,
    /// More than one effect or error row in all (I1).
    Duplicated,
    /// In one table and not in the other (I6).
    Torn,
    /// A trace of an id that nobody posted, or whose every answer was negative (I2, I5).
    Phantom,
    /// "Duplicate" for an id that was never accepted, or before it can have been (I4).
    FalseDuplicate,
    /// Two acceptances of one id (I4).
    TwiceAccepted,
    /// In the error store although nothing is wrong with it: it took the blame for a server or an instance.
    Blamed,
    /// An effect or error row without a row in the message log: a repeat would be accepted again (I4).
    Unlogged,
    /// Set aside as a message without a journal row, although a client posted it (I5).
    Parked,
    /// Still open, or still in the queue, after everything has settled.
    Stuck,
    /// A prepared transaction that nobody finishes (I6).
    OrphanedPrepared,
    /// An answer that the contract does not have.
    OutsideContract,
}

impl Kind {
    pub const ALL: [Self; 12] = [
        Self::Lost,
        Self::Duplicated,
        Self::Torn,
        Self::Phantom,
        Self::FalseDuplicate,
        Self::TwiceAccepted,
        Self::Blamed,
        Self::Unlogged,
        Self::Parked,
        Self::Stuck,
        Self::OrphanedPrepared,
        Self::OutsideContract,
    ];
}

/// The offending ids of each kind; empty when the history is correct.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(BTreeMap<Kind, BTreeSet<String>>);

impl Violations {
    fn add(&mut self, kind: Kind, offender: impl Into<String>) {
        self.0.entry(kind).or_default().insert(offender.into());
    }

    pub fn none(&self) -> bool {
        self.0.is_empty()
    }

    pub fn of(&self, kind: Kind) -> usize {
        self.0.get(&kind).map_or(0, BTreeSet::len)
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        for kind in Kind::ALL {
            write!(f, "{kind:?}: {}", self.of(kind))?;
            if let Some(offenders) = self.0.get(&kind) {
                let shown: Vec<&str> = offenders.iter().take(SHOWN).map(String::as_str).collect();
                write!(f, " ({}{})", shown.join(", "), if offenders.len() > SHOWN { ", ..." } else { "" })?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
