//! A resend, as an operator asks for it (protocol §5).

use posthaste::model::Mode;

use super::mutants::Mutant;
use super::postgres::{Body, Instance, Key, Row, fresh};
use super::statements;
use super::tasks::{Choice, Task};
use super::work::{self, At, Work};
use super::world::{Lab, World};

/// An operator's claim on a row of the error store, and the one attempt that it starts.
pub fn step(
    lab: &Lab,
    world: &mut World,
    instance: Instance,
    key: Key,
    read: Option<Body>,
    choice: Choice,
) -> Option<()> {
    if choice == Choice::CutBefore {
        return Some(());
    }
    if !matches!(choice, Choice::Go | Choice::CutAfter) {
        return None;
    }
    if lab.is(Mutant::ResendReadsFirst) && read.is_none() {
        let stored = world.db.store.iter().find(|row| row.key == key);
        let read = stored.map(|row| row.body);
        world.tasks.extend(read.map(|_| Task::Resend { instance, key, read }));
        return Some(());
    }
    if lab.is(Mutant::ResendReusesTxId) {
        let old = world.db.store.iter().position(|row| row.key == key)?;
        let stored = world.db.store.remove(old);
        world.record.waiting[usize::from(stored.body)] -= 1;
        let at = At::Take { seen: 1, started: true };
        let work = Work { instance, tx: stored.tx, queue: 0, body: stored.body, copy: None, at };
        return work::on(world, work, at);
    }
    let tx = world.next_tx;
    let claimed = statements::claim_resend(&mut world.db, instance, key, tx, 0).map(|stored| stored.body);
    if let Some(body) = claimed {
        world.record.waiting[usize::from(body)] -= 1;
    }
    let body = match (claimed, read) {
        (Some(body), _) => body,
        (None, Some(body)) => {
            let again = Row {
                attempts: 1,
                running_by: Some(instance),
                owner: Some(instance),
                return_to: Some(key),
                ..fresh(tx, body, Mode::Direct, 0, 1)
            };
            world.db.journal.push(again);
            body
        }
        (None, None) => return Some(()),
    };
    let tx = world.mint();
    if choice == Choice::CutAfter {
        return Some(());
    }
    let at = At::Take { seen: 1, started: true };
    work::on(world, Work { instance, tx, queue: 0, body, copy: None, at }, at)
}
