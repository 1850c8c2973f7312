//! What doctor answers: one finding per check and place.

use serde::Serialize;

/// How a promise stands. In the order in which people want to read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The promise does not hold as the server is now.
    Void,
    /// It holds, and something else suffers, or is about to.
    Warning,
    /// It could not be seen whether it holds.
    Unseen,
    Ok,
}

impl Level {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Void => "void",
            Self::Warning => "warning",
            Self::Unseen => "unseen",
            Self::Ok => "ok",
        }
    }
}

/// One check at one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    pub check: &'static str,
    /// The entry of resources.yml; with `/` and a queue when it is about that; an adapter's name when it is about that.
    #[serde(rename = "where")]
    pub place: String,
    pub found: String,
    /// In plain words.
    pub promise: &'static str,
    /// The invariants of docs/protocol.md that rest on it; none when it is a matter of operation alone.
    pub invariants: &'static [&'static str],
    /// The setting to change, and where. None when nothing need be done.
    pub change: Option<String>,
}

/// The answer of `posthaste doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// No promise is void. What could not be seen is not counted.
    pub holds: bool,
    /// Servers that did not answer.
    pub unreachable: Vec<String>,
    /// Void first.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn of(mut findings: Vec<Finding>, unreachable: Vec<String>) -> Self {
        // A stable sort: within a level the order is that of resources.yml.
        findings.sort_by_key(|finding| finding.level);
        let holds = findings.iter().all(|finding| finding.level != Level::Void);
        Self { holds, unreachable, findings }
    }
}

/// One kind of check: its name and what it protects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    pub name: &'static str,
    pub promise: &'static str,
    pub invariants: &'static [&'static str],
}

impl Check {
    pub(super) const fn new(name: &'static str, promise: &'static str, invariants: &'static [&'static str]) -> Self {
        Self { name, promise, invariants }
    }

    pub(super) fn ok(&self, place: &str, found: impl Into<String>) -> Finding {
        self.finding(Level::Ok, place, found.into(), None)
    }

    pub(super) fn warning(&self, place: &str, found: impl Into<String>, change: impl Into<String>) -> Finding {
        self.finding(Level::Warning, place, found.into(), Some(change.into()))
    }

    pub(super) fn void(&self, place: &str, found: impl Into<String>, change: impl Into<String>) -> Finding {
        self.finding(Level::Void, place, found.into(), Some(change.into()))
    }

    pub(super) fn unseen(&self, place: &str, found: impl Into<String>, change: impl Into<String>) -> Finding {
        self.finding(Level::Unseen, place, found.into(), Some(change.into()))
    }

    fn finding(&self, level: Level, place: &str, found: String, change: Option<String>) -> Finding {
        let (check, promise, invariants) = (self.name, self.promise, self.invariants);
        Finding { level, check, place: place.to_owned(), found, promise, invariants, change }
    }
}
