//! What happens to the processes: deliveries, times that run out, clients, operators, and all that goes wrong.

use posthaste::model::StoreType;

use super::mutants::Mutant;
use super::postgres::{Age, Instance, Stored, Tx};
use super::requests::{self, Request, Stage};
use super::statements;
use super::tasks::{self, Task};
use super::work::{At, Work};
use super::world::{Action, Clock, Lab, Standby, Verdict, World, awaits_redo};

pub fn actions(lab: &Lab, world: &World, actions: &mut Vec<Action>) {
    let left = &world.left;
    if lab.scenario.consumed {
        for (index, copy) in world.ready.iter().enumerate() {
            if index == 0 || world.ready[index - 1] != *copy {
                actions.extend(world.processes.iter().map(|one| Action::Deliver(index, *one)));
                actions.extend((left.losses > 0).then_some(Action::Lose(index)));
            }
        }
    }
    for row in &world.db.journal {
        if lab.scenario.consumed && row.open() {
            actions.extend(world.processes.iter().map(|one| Action::Look(*one, row.tx)));
        }
        let clocks = Clock::ALL.into_iter().filter(|clock| may_pass(lab, world, row.tx, *clock).is_some());
        actions.extend(clocks.map(|clock| Action::Pass(row.tx, clock)));
    }
    for one in &world.db.pending {
        if !world
            .tasks
            .iter()
            .any(|task| matches!(task, Task::Request(request) if request.tx == one.tx && request.at == Stage::Sent))
        {
            // A commit that waits for the standby is neither.
            let waits = world.standby == Standby::Away;
            actions.extend((!waits).then_some(Action::Decide(one.tx, Verdict::Commit)));
            actions.push(Action::Decide(one.tx, Verdict::Abort));
        }
    }
    actions.extend(silent(world).map(Action::Fence));
    for one in world.processes.iter().copied() {
        let busy = world.tasks.iter().any(|task| task.instance() == one);
        let holds = world.tasks.iter().any(|task| task.instance() == one && task.unacknowledged().is_some());
        actions.extend((left.crashes > 0 && busy).then_some(Action::Crash(one)));
        actions.extend((left.stops > 0 && busy).then_some(Action::Stop(one)));
        actions.extend((left.zombies > 0 && busy).then_some(Action::Zombie(one)));
        actions.extend((left.channels > 0 && holds).then_some(Action::CutChannel(one)));
        if left.posts > 0 {
            actions.extend(lab.scenario.messages.iter().map(|(id, body)| Action::Post(one, *id, *body)));
        }
        if left.resends > 0 {
            let errors = world.db.store.iter().filter(|row| row.kind == StoreType::Error);
            actions.extend(errors.map(|row| Action::Resend(one, row.key)));
        }
    }
    match world.standby {
        Standby::None => {}
        Standby::Follows => actions.extend((left.away > 0).then_some(Action::StandbyLost)),
        Standby::Away => {
            actions.push(Action::StandbyBack);
            actions.extend((left.restarts > 0 && !world.db.pending.is_empty()).then_some(Action::Restart));
            actions.extend((left.promotions > 0).then_some(Action::Promote));
        }
    }
    if left.cleanups > 0 {
        actions.push(Action::CleanUp);
        let logged = world.db.store.iter().filter(|row| row.kind == StoreType::Log && !row.expired);
        actions.extend(logged.map(|row| Action::Expire(row.key)));
    }
}

/// Instances that are LIVE in the database and gone.
pub fn silent(world: &World) -> impl Iterator<Item = Instance> {
    let live = (0..).zip(&world.db.live).filter(|(_, live)| **live).map(|(instance, _)| instance);
    live.filter(|instance| !world.processes.contains(instance))
}

/// Whether a time may run out, and whether it does so before its occasion (haste). Times that somebody waits for run
/// out always; the others do so while somebody is still at work as often as the scenario allows.
pub fn may_pass(lab: &Lab, world: &World, tx: Tx, clock: Clock) -> Option<bool> {
    let row = world.db.row(tx)?;
    let (runs, possible) = match clock {
        Clock::NotBefore => return (row.open() && !row.due).then_some(false),
        Clock::Keep => return (world.left.cleanups > 0 && !row.open() && !row.past_keep).then_some(false),
        Clock::PublishAfter => (row.open() && !row.publish_due, world.is_idle(tx)),
        Clock::Redo => (awaits_redo(row), world.is_idle(tx)),
        Clock::Watch => {
            let runs = row.open() && row.running_by.is_some() && !row.overdue;
            (runs, !row.running_by.is_some_and(|runner| world.runs(runner, tx)))
        }
    };
    let allowed = lab.scenario.consumed && runs && (possible || world.left.haste > 0);
    allowed.then_some(!possible)
}

fn pass(lab: &Lab, world: &mut World, tx: Tx, clock: Clock) -> Option<()> {
    if may_pass(lab, world, tx, clock)? {
        world.left.haste -= 1;
    }
    let row = world.db.row_mut(tx)?;
    match clock {
        Clock::NotBefore => row.due = true,
        Clock::PublishAfter => row.publish_due = true,
        Clock::Redo => row.published = Age::Old,
        Clock::Watch => row.overdue = true,
        Clock::Keep => row.past_keep = true,
    }
    Some(())
}

pub fn happen(lab: &Lab, world: &mut World, action: Action) -> Option<()> {
    match action {
        Action::Deliver(index, instance) => {
            let copy = world.ready.remove(index);
            tasks::deliver(world, lab, copy, instance)?;
        }
        Action::Lose(index) => {
            world.left.losses -= 1;
            let copy = world.ready.remove(index);
            world.record.lost[usize::from(copy.body)] = true;
        }
        Action::Pass(tx, clock) => pass(lab, world, tx, clock)?,
        Action::Expire(key) => {
            let logged = world.db.store.iter_mut().find(|row| row.key == key)?;
            logged.expired = true;
            world.record.expired[usize::from(logged.body)] = true;
        }
        Action::Decide(tx, Verdict::Commit) => requests::commit(world, tx),
        Action::Decide(tx, Verdict::Abort) => world.db.pending.retain(|one| one.tx != tx),
        Action::Fence(instance) => statements::fence(&mut world.db, instance),
        Action::Crash(instance) => {
            world.left.crashes -= 1;
            die(world, instance);
        }
        Action::Stop(instance) => {
            world.left.stops -= 1;
            if !lab.is(Mutant::StopCounts) {
                world.db.stopping.push(instance);
            }
            for task in &world.tasks {
                if let Task::Work(Work { instance: one, tx, at: At::Run { .. }, .. }) = task
                    && *one == instance
                {
                    world.record.ran[usize::from(*tx)] -= 1;
                }
            }
            die(world, instance);
        }
        Action::Zombie(instance) => {
            world.left.zombies -= 1;
            statements::fence(&mut world.db, instance);
            disconnect(world, instance);
            restart(world, instance);
        }
        Action::CutChannel(instance) => {
            world.left.channels -= 1;
            disconnect(world, instance);
        }
        Action::Post(instance, id, body) => {
            world.left.posts -= 1;
            let tx = world.mint();
            let at = Stage::Ready;
            let request = Request { instance, tx, id, body, unknown: false, alone: false, tries: 0, at };
            world.tasks.push(Task::Request(request));
        }
        Action::Resend(instance, key) => {
            world.left.resends -= 1;
            world.tasks.push(Task::Resend { instance, key, read: None });
        }
        Action::CleanUp => {
            world.left.cleanups -= 1;
            clean_up(lab, world);
        }
        Action::StandbyLost => {
            world.left.away -= 1;
            world.standby = Standby::Away;
        }
        Action::StandbyBack => {
            world.standby = Standby::Follows;
            requests::caught_up(world);
        }
        Action::Restart => {
            world.left.restarts -= 1;
            for tx in world.db.pending.iter().map(|one| one.tx).collect::<Vec<_>>() {
                requests::becomes_visible(world, tx);
            }
            requests::sessions_end(lab, world)?;
        }
        Action::Promote => {
            world.left.promotions -= 1;
            requests::promote(world);
            requests::sessions_end(lab, world)?;
        }
        Action::Step(..) | Action::Look(..) => return None,
    }
    Some(())
}

fn die(world: &mut World, instance: Instance) {
    for tx in held(world, instance) {
        statements::roll_back(&mut world.db, tx);
    }
    disconnect(world, instance);
    world.tasks.retain(|task| task.instance() != instance);
    restart(world, instance);
}

fn held(world: &World, instance: Instance) -> Vec<Tx> {
    world.db.journal.iter().filter(|row| row.held_by == Some(instance)).map(|row| row.tx).collect()
}

/// Its channel is closed: the broker delivers again, and the tags in hand are dead.
fn disconnect(world: &mut World, instance: Instance) {
    let World { tasks, ready, .. } = world;
    for task in tasks {
        if let Task::Work(Work { instance: one, copy, .. }) = task
            && *one == instance
            && let Some(copy) = copy.take()
        {
            ready.push(super::world::Copy { redelivered: true, ..copy });
        }
    }
}

/// A new incarnation takes the place of one that is gone, or is thought to be.
fn restart(world: &mut World, instance: Instance) {
    let fresh = u8::try_from(world.db.live.len()).unwrap_or(u8::MAX);
    world.db.live.push(true);
    for one in &mut world.processes {
        if *one == instance {
            *one = fresh;
        }
    }
}

fn clean_up(lab: &Lab, world: &mut World) {
    let db = &mut world.db;
    let goes = |row: &Stored| match lab.mutant {
        Some(Mutant::CleanUpOfErrors) => row.kind == StoreType::Error,
        Some(Mutant::CleanUpOfOpen) => row.kind == StoreType::Log && row.expired,
        Some(Mutant::CleanUpOfUnexpired) => row.kind == StoreType::Log,
        Some(_) | None => false,
    };
    db.store.retain(|row| !goes(row));
    statements::clean_log(db);
    statements::clean_journal(db);
}
