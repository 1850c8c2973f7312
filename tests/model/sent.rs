//! Statements as a receiver sends them: those of [`super::statements`], or what a mutant sends in their place.

use posthaste::model::{JournalState, StoreType};

use super::mutants::Mutant;
use super::rules::Rule;
use super::statements::{self, Claim, Failed, GaveUp, Waits};
use super::work::Work;
use super::world::{Lab, World};

/// `/* start */`.
pub fn start(lab: &Lab, world: &mut World, work: &Work) -> Option<u8> {
    if lab.is(Mutant::NotedUncounted)
        && let Some(row) = world.db.row_mut(work.tx).filter(|row| row.attempts == 0 && row.open())
    {
        row.running_by = None;
    }
    if !lab.is(Mutant::StartWithoutFence) {
        return statements::start(&mut world.db, work.instance, work.tx, work.queue, work.body);
    }
    let row = world.db.row_mut(work.tx).filter(|row| row.open() && row.held_by.is_none())?;
    row.attempts += 1;
    row.running_by = Some(work.instance);
    row.overdue = false;
    Some(row.attempts)
}

/// `/* take_first */` or `/* take_started */`.
pub fn take(lab: &Lab, world: &mut World, work: &Work, seen: u8, started: bool) -> Result<Option<u8>, Waits> {
    let mut claim = Claim { tx: work.tx, queue: work.queue, attempts: seen, body: work.body };
    if lab.is(Mutant::TakeWithoutDestination)
        && let Some(row) = world.db.row(work.tx)
    {
        claim.queue = row.queue;
    }
    if lab.is(Mutant::TakeWithoutState)
        && !started
        && let Some(row) = world.db.row_mut(work.tx).filter(|row| row.state == JournalState::Done)
    {
        row.held_by = Some(work.instance);
        return Ok(Some(row.max_attempts));
    }
    if started {
        statements::take_started(&mut world.db, work.instance, claim)
    } else {
        statements::take_first(&mut world.db, work.instance, claim)
    }
}

/// `/* retry */`.
pub fn retry(lab: &Lab, world: &mut World, failed: Failed) -> Result<bool, Waits> {
    if lab.is(Mutant::RetryWithoutFence)
        && let Some(row) = world.db.row_mut(failed.tx).filter(|row| row.held_by.is_none())
    {
        statements::wait_again(row, failed.n);
        return Ok(true);
    }
    statements::retry(&mut world.db, failed)
}

/// `/* give_up */`, on record.
pub fn give_up(lab: &Lab, world: &mut World, failed: Failed) -> Result<GaveUp, Waits> {
    if lab.is(Mutant::GiveUpWithoutFence)
        && let Some(row) = world.db.row_mut(failed.tx).filter(|row| row.held_by.is_none() && !row.open())
    {
        row.state = JournalState::Error;
        let row = row.clone();
        return Ok(GaveUp::Kept(world.db.keep(StoreType::Error, &row)));
    }
    let gave_up = statements::give_up(&mut world.db, failed)?;
    if let (GaveUp::Kept(_), Some(row)) = (gave_up, world.db.row(failed.tx)) {
        let (body, returns) = (usize::from(row.body), row.return_to);
        world.record.waiting[body] += 1;
        if lab.is(Mutant::ResendLosesItsKey)
            && returns.is_some()
            && let Some(stored) = world.db.store.last_mut()
        {
            stored.key = world.db.next_key;
            world.db.next_key += 1;
        }
        if returns.is_some_and(|key| !world.db.store.iter().any(|one| one.key == key)) {
            world.record.broken = Some(Rule::I1);
        }
    }
    Ok(gave_up)
}
