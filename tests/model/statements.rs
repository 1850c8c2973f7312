//! What each statement of `src/store` does to the database of [`super::postgres`]: one function per statement, named by
//! the comment that the statement begins with. A contract test compares each with the real one on a real server
//! (`tests/it/contract.rs`).

use posthaste::model::{JournalState, Mode, StoreType};

use super::postgres::{Acceptance, Age, Body, Database, Id, Instance, Key, Queue, Row, Stored, Tx, fresh};

/// The statement would wait for another transaction: it runs later, or its lock time-out ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits;

/// What an attempt claims, and what it saw of it.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub tx: Tx,
    pub queue: Queue,
    pub attempts: u8,
    pub body: Body,
}

/// `/* accept_logged */`, up to its COMMIT. `Ok(false)`: another row holds the key.
pub fn accept_logged(db: &mut Database, acceptance: Acceptance) -> Result<bool, Waits> {
    if db.store.iter().any(|row| row.dedup_key == Some(acceptance.id)) {
        return Ok(false);
    }
    if db.pending.iter().any(|other| other.id == acceptance.id) {
        return Err(Waits);
    }
    db.pending.push(acceptance);
    Ok(true)
}

/// The COMMIT of `/* accept_logged */`.
pub fn commit_acceptance(db: &mut Database, tx: Tx) {
    let Some(at) = db.pending.iter().position(|one| one.tx == tx) else { return };
    let new = db.pending.remove(at);
    let mut row = fresh(new.tx, new.body, new.mode, new.queue, new.max_attempts);
    let key = db.keep(StoreType::Log, &row);
    if let Some(logged) = db.store.last_mut() {
        logged.dedup_key = Some(new.id);
    }
    row.log_key = Some(key);
    row.owner = Some(new.owner);
    row.publish_due = false;
    db.journal.push(row);
}

/// `/* winner */`: the committed row that holds a key.
pub fn winner(db: &Database, id: Id) -> Option<&Stored> {
    db.store.iter().find(|row| row.dedup_key == Some(id))
}

/// `/* take_first */`, up to its COMMIT: answers `max_attempts`.
pub fn take_first(db: &mut Database, me: Instance, claim: Claim) -> Result<Option<u8>, Waits> {
    take(db, me, claim, |row| row.attempts < row.max_attempts && row.due)
}

/// `/* take_started */`, up to its COMMIT: answers `max_attempts`.
pub fn take_started(db: &mut Database, me: Instance, claim: Claim) -> Result<Option<u8>, Waits> {
    take(db, me, claim, |row| row.running_by == Some(me))
}

fn take(db: &mut Database, me: Instance, claim: Claim, fits: impl Fn(&Row) -> bool) -> Result<Option<u8>, Waits> {
    let Some(row) = db.row_mut(claim.tx) else { return Ok(None) };
    let same = row.queue == claim.queue && row.attempts == claim.attempts && row.body == claim.body;
    if !(same && row.open() && fits(row)) {
        return Ok(None);
    }
    if row.held_by.is_some() {
        return Err(Waits);
    }
    row.held_by = Some(me);
    Ok(Some(row.max_attempts))
}

/// The COMMIT of an attempt. `started`: its start has counted it, and it leaves `due`, where its start has put it.
pub fn commit_attempt(db: &mut Database, tx: Tx, started: bool) {
    let Some(row) = db.row_mut(tx) else { return };
    row.state = JournalState::Done;
    row.in_due &= !started;
    row.attempts += u8::from(!started);
    row.owner = None;
    row.running_by = None;
    row.held_by = None;
}

/// `ROLLBACK`, or the end of a session.
pub fn roll_back(db: &mut Database, tx: Tx) {
    if let Some(row) = db.row_mut(tx) {
        row.held_by = None;
    }
}

/// `/* start */`: answers the attempt's number. Does not wait.
pub fn start(db: &mut Database, me: Instance, tx: Tx, queue: Queue, body: Body) -> Option<u8> {
    let row = db.row(tx)?;
    let free = row.running_by.is_none() || !db.is_live(row.running_by) || row.running_by == Some(me) || row.overdue;
    let same = row.queue == queue && row.body == body;
    let stopped = db.is_stopping(row.running_by);
    let left = row.attempts < row.max_attempts + u8::from(stopped);
    if !(same && row.open() && row.due && left && free) || row.held_by.is_some() {
        return None;
    }
    let noted = row.attempts == 0 && row.running_by.is_some() && !stopped && row.max_attempts > 1;
    let excused = (stopped && row.attempts > 0) || (noted && db.is_live(row.running_by));
    let row = db.row_mut(tx)?;
    row.attempts += 1 + u8::from(noted);
    row.max_attempts += u8::from(excused);
    row.running_by = Some(me);
    row.overdue = false;
    row.in_due = true;
    Some(row.attempts)
}

/// `/* note */`. `false`: it is to be started. Does not wait.
pub fn note(db: &mut Database, me: Instance, tx: Tx, queue: Queue) -> bool {
    let Some(row) = db.row(tx) else { return false };
    let free = row.running_by.is_none() || (db.is_stopping(row.running_by) && !db.is_live(row.running_by));
    let untried = row.attempts == 0 && row.max_attempts > 1;
    if !(row.open() && row.queue == queue && row.due && untried && free) || row.held_by.is_some() {
        return false;
    }
    if let Some(row) = db.row_mut(tx) {
        row.running_by = Some(me);
        row.overdue = false;
    }
    true
}

/// A failed attempt: what its writer saw, and what `attempts` becomes.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    pub tx: Tx,
    pub queue: Queue,
    pub seen: u8,
    pub n: u8,
}

/// An update of an open row under the fence. `Ok(None)`: overtaken.
fn fenced(db: &mut Database, failed: Failed) -> Result<Option<&mut Row>, Waits> {
    let Some(row) = db.row_mut(failed.tx) else { return Ok(None) };
    if !(row.open() && row.queue == failed.queue && row.attempts == failed.seen) {
        return Ok(None);
    }
    if row.held_by.is_some() { Err(Waits) } else { Ok(Some(row)) }
}

/// `/* retry */`, with a delay that is not past at once. `Ok(false)`: overtaken.
pub fn retry(db: &mut Database, failed: Failed) -> Result<bool, Waits> {
    let Some(row) = fenced(db, failed)? else { return Ok(false) };
    wait_again(row, failed.n);
    Ok(true)
}

/// What `/* retry */` writes.
pub fn wait_again(row: &mut Row, n: u8) {
    row.state = JournalState::Ready;
    row.attempts = n;
    row.owner = None;
    row.running_by = None;
    row.publish_due = true;
    row.publishes = 0;
    row.published = Age::Never;
    row.due = false;
    row.in_due = true;
}

/// How giving up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    Overtaken,
    /// In the error store, under this key.
    Kept(Key),
    /// Its body stands nowhere: rolled back.
    BodyGone,
}

/// `/* give_up */`.
pub fn give_up(db: &mut Database, failed: Failed) -> Result<GaveUp, Waits> {
    let Some(row) = fenced(db, failed)? else { return Ok(GaveUp::Overtaken) };
    let logged = row.log_key;
    let before = row.clone();
    row.state = JournalState::Error;
    row.in_due = false;
    row.attempts = failed.n;
    row.owner = None;
    row.running_by = None;
    if logged.is_some_and(|key| !db.store.iter().any(|one| one.key == key)) {
        if let Some(row) = db.row_mut(failed.tx) {
            *row = before;
        }
        return Ok(GaveUp::BodyGone);
    }
    Ok(GaveUp::Kept(match before.return_to {
        Some(key) => db.keep_at(key, StoreType::Error, &before),
        None => db.keep(StoreType::Error, &before),
    }))
}

/// `/* reopen */`.
pub fn reopen(db: &mut Database, tx: Tx, queue: Queue, attempts: u8) -> Result<(), Waits> {
    if let Some(row) = fenced(db, Failed { tx, queue, seen: attempts, n: attempts })? {
        row.state = JournalState::Ready;
        row.owner = None;
        row.publish_due = true;
        row.in_due = true;
    }
    Ok(())
}

/// `/* park */`: a message that cannot be processed is kept for a person, once.
pub fn park(db: &mut Database, tx: Tx, body: Body) {
    if !db.store.iter().any(|row| row.kind == StoreType::Hold && row.tx == tx && row.body == body) {
        let row = fresh(tx, body, Mode::Own, 0, 1);
        db.keep(StoreType::Hold, &row);
    }
}

/// `/* mark */`: what the broker has confirmed, with the `attempts` that were published. Does not wait.
pub fn mark(db: &mut Database, tx: Tx, attempts: u8) -> bool {
    let Some(row) = db.row_mut(tx) else { return false };
    if row.state != JournalState::Ready || row.attempts != attempts || row.held_by.is_some() {
        return false;
    }
    row.state = if row.mode == Mode::Handover { JournalState::Done } else { JournalState::Published };
    row.in_due &= row.open();
    row.published = Age::Fresh;
    true
}

/// `/* publish_failed */`. `counts`: something may have reached the broker. Does not wait.
pub fn publish_failed(db: &mut Database, tx: Tx, attempts: u8, counts: bool) {
    let Some(row) = db.row_mut(tx) else { return };
    if row.state != JournalState::Ready || row.attempts != attempts || row.held_by.is_some() {
        return;
    }
    row.publishes += u8::from(counts);
    row.publish_due = false;
    row.in_due = true;
}

/// What a sweeper saw of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen {
    pub tx: Tx,
    pub attempts: u8,
    pub published: bool,
    pub owner: Option<Instance>,
}

/// `/* claim */`. `Some(suspect)`: claimed, and whether a process may have died of the message. Does not wait.
pub fn claim(db: &mut Database, me: Instance, seen: Seen) -> Option<bool> {
    let state = if seen.published { JournalState::Published } else { JournalState::Ready };
    let row = db.row_mut(seen.tx)?;
    if (row.state, row.attempts, row.owner) != (state, seen.attempts, seen.owner) || row.held_by.is_some() {
        return None;
    }
    row.publishes += u8::from(seen.published);
    row.state = JournalState::Ready;
    row.owner = Some(me);
    row.publish_due = false;
    row.in_due = true;
    let (suspect, logged) = (row.attempts == 0 || row.running_by.is_some(), row.log_key);
    let has_body = logged.is_none_or(|key| db.store.iter().any(|one| one.key == key));
    has_body.then_some(suspect)
}

/// `/* adopt */`: takes over a message of others. `false`: one with this id was adopted from this queue before.
pub fn adopt(db: &mut Database, me: Instance, id: Option<Id>, new: &Row) -> bool {
    if let Some(id) = id {
        if db.inbox.contains(&(new.queue, id)) {
            return false;
        }
        db.inbox.push((new.queue, id));
    }
    db.journal.push(Row { mode: Mode::Direct, owner: Some(me), publish_due: false, ..new.clone() });
    true
}

/// `/* claim_resend */` into the pipeline: answers the row that was deleted.
pub fn claim_resend(db: &mut Database, me: Instance, key: Key, tx: Tx, queue: Queue) -> Option<Stored> {
    let kinds = [StoreType::Error, StoreType::Hold];
    let at = db.store.iter().position(|row| row.key == key && kinds.contains(&row.kind))?;
    let stored = db.store.remove(at);
    db.journal.push(Row {
        root: stored.root,
        attempts: 1,
        owner: Some(me),
        running_by: Some(me),
        return_to: Some(key),
        in_due: true,
        ..fresh(tx, stored.body, Mode::Direct, queue, 1)
    });
    Some(stored)
}

/// `/* look_through */`, of an entry that names this row alone: it goes when the row is settled or stands in `due`.
pub fn look_through(row: &mut Row) {
    row.named &= row.open() && !row.in_due;
}

/// `/* forget_settled */`.
pub fn forget_settled(row: &mut Row) {
    row.in_due &= row.open();
}

/// `/* clean_log */`.
pub fn clean_log(db: &mut Database) {
    let waiting = |root| db.store.iter().any(|one| one.root == root && waits_for_a_person(one.kind));
    let open = |root| db.journal.iter().any(|row| row.root == root && row.open());
    let goes = |row: &Stored| row.expired && !waits_for_a_person(row.kind) && !waiting(row.root) && !open(row.root);
    db.store = db.store.iter().filter(|row| !goes(row)).cloned().collect();
}

/// `/* clean_journal */`.
pub fn clean_journal(db: &mut Database) {
    let store = &db.store;
    let waiting = |root| store.iter().any(|one| one.root == root && waits_for_a_person(one.kind));
    db.journal.retain(|row| row.open() || !row.past_keep || waiting(row.root));
}

fn waits_for_a_person(kind: StoreType) -> bool {
    !matches!(kind, StoreType::Log | StoreType::SenderLog)
}

/// `/* fence */`, and `/* sign_off */`.
pub fn fence(db: &mut Database, instance: Instance) {
    if let Some(live) = db.live.get_mut(usize::from(instance)) {
        *live = false;
    }
}
