//! The relay: what a sweeper reads and does, publishes and marks (protocol §4, steps 3 and 4).

use posthaste::model::Mode;
use posthaste::relay::{AfterPublish, Next};

use super::mutants::Mutant;
use super::postgres::{Instance, Row, Tx};
use super::product;
use super::rules::Rule;
use super::sent;
use super::statements::{self, Failed, GaveUp, Seen};
use super::tasks::{Choice, Task};
use super::work::{self, Work};
use super::world::{Copy, Lab, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sweep {
    pub instance: Instance,
    pub seen: Seen,
    pub then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Then {
    Publish,
    Dispatch,
    GiveUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Publish {
    pub instance: Instance,
    pub tx: Tx,
    pub attempts: u8,
    pub redone: bool,
    pub sent: bool,
    /// Before this one, as it was claimed.
    pub publishes: u8,
}

/// What an instance's sweeper would do with a row, by the product's decision. One look at a row at a time.
pub fn next(lab: &Lab, world: &World, instance: Instance, tx: Tx) -> Option<Sweep> {
    let row = world.db.row(tx).filter(|row| row.open() && row.found())?;
    let looks = |task: &Task| matches!(task, Task::Sweep(sweep) if sweep.instance == instance && sweep.seen.tx == tx);
    if world.tasks.iter().any(looks) {
        return None;
    }
    let published = product::is_published(row);
    if published && lab.is(Mutant::RedoOnlyUntilConfirm) {
        return None;
    }
    let seen = Seen { tx, attempts: row.attempts, published, owner: row.owner };
    let row = if lab.is(Mutant::DelayIgnored) { &Row { due: true, ..row.clone() } } else { row };
    let empty = !world.ready.iter().any(|copy| copy.queue == row.queue);
    let then = match product::sweep(&world.db, row, instance, world.runs(instance, tx), empty) {
        Next::Publish => Then::Publish,
        Next::Dispatch => Then::Dispatch,
        Next::GiveUp if lab.is(Mutant::NobodyGivesUp) => return None,
        Next::GiveUp => Then::GiveUp,
        Next::NoConsumer | Next::Later(_) => return None,
    };
    Some(Sweep { instance, seen, then })
}

/// Does what was decided, when the row still stands as it was seen.
pub fn act(lab: &Lab, world: &mut World, sweep: Sweep, choice: Choice) -> Option<()> {
    let Sweep { instance, seen, then } = sweep;
    let tx = seen.tx;
    match choice {
        Choice::Go | Choice::CutAfter => {}
        Choice::CutBefore => return Some(()),
        Choice::TimeOut | Choice::Fail | Choice::Broken | Choice::Refuse | Choice::CancelWait => return None,
    }
    if then == Then::GiveUp {
        let queue = world.db.row(tx)?.queue;
        // Whoever looks on does not wait for a lock.
        let _answer = sent::give_up(lab, world, Failed { tx, queue, seen: seen.attempts, n: seen.attempts });
        return Some(());
    }
    let due = world.db.row(tx).is_some_and(|row| row.due);
    let Some(suspect) = statements::claim(&mut world.db, instance, seen) else { return Some(()) };
    if !due {
        world.record.broken = Some(Rule::Delay);
    }
    if choice == Choice::CutAfter {
        return Some(());
    }
    let (queue, body) = world.db.row(tx).map(|row| (row.queue, row.body))?;
    let attempts = seen.attempts;
    match then {
        Then::Publish => {
            let redone = suspect && !lab.is(Mutant::RedoneUncounted);
            let publishes = world.db.row(tx).map(|row| row.publishes)?;
            world.tasks.push(Task::Publish(Publish { instance, tx, attempts, redone, sent: false, publishes }));
        }
        // Whoever adopted it may have tried it, uncounted.
        Then::Dispatch if !world.runs(instance, tx) => {
            let at = if lab.is(Mutant::DirectUncounted) {
                work::entry(lab, false, attempts)
            } else {
                work::entry(lab, true, attempts)
            };
            world.tasks.push(Task::Work(Work { instance, tx, queue, body, copy: None, at }));
        }
        Then::Dispatch | Then::GiveUp => {}
    }
    Some(())
}

/// A publish: sent, then confirmed; or one of both not.
pub fn publish(lab: &Lab, world: &mut World, publish: Publish, choice: Choice) -> Option<()> {
    let Publish { instance, tx, attempts, redone, sent, .. } = publish;
    match (sent, choice) {
        (false, Choice::Go) => {
            let row = world.db.row(tx)?;
            let own = row.mode == Mode::Own || lab.is(Mutant::HandoverWithOwnHeader);
            let copy = Copy { tx, body: row.body, queue: row.queue, own, attempts, redone, redelivered: false };
            world.ready.push(copy);
            world.tasks.push(Task::Publish(Publish { sent: true, ..publish }));
        }
        (true, Choice::Go) => world.tasks.push(Task::Mark { instance, tx, attempts }),
        // The queue is full, or its channel is lost: nothing is wrong with the message.
        (_, Choice::CutBefore) => {
            if in_vain(lab, world, publish, lab.is(Mutant::BackPressureCounts)) {
                world.record.broken = Some(Rule::Blamed);
            }
        }
        (false, Choice::Refuse) => {
            world.left.refusals = world.left.refusals.checked_sub(1)?;
            let _given_up = in_vain(lab, world, publish, true);
        }
        (true, Choice::Refuse) => return None,
        (_, Choice::CutAfter | Choice::TimeOut | Choice::Fail | Choice::Broken | Choice::CancelWait) => return None,
    }
    Some(())
}

/// It is noted that a publish was not confirmed; true: the message was given up for that. When it cannot be noted,
/// `publish_after` passes by itself.
fn in_vain(lab: &Lab, world: &mut World, publish: Publish, refused: bool) -> bool {
    let Publish { tx, attempts, publishes, .. } = publish;
    match product::after_publish(refused, publishes) {
        AfterPublish::Wait => statements::publish_failed(&mut world.db, tx, attempts, false),
        AfterPublish::Count => statements::publish_failed(&mut world.db, tx, attempts, true),
        AfterPublish::GiveUp { .. } => {
            let Some(queue) = world.db.row(tx).map(|row| row.queue) else { return false };
            let answer = sent::give_up(lab, world, Failed { tx, queue, seen: attempts, n: attempts });
            return matches!(answer, Ok(GaveUp::Kept(_)));
        }
    }
    false
}

/// The mark of a confirmed publish, or its loss.
pub fn mark(lab: &Lab, world: &mut World, tx: Tx, attempts: u8, choice: Choice) -> Option<()> {
    match choice {
        Choice::Go => {
            let stands = world.db.row(tx).map(|row| row.attempts).filter(|_| lab.is(Mutant::MarkWithoutAttempts));
            statements::mark(&mut world.db, tx, stands.unwrap_or(attempts));
            if let Some(row) = world.db.row_mut(tx).filter(|_| lab.is(Mutant::MarkForgetsDue)) {
                row.in_due = false;
            }
            Some(())
        }
        Choice::CutBefore => Some(()),
        Choice::CutAfter | Choice::TimeOut | Choice::Fail | Choice::Broken | Choice::Refuse | Choice::CancelWait => {
            None
        }
    }
}
