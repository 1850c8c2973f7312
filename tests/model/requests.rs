//! A POST, from before its statement to its answer (protocol §4, steps 0 to 2), decided by the product.

use posthaste::inbound::verdict::AfterFailure;
use posthaste::model::Mode;
use posthaste::store::StoreError;

use super::mutants::Mutant;
use super::postgres::{Acceptance, Body, Id, Instance, Tx};
use super::product;
use super::rules::Rule;
use super::statements::{self, Waits};
use super::sweeper::Publish;
use super::tasks::{Choice, Task};
use super::world::{Lab, Standby, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    pub instance: Instance,
    pub tx: Tx,
    pub id: Id,
    pub body: Body,
    /// A try of this request had an unknown outcome.
    pub unknown: bool,
    /// Its try together with others is over. What a group does to one of its members is what a single statement does;
    /// that it does so to all of them at once is one of the combinations that are explored anyway.
    pub alone: bool,
    pub tries: u8,
    pub at: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The statement is to be sent.
    Ready,
    /// It has inserted and not committed.
    Sent,
    /// Another row holds the key: whose is it?
    Winner,
}

/// Tries of one request until its deadline.
const TRIES: u8 = 2;

pub fn step(lab: &Lab, world: &mut World, request: Request, choice: Choice) -> Option<()> {
    match (request.at, choice) {
        (Stage::Ready, Choice::Refuse) => refuse(lab, world, request),
        (Stage::Ready, Choice::CutBefore) => after(lab, world, request, &StoreError::Unreachable(String::new())),
        (Stage::Ready, Choice::Go | Choice::TimeOut) => send(lab, world, request, choice),
        // It waits.
        (Stage::Sent, Choice::Go) if world.standby == Standby::Away => None,
        (Stage::Sent, Choice::Go) => {
            commit(world, request.tx);
            accepted(lab, world, request);
            Some(())
        }
        (Stage::Sent, Choice::CancelWait) => {
            world.left.restarts = world.left.restarts.checked_sub(1)?;
            becomes_visible(world, request.tx);
            if lab.is(Mutant::WarningIsSuccess) {
                accepted(lab, world, request);
                return Some(());
            }
            after(lab, world, request, &StoreError::Unknown(String::new()))
        }
        // The statement is refused, and the session lives: rolled back.
        (Stage::Sent, Choice::Fail) => {
            world.left.cuts = world.left.cuts.checked_sub(1)?;
            world.db.pending.retain(|one| one.tx != request.tx);
            after(lab, world, request, &refused("53100"))
        }
        // The server goes on with it by itself.
        (Stage::Sent, Choice::CutAfter) => after(lab, world, request, &StoreError::Unknown(String::new())),
        (Stage::Winner, Choice::Go) => winner(lab, world, request),
        (Stage::Winner, Choice::CutBefore) => again(world, request),
        (Stage::Ready | Stage::Sent | Stage::Winner, _) => None,
    }
}

fn refused(sqlstate: &str) -> StoreError {
    StoreError::Refused { sqlstate: sqlstate.to_owned(), message: String::new(), constraint: None }
}

fn send(lab: &Lab, world: &mut World, request: Request, choice: Choice) -> Option<()> {
    let Request { instance: owner, tx, id, body, .. } = request;
    let max_attempts = lab.scenario.max_attempts;
    let new = Acceptance { tx, id, body, mode: Mode::Own, queue: 0, max_attempts, owner };
    let inserted = if lab.is(Mutant::NoUniqueKey) && !world.db.store.iter().any(|row| row.tx == tx) {
        world.db.pending.push(new);
        Ok(true)
    } else {
        statements::accept_logged(&mut world.db, new)
    };
    match (inserted, choice) {
        (Err(Waits), Choice::Go) if lab.is(Mutant::DuplicateOfTheUndecided) => duplicate(world, request),
        (Err(Waits), Choice::TimeOut) => after(lab, world, request, &refused("55P03")),
        (Ok(true), Choice::Go) => on(world, Request { at: Stage::Sent, ..request }),
        (Ok(false), Choice::Go) => on(world, Request { at: Stage::Winner, ..request }),
        (Ok(_) | Err(Waits), _) => None,
    }
}

/// What follows a failed try.
fn after(lab: &Lab, world: &mut World, request: Request, error: &StoreError) -> Option<()> {
    let lost = matches!(error, StoreError::Unknown(_)) && lab.is(Mutant::LostGroupIsUndone);
    if !request.alone && (product::undone(error) || lost) {
        return on(world, Request { alone: true, at: Stage::Ready, ..request });
    }
    let waiting = error.sqlstate() == Some("55P03") && lab.is(Mutant::NoneWhileWaiting);
    let unknown = request.unknown && !lab.is(Mutant::NoneAfterUnknown);
    match product::after_failed_acceptance(error, unknown) {
        AfterFailure::None => none(world, request),
        AfterFailure::Again if waiting => none(world, request),
        AfterFailure::Again => again(world, request),
        AfterFailure::Accepted => {
            accepted(lab, world, request);
            Some(())
        }
    }
}

fn on(world: &mut World, request: Request) -> Option<()> {
    world.tasks.push(Task::Request(request));
    Some(())
}

/// The same statement, with the same tx_id; after the last try the answer is "unknown".
fn again(world: &mut World, request: Request) -> Option<()> {
    let tries = request.tries + 1;
    let next = Request { unknown: true, alone: true, tries, at: Stage::Ready, ..request };
    if tries < TRIES { on(world, next) } else { Some(()) }
}

fn none(world: &mut World, request: Request) -> Option<()> {
    world.record.refused.push(request.tx);
    world.record.refused.sort_unstable();
    Some(())
}

fn refuse(lab: &Lab, world: &mut World, request: Request) -> Option<()> {
    if request.tries > 0 || request.alone {
        return None;
    }
    world.left.refusals = world.left.refusals.checked_sub(1)?;
    let known = statements::winner(&world.db, request.id).is_some();
    if known && !lab.is(Mutant::RefusalWithoutLook) {
        // Otherwise the answer is "unknown".
        return if durable(lab, world) { duplicate(world, request) } else { Some(()) };
    }
    if known {
        world.record.broken = Some(Rule::I3);
    }
    none(world, request)
}

/// Whether a write that is sent now, after what was read, is answered (`Store::durable`).
fn durable(lab: &Lab, world: &World) -> bool {
    world.standby != Standby::Away || lab.is(Mutant::DuplicateFromARead)
}

fn winner(lab: &Lab, world: &mut World, request: Request) -> Option<()> {
    if statements::winner(&world.db, request.id).is_some() && !durable(lab, world) {
        return again(world, request);
    }
    match statements::winner(&world.db, request.id).map(|row| row.tx) {
        Some(tx) if tx == request.tx => {
            accepted(lab, world, request);
            Some(())
        }
        Some(_) => duplicate(world, request),
        None => again(world, request),
    }
}

fn duplicate(world: &mut World, request: Request) -> Option<()> {
    match statements::winner(&world.db, request.id).map(|row| row.tx) {
        Some(tx) if !world.behind.contains(&tx) => {}
        Some(_) | None => world.record.broken = Some(Rule::I4),
    }
    Some(())
}

fn accepted(lab: &Lab, world: &mut World, request: Request) {
    let Request { instance, tx, .. } = request;
    if world.db.row(tx).is_none() || world.behind.contains(&tx) {
        world.record.broken = Some(Rule::I1);
    }
    if lab.scenario.consumed {
        world.tasks.push(Task::Publish(Publish {
            instance,
            tx,
            attempts: 0,
            redone: false,
            sent: false,
            publishes: 0,
        }));
    }
}

/// The primary is restarted, or the standby takes its place: sessions are lost, and their clients know nothing.
pub fn sessions_end(lab: &Lab, world: &mut World) -> Option<()> {
    for task in std::mem::take(&mut world.tasks) {
        match task {
            Task::Request(request) if request.at == Stage::Sent => {
                after(lab, world, request, &StoreError::Unknown(String::new()))?;
            }
            other => world.tasks.push(other),
        }
    }
    Some(())
}

/// The wait for the standby ended without it: a restart, or somebody cancelled it.
pub fn becomes_visible(world: &mut World, tx: Tx) {
    statements::commit_acceptance(&mut world.db, tx);
    world.behind.push(tx);
    world.behind.sort_unstable();
}

/// A fail-over: the standby never had what is behind.
pub fn promote(world: &mut World) {
    let lost = std::mem::take(&mut world.behind);
    world.db.journal.retain(|row| !lost.contains(&row.tx));
    world.db.store.retain(|row| !lost.contains(&row.tx));
    world.db.pending.clear();
    world.standby = Standby::None;
}

/// The standby has all that is visible.
pub fn caught_up(world: &mut World) {
    for tx in std::mem::take(&mut world.behind) {
        let Some(body) = world.db.row(tx).map(|row| usize::from(row.body)) else { continue };
        world.record.accepted[body] = true;
        world.record.logged[body] = true;
    }
}

/// The decision.
pub fn commit(world: &mut World, tx: Tx) {
    let Some(body) = world.db.pending.iter().find(|one| one.tx == tx).map(|one| usize::from(one.body)) else { return };
    statements::commit_acceptance(&mut world.db, tx);
    world.record.accepted[body] = true;
    world.record.logged[body] = true;
}
