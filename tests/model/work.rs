//! An attempt, statement by statement (protocol §5), with the product's decisions in between.

use posthaste::model::Mode;
use posthaste::pipeline::FailureKind;
use posthaste::receiver::attempt::{Entry, Unclaimed, Verdict};

use super::mutants::Mutant;
use super::postgres::{Body, Instance, Queue, Tx, fresh};
use super::product;
use super::rules::Rule;
use super::sent::{give_up, retry, start, take};
use super::statements::{self, Failed, GaveUp, Waits};
use super::tasks::{Choice, Task};
use super::world::{Copy, Lab, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Work {
    pub instance: Instance,
    pub tx: Tx,
    /// The queue whose receiver works.
    pub queue: Queue,
    pub body: Body,
    /// The delivery, as long as its channel is open; none for what is dispatched in process.
    pub copy: Option<Copy>,
    pub at: At,
}

/// The next statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum At {
    Adopt,
    Note,
    Start,
    Take {
        seen: u8,
        started: bool,
    },
    /// In the pipeline, then COMMIT.
    Run {
        seen: u8,
        started: bool,
        max_attempts: u8,
    },
    Retry {
        seen: u8,
        n: u8,
    },
    GiveUp {
        seen: u8,
        n: u8,
    },
    /// Read the row that could not be claimed.
    Read,
    Reopen {
        attempts: u8,
    },
    GiveUpCrashed {
        attempts: u8,
    },
    Park,
    /// Acknowledge; `then_first`: it was adopted, and is tried now.
    Acknowledge {
        then_first: bool,
    },
}

impl At {
    /// Whether the process says that it is at work on the row.
    pub fn runs(self) -> bool {
        !matches!(self, Self::Adopt | Self::Acknowledge { .. })
    }
}

const FIRST: At = At::Take { seen: 0, started: false };
const SETTLED: At = At::Acknowledge { then_first: false };

/// How an own message enters.
pub fn entry(lab: &Lab, redelivered: bool, attempts: u8) -> At {
    let redelivered = redelivered && !lab.is(Mutant::RedeliveredUncounted);
    match product::entry(redelivered, attempts) {
        Entry::First => FIRST,
        Entry::Noted => At::Note,
        Entry::Start => At::Start,
    }
}

pub fn on(world: &mut World, work: Work, at: At) -> Option<()> {
    world.tasks.push(Task::Work(Work { at, ..work }));
    Some(())
}

/// The delivery goes back to the queue, uncounted. Also when the database is at fault: the session ends with it.
pub fn hand_back(world: &mut World, work: Work) {
    world.give_back(work.copy);
}

/// Takes the next step; `None`: it cannot, or not so.
pub fn step(lab: &Lab, world: &mut World, work: Work, choice: Choice) -> Option<()> {
    match choice {
        Choice::Fail => return fail(world, work),
        Choice::Broken => return broken(lab, world, work),
        Choice::Refuse | Choice::CancelWait => return None,
        Choice::CutBefore => return cut(world, work),
        Choice::Go | Choice::CutAfter | Choice::TimeOut => {}
    }
    let ran = world.record.ran;
    match (next(lab, world, &work), choice) {
        (Err(Waits), Choice::TimeOut) => match work.at {
            // The error store could not be had: what failed is at least counted (`or_later`).
            At::GiveUp { seen, n } => return on(world, work, At::Retry { seen, n }),
            _ => hand_back(world, work),
        },
        (Ok(_), Choice::CutAfter) => {
            // An answer that did not arrive starts no pipeline.
            world.record.ran = ran;
            return cut(world, work);
        }
        (Ok(Then::Go(work)), Choice::Go) => world.tasks.push(Task::Work(work)),
        (Ok(Then::HandBack), Choice::Go) => hand_back(world, work),
        (Ok(Then::End), Choice::Go) => {}
        (Ok(_) | Err(Waits), _) => return None,
    }
    Some(())
}

/// The database is at fault: the session ends, and so does the consumer's.
fn cut(world: &mut World, work: Work) -> Option<()> {
    session_ends(world, &work);
    hand_back(world, work);
    Some(())
}

/// A session that ends takes its open transaction with it.
fn session_ends(world: &mut World, work: &Work) {
    if world.db.row(work.tx).is_some_and(|row| row.held_by == Some(work.instance)) && work.at.runs() {
        statements::roll_back(&mut world.db, work.tx);
    }
}

enum Then {
    Go(Work),
    HandBack,
    End,
}

/// Sends the next statement and decides on its answer.
fn next(lab: &Lab, world: &mut World, work: &Work) -> Result<Then, Waits> {
    let go = |at: At| Ok(Then::Go(Work { at, ..*work }));
    let Work { instance: me, tx, queue, body, .. } = *work;
    let failed = |seen, n| Failed { tx, queue, seen, n };
    match work.at {
        At::Adopt => {
            let new = fresh(world.next_tx, body, Mode::Direct, queue, lab.scenario.max_attempts);
            let id = (!lab.is(Mutant::NoInbox)).then_some(tx);
            if !statements::adopt(&mut world.db, me, id, &new) {
                return go(SETTLED);
            }
            let tx = world.mint();
            if let Some(row) = world.db.row_mut(tx).filter(|_| lab.is(Mutant::AdoptNamesNothing)) {
                row.named = false;
            }
            Ok(Then::Go(Work { tx, at: At::Acknowledge { then_first: true }, ..*work }))
        }
        At::Note => go(if statements::note(&mut world.db, me, tx, queue) { FIRST } else { At::Start }),
        At::Start => match start(lab, world, work) {
            Some(n) => go(At::Take { seen: n, started: true }),
            None => go(At::Read),
        },
        At::Take { seen, started } => match take(lab, world, work, seen, started)? {
            None => go(At::Read),
            Some(max_attempts) => {
                enter_pipeline(world, work);
                let copy = work.copy.filter(|_| !lab.is(Mutant::AckBeforeCommit));
                Ok(Then::Go(Work { at: At::Run { seen, started, max_attempts }, copy, ..*work }))
            }
        },
        At::Run { started, .. } => {
            statements::commit_attempt(&mut world.db, tx, started);
            world.effect(body);
            go(SETTLED)
        }
        At::Retry { seen, n } => {
            let written = retry(lab, world, failed(seen, n))?;
            go(if written { SETTLED } else { At::Read })
        }
        At::GiveUp { seen, n } => match give_up(lab, world, failed(seen, n))? {
            GaveUp::Kept(_) => go(SETTLED),
            GaveUp::Overtaken => go(At::Read),
            GaveUp::BodyGone => go(At::Retry { seen, n }),
        },
        At::Read => Ok(read(lab, world, work)),
        At::Reopen { attempts } => {
            statements::reopen(&mut world.db, tx, queue, attempts)?;
            go(SETTLED)
        }
        At::GiveUpCrashed { attempts } => match give_up(lab, world, failed(attempts, attempts))? {
            GaveUp::Kept(_) | GaveUp::Overtaken => go(SETTLED),
            GaveUp::BodyGone => Ok(Then::HandBack),
        },
        At::Park => {
            statements::park(&mut world.db, tx, body);
            go(SETTLED)
        }
        At::Acknowledge { then_first: true } => Ok(Then::Go(Work { copy: None, at: FIRST, ..*work })),
        At::Acknowledge { then_first: false } => Ok(Then::End),
    }
}

/// The row that could not be claimed, and what it means.
fn read(lab: &Lab, world: &mut World, work: &Work) -> Then {
    let attempts = |n: i32| u8::try_from(n).unwrap_or(u8::MAX);
    let held = world.db.row(work.tx).is_some_and(|row| row.held_by.is_some());
    let at = match product::unclaimed(&world.db, work.tx, work.queue, work.body) {
        Unclaimed::Drop => SETTLED,
        Unclaimed::HandBack if lab.is(Mutant::AckWhenLocked) && held => SETTLED,
        Unclaimed::HandBack => return Then::HandBack,
        Unclaimed::GiveUp { .. } if lab.is(Mutant::NobodyGivesUp) => return Then::HandBack,
        Unclaimed::Reopen { attempts: n } => At::Reopen { attempts: attempts(n) },
        Unclaimed::GiveUp { attempts: n } => At::GiveUpCrashed { attempts: attempts(n) },
        Unclaimed::Park { .. } if lab.is(Mutant::ProcessedWithoutRow) => {
            enter_pipeline(world, work);
            world.effect(work.body);
            SETTLED
        }
        Unclaimed::Park { .. } => At::Park,
    };
    Then::Go(Work { at, ..*work })
}

/// The pipeline begins: what must be true by then (I5, I7, delays).
fn enter_pipeline(world: &mut World, work: &Work) {
    match world.db.row(work.tx) {
        Some(row) if row.queue == work.queue => {
            if !row.due {
                world.record.broken = Some(Rule::Delay);
            }
            world.record.ran[usize::from(work.tx)] += 1;
        }
        Some(_) | None => world.record.broken = Some(Rule::I5),
    }
}

/// A step of the pipeline fails: rolled back, then counted.
fn fail(world: &mut World, work: Work) -> Option<()> {
    let At::Run { seen, started, max_attempts } = work.at else { return None };
    statements::roll_back(&mut world.db, work.tx);
    let n = if started { seen } else { seen + 1 };
    match product::after_failed_attempt(FailureKind::Step, n, max_attempts) {
        Verdict::Retry { .. } => on(world, work, At::Retry { seen, n }),
        Verdict::GiveUp => on(world, work, At::GiveUp { seen, n }),
        Verdict::HandBack => {
            hand_back(world, work);
            Some(())
        }
    }
}

/// A step broke the transaction and hid it. The probe finds that out, and it is a failed step; without it COMMIT is
/// answered by ROLLBACK, and the client says Ok.
fn broken(lab: &Lab, world: &mut World, work: Work) -> Option<()> {
    let At::Run { .. } = work.at else { return None };
    if !lab.is(Mutant::CommitTagIgnored) {
        return None;
    }
    statements::roll_back(&mut world.db, work.tx);
    on(world, work, SETTLED)
}
