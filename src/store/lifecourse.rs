//! What has become of a message, computed from its rows. Pure.

use jiff::Timestamp;
use serde::Serialize;

use crate::model::{Incarnation, JournalState, Mode, StoreType, TxId};

/// One word for where a message stands, the same for its sender and for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageState {
    // In this order of urgency: of several parts the most urgent one speaks for the message.
    /// In an error store or on hold: it waits for a person.
    Error,
    /// It failed at least once, or is being resent, and will be tried again.
    Retrying,
    /// Durable, and not tried yet.
    Accepted,
    /// A person has deleted it from where it waited: nothing will become of it.
    Deleted,
    Processed,
    /// On a queue of others: our part is done.
    HandedOver,
}

impl MessageState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Retrying => "retrying",
            Self::Accepted => "accepted",
            Self::Deleted => "deleted",
            Self::Processed => "processed",
            Self::HandedOver => "enqueued",
        }
    }
}

impl Serialize for MessageState {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why a journal row exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Cause {
    /// The acceptance itself.
    Accepted,
    Resend,
    Outgoing,
}

impl Cause {
    /// `lineage.cause`; no lineage row is the acceptance.
    #[must_use]
    pub fn from_lineage(text: Option<&str>) -> Option<Self> {
        match text {
            None => Some(Self::Accepted),
            Some("RESEND") => Some(Self::Resend),
            Some("OUTGOING") => Some(Self::Outgoing),
            Some(_) => None,
        }
    }
}

/// What one journal row says of its message.
#[derive(Debug, Clone, Copy)]
pub struct Leg {
    pub tx_id: TxId,
    pub cause: Cause,
    /// The row that it comes from; `None`: it is the acceptance.
    pub parent: Option<TxId>,
    pub mode: Mode,
    pub state: JournalState,
    pub attempts: i32,
}

/// The state of everything that descends from one acceptance: `waiting` are the types of its E, H, I and M rows;
/// `deleted`: it is on record that a person took such a row away. Without any row the journal was cleaned, which happens
/// only after the message was done.
#[must_use]
pub fn state_of(waiting: &[StoreType], deleted: bool, legs: &[Leg]) -> MessageState {
    let stored = waiting.iter().filter_map(|kind| match kind {
        StoreType::Error | StoreType::Hold => Some(MessageState::Error),
        StoreType::Waiting | StoreType::InProcess => Some(MessageState::Accepted),
        StoreType::Log | StoreType::SenderLog => None,
    });
    let resent = |leg: &Leg| legs.iter().any(|other| other.cause == Cause::Resend && other.parent == Some(leg.tx_id));
    // Not by the time in their ids, which clocks make.
    let spoken_for = |leg: &Leg| leg.state == JournalState::Error && resent(leg);
    let moving = legs.iter().filter(|leg| !spoken_for(leg)).map(|leg| leg_state(leg, deleted));
    let without_trace = if deleted { MessageState::Deleted } else { MessageState::Processed };
    stored.chain(moving).min().unwrap_or(without_trace)
}

/// Of one for which no resend speaks: one that has failed and was resent says nothing any more.
fn leg_state(leg: &Leg, deleted: bool) -> MessageState {
    let fresh = leg.attempts == 0 && leg.cause != Cause::Resend;
    match leg.state {
        JournalState::Ready | JournalState::Published if fresh => MessageState::Accepted,
        JournalState::Ready | JournalState::Published => MessageState::Retrying,
        JournalState::Done => match leg.mode {
            Mode::Own | Mode::Direct => MessageState::Processed,
            Mode::Handover => MessageState::HandedOver,
        },
        JournalState::Error if deleted => MessageState::Deleted,
        JournalState::Error => MessageState::Error,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AttemptOutcome {
    Running,
    Failed,
    Succeeded,
    Crashed,
    /// Its instance was told to stop: it does not count.
    Stopped,
}

impl AttemptOutcome {
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        match text {
            "RUNNING" => Some(Self::Running),
            "FAILED" => Some(Self::Failed),
            "SUCCEEDED" => Some(Self::Succeeded),
            "CRASHED" => Some(Self::Crashed),
            "STOPPED" => Some(Self::Stopped),
            _ => None,
        }
    }
}

/// One try to process a message.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    pub tx_id: TxId,
    /// Counted from 1 for each journal row.
    pub n: i32,
    pub adapter: Option<String>,
    pub step: Option<String>,
    /// None: a first attempt that succeeded leaves no note of its start.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub outcome: AttemptOutcome,
    pub error: Option<String>,
    pub instance: Option<Incarnation>,
}

/// Where the journal stands on the attempts of one row.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub tx_id: TxId,
    pub mode: Mode,
    pub state: JournalState,
    pub attempts: i32,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// The attempts of one journal row as they really were. A first attempt that succeeds writes no row of its own, and one
/// whose process died can close none: `is_dead` tells whether the instance of a RUNNING row is gone.
#[must_use]
pub fn true_attempts(
    progress: Option<Progress>,
    mut rows: Vec<Attempt>,
    is_dead: impl Fn(&Attempt) -> bool,
) -> Vec<Attempt> {
    let last = rows.iter().map(|row| row.n).chain(progress.map(|at| at.attempts)).max().unwrap_or(0);
    let done = progress.filter(|at| at.state == JournalState::Done && at.mode != Mode::Handover && at.attempts > 0);
    let given_up = progress.is_some_and(|at| at.state == JournalState::Error);
    for row in &mut rows {
        if row.outcome != AttemptOutcome::Running {
            continue;
        }
        match done {
            Some(done) if row.n == done.attempts => {
                row.outcome = AttemptOutcome::Succeeded;
                row.finished_at = row.finished_at.or(done.finished_at);
            }
            Some(_) | None if row.n < last || given_up || is_dead(row) => row.outcome = AttemptOutcome::Crashed,
            Some(_) | None => {}
        }
    }
    if let Some(done) = done
        && !rows.iter().any(|row| row.n == done.attempts)
    {
        rows.push(Attempt {
            tx_id: done.tx_id,
            n: done.attempts,
            adapter: None,
            step: None,
            started_at: done.started_at,
            finished_at: done.finished_at,
            outcome: AttemptOutcome::Succeeded,
            error: None,
            instance: None,
        });
    }
    rows.sort_by_key(|row| row.n);
    rows
}

#[cfg(test)]
#[path = "lifecourse_tests.rs"]
mod tests;
