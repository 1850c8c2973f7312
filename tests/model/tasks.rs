//! What processes have in hand. A task ends by not being put back.

use super::postgres::{Instance, Key, Tx};
use super::requests::{self, Request};
use super::resends;
use super::sweeper::{self, Publish, Sweep};
use super::work::{self, At, Work};
use super::world::{Copy, Lab, Standby, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// A POST, from before its statement to its answer.
    Request(Request),
    Publish(Publish),
    /// A confirm that waits for its mark.
    Mark {
        instance: Instance,
        tx: Tx,
        attempts: u8,
    },
    /// A row that a sweeper has read, and what it will do.
    Sweep(Sweep),
    /// A delivery, or a row that is processed in process.
    Work(Work),
    /// An operator's resend, before its claim.
    Resend {
        instance: Instance,
        key: Key,
        /// What reading before deleting has read (a mutant).
        read: Option<u8>,
    },
}

/// How a step goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    Go,
    /// The connection is lost: the server has done it, or has not.
    CutAfter,
    CutBefore,
    /// The lock time-out ends the statement (55P03).
    TimeOut,
    /// The pipeline's step fails; PostgreSQL refuses the statement.
    Fail,
    /// The transaction is broken and nobody has noticed.
    Broken,
    /// The request is refused before its statement is sent; the broker does not take the message.
    Refuse,
    /// Somebody cancels the commit's wait for the standby: it is answered, with a warning.
    CancelWait,
}

impl Choice {
    pub const ALL: [Self; 8] = [
        Self::Go,
        Self::CutAfter,
        Self::CutBefore,
        Self::TimeOut,
        Self::Fail,
        Self::Broken,
        Self::Refuse,
        Self::CancelWait,
    ];
}

impl Task {
    pub fn instance(&self) -> Instance {
        match self {
            Self::Request(request) => request.instance,
            Self::Publish(publish) => publish.instance,
            Self::Sweep(sweep) => sweep.instance,
            Self::Work(work) => work.instance,
            Self::Mark { instance, .. } | Self::Resend { instance, .. } => *instance,
        }
    }

    /// The delivery that it holds on a channel that is open.
    pub fn unacknowledged(&self) -> Option<&Copy> {
        match self {
            Self::Work(work) => work.copy.as_ref(),
            Self::Request(_) | Self::Publish(_) | Self::Mark { .. } | Self::Sweep(_) | Self::Resend { .. } => None,
        }
    }

    pub fn runs(&self, instance: Instance, tx: Tx) -> bool {
        matches!(self, Self::Work(work) if work.instance == instance && work.tx == tx && work.at.runs())
    }

    pub fn concerns(&self, tx: Tx) -> bool {
        match self {
            Self::Request(request) => request.tx == tx,
            Self::Publish(publish) => publish.tx == tx,
            Self::Mark { tx: marked, .. } => *marked == tx,
            Self::Sweep(sweep) => sweep.seen.tx == tx,
            Self::Work(work) => work.tx == tx,
            Self::Resend { .. } => false,
        }
    }

    /// How its next step may go, cheaply; [`step`] knows exactly.
    pub fn choices(&self, lab: &Lab, world: &World) -> impl Iterator<Item = Choice> {
        let cut = world.left.cuts > 0;
        let (request, publishing) = (matches!(self, Self::Request(_)), matches!(self, Self::Publish(_)));
        let waits = request && world.standby == Standby::Away && world.left.restarts > 0;
        let (fails, refused) = (lab.scenario.steps_fail || request, (request || publishing) && world.left.refusals > 0);
        Choice::ALL.into_iter().filter(move |choice| match choice {
            Choice::Go => true,
            Choice::CutAfter => cut && !publishing,
            Choice::CutBefore => cut,
            Choice::TimeOut => !publishing,
            Choice::Fail | Choice::Broken => fails,
            Choice::Refuse => refused,
            Choice::CancelWait => waits,
        })
    }
}

/// The task at `index` takes its next step. `None`: it cannot, or not so.
pub fn step(lab: &Lab, world: &mut World, index: usize, choice: Choice) -> Option<()> {
    let task = world.tasks.remove(index);
    if matches!(choice, Choice::CutAfter | Choice::CutBefore) {
        world.left.cuts = world.left.cuts.checked_sub(1)?;
    }
    match task {
        Task::Request(request) => requests::step(lab, world, request, choice),
        Task::Publish(publish) => sweeper::publish(lab, world, publish, choice),
        Task::Mark { tx, attempts, .. } => sweeper::mark(lab, world, tx, attempts, choice),
        Task::Sweep(sweep) => sweeper::act(lab, world, sweep, choice),
        Task::Work(work) => work::step(lab, world, work, choice),
        Task::Resend { instance, key, read } => resends::step(lab, world, instance, key, read, choice),
    }
}

/// Takes a delivery into a process.
pub fn deliver(world: &mut World, lab: &Lab, copy: Copy, instance: Instance) -> Option<()> {
    // A hand-over carries no home id: to us it is somebody else's message.
    let at = if copy.own { work::entry(lab, copy.redelivered || copy.redone, copy.attempts) } else { At::Adopt };
    let work = Work { instance, tx: copy.tx, queue: copy.queue, body: copy.body, copy: Some(copy), at };
    if at.runs() && world.runs(instance, copy.tx) {
        work::hand_back(world, work);
    } else {
        world.tasks.push(Task::Work(work));
    }
    Some(())
}
