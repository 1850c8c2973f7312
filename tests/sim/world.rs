//! The databases of a history, as an all-seeing observer holds them. Effects are instantaneous; when they happen, and
//! whether anybody hears of them, is the dice's.

use std::collections::{BTreeMap, BTreeSet};

use posthaste::model::Incarnation;
use posthaste::txn::invariants::{Observed, broken};
use posthaste::txn::ports::Decision;
use posthaste::txn::protocol::Outcome;
use posthaste::txn::{Gid, Gtrid};

/// One message: its journal row.
#[derive(Debug, Default)]
pub struct Row {
    /// The session that holds its lock.
    pub lock: Option<u64>,
    pub done_by: Vec<Gtrid>,
}

/// One database beside the home.
#[derive(Debug, Default)]
pub struct Participant {
    pub down: bool,
    pub prepared: BTreeMap<Gid, Vec<usize>>,
    /// Rows whose work is committed here, once for each time.
    pub committed: BTreeMap<usize, u32>,
}

/// A defect of the databases or of the fence, to show that the judgement sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The fence does not wait for decisions on their way.
    FenceDoesNotWait,
    /// A decision is written although its incarnation is fenced.
    DecisionIgnoresFence,
    /// An ABORT is written although a COMMIT on its way holds the key.
    KeyIsFree,
    /// A fenced coordinator may still write ABORT, also where others have committed and forgotten.
    FencedAsksTheLog,
    /// COMMIT PREPARED is answered and not done.
    CommitPreparedIsLost,
    /// The row is not locked by the attempt that works on it.
    NoRowLock,
    /// Of rows that share a transaction only the first becomes DONE.
    FirstAloneIsDone,
}

#[derive(Debug, Default)]
pub struct World {
    pub planted: Option<Planted>,
    /// Messages may share a transaction.
    pub shares: bool,
    pub home_down: bool,
    pub rows: Vec<Row>,
    pub participants: Vec<Participant>,
    /// `true`: LIVE.
    pub instances: BTreeMap<Incarnation, bool>,
    pub decisions: BTreeMap<Gtrid, Decision>,
    /// Decisions that are written and not committed: they hold their key, and the shared fence. With the session.
    pub pending: BTreeMap<Gtrid, (Incarnation, u64)>,
    /// Sessions whose COMMIT was sent: what was to be committed.
    pub sent: BTreeMap<u64, (Vec<usize>, Option<Decision>)>,
    pub seen: BTreeMap<Gtrid, Observed>,
    next_session: u64,
    dice: fastrand::Rng,
    pub story: Vec<String>,
    /// What was found, with the story until then.
    pub wrong: Option<String>,
}

impl World {
    pub fn new(seed: u64, rows: usize, participants: usize) -> Self {
        Self {
            rows: (0..rows).map(|_| Row::default()).collect(),
            participants: (0..participants).map(|_| Participant::default()).collect(),
            dice: fastrand::Rng::with_seed(seed),
            ..Self::default()
        }
    }

    pub fn dice(&mut self, below: u64) -> u64 {
        self.dice.u64(0..below)
    }

    pub fn note(&mut self, what: String) {
        self.story.push(what);
    }

    pub fn session(&mut self) -> u64 {
        self.next_session += 1;
        self.next_session
    }

    /// What the observer must never see, after every effect.
    fn check(&mut self, gtrid: Gtrid) {
        if let Some(wrong) = self.seen.get(&gtrid).and_then(broken) {
            self.fail(format!("{wrong}: {gtrid}"));
        }
    }

    /// The first thing that is wrong counts; a panic in a task would go unheard.
    pub fn fail(&mut self, wrong: String) {
        let story = self.story.join("\n");
        self.wrong.get_or_insert_with(|| format!("{wrong}\n{story}"));
    }

    fn observe(&mut self, gtrid: Gtrid, change: impl FnOnce(&mut Observed)) {
        change(self.seen.entry(gtrid).or_default());
        self.check(gtrid);
    }

    pub fn prepare(&mut self, at: usize, gid: Gid, rows: Vec<usize>) {
        self.note(format!("db{at}: PREPARE {}", gid.gtrid));
        self.participants[at].prepared.insert(gid, rows);
    }

    pub fn rolled_back(&mut self, gid: &Gid) {
        self.observe(gid.gtrid, |seen| seen.rolled_back = seen.rolled_back.with(gid.branch));
    }

    /// COMMIT PREPARED or ROLLBACK PREPARED; `false`: no such gid.
    pub fn finish(&mut self, at: usize, gid: &Gid, outcome: Outcome) -> bool {
        let Some(rows) = self.participants[at].prepared.remove(gid) else { return false };
        self.note(format!("db{at}: {outcome:?} PREPARED {}", gid.gtrid));
        match outcome {
            Outcome::Commit if self.planted == Some(Planted::CommitPreparedIsLost) => {}
            Outcome::Commit => {
                for row in rows {
                    *self.participants[at].committed.entry(row).or_default() += 1;
                }
                self.observe(gid.gtrid, |seen| seen.committed = seen.committed.with(gid.branch));
            }
            Outcome::Abort => self.rolled_back(gid),
        }
        true
    }

    /// The home's COMMIT takes effect, if its session still lives.
    pub fn commit_home(&mut self, session: u64) -> bool {
        let Some((rows, decision)) = self.sent.remove(&session) else { return false };
        let gtrid = decision.as_ref().map_or_else(Gtrid::mint, |decision| decision.gtrid);
        self.note(format!("home: COMMIT {gtrid} for rows {rows:?}"));
        let first_alone = self.planted == Some(Planted::FirstAloneIsDone);
        for (at, row) in rows.into_iter().enumerate() {
            self.rows[row].lock = None;
            if at == 0 || !first_alone {
                self.rows[row].done_by.push(gtrid);
            }
        }
        if let Some(decision) = decision {
            self.pending.remove(&gtrid);
            self.decisions.insert(gtrid, decision);
            self.observe(gtrid, |seen| {
                seen.home_committed = true;
                seen.decision = Some(Outcome::Commit);
            });
        }
        true
    }

    /// The session ends without a COMMIT.
    pub fn roll_back_home(&mut self, session: u64) {
        self.sent.remove(&session);
        self.pending.retain(|_, (_, holder)| *holder != session);
        for row in &mut self.rows {
            if row.lock == Some(session) {
                row.lock = None;
            }
        }
    }

    /// Writes ABORT unless something stands there. `None`: the key is held by a COMMIT on its way.
    pub fn tombstone(&mut self, decision: Decision) -> Option<Outcome> {
        let gtrid = decision.gtrid;
        if self.pending.contains_key(&gtrid) && self.planted != Some(Planted::KeyIsFree) {
            return None;
        }
        if let Some(stands) = self.decisions.get(&gtrid) {
            return Some(stands.outcome);
        }
        self.note(format!("home: ABORT {gtrid} stands in the log"));
        self.decisions.insert(gtrid, decision);
        self.observe(gtrid, |seen| seen.decision = Some(Outcome::Abort));
        Some(Outcome::Abort)
    }

    /// What is left to do, in words.
    pub fn unfinished(&self) -> Option<String> {
        if let Some(row) = self.rows.iter().position(|row| row.done_by.is_empty()) {
            return Some(format!("row {row} is not done"));
        }
        if let Some(at) = self.participants.iter().position(|one| !one.prepared.is_empty()) {
            return Some(format!("db{at} holds prepared transactions"));
        }
        let commits = self.decisions.values().filter(|one| one.outcome == Outcome::Commit).count();
        (commits > 0).then(|| format!("{commits} decisions are still there"))
    }

    /// The end of a history: each message has its effect exactly once, in every database that its work writes to.
    pub fn judge(&mut self, wrote: &BTreeMap<usize, BTreeSet<usize>>) {
        for at in 0..self.rows.len() {
            let times = self.rows[at].done_by.len();
            if times != 1 {
                self.fail(format!("row {at} was done {times} times"));
            }
            for place in 0..self.participants.len() {
                let wanted = u32::from(wrote[&at].contains(&place));
                let found = self.participants[place].committed.get(&at).copied().unwrap_or(0);
                if found != wanted {
                    self.fail(format!("row {at} has {found} effects in db{place}, not {wanted}"));
                }
            }
        }
    }
}
