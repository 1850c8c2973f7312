//! Small worlds, each around one danger: what stands there at first, and how much may go wrong.

use posthaste::model::{JournalState, Mode, StoreType};

use super::postgres::{Age, Body, Id, Row, fresh};
use super::sweeper::Publish;
use super::tasks::Task;
use super::world::{Budget, Copy, Standby, World};

/// One of them.
#[derive(Debug, Clone, Default)]
pub struct Scenario {
    pub name: &'static str,
    pub start: World,
    /// What clients post.
    pub messages: Vec<(Id, Body)>,
    /// The relay and the consumers are at work, not only those who accept.
    pub consumed: bool,
    pub steps_fail: bool,
    pub max_attempts: u8,
}

/// How far the exploration goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Seconds: every build.
    Usual,
    /// Minutes: by hand.
    Deep,
}

pub fn all(depth: Depth) -> Vec<Scenario> {
    let more = u8::from(depth == Depth::Deep);
    vec![
        accept(more),
        standby(more),
        consume(more),
        commit(more),
        zombie(more),
        retry(more),
        deployed(more),
        redone(more),
        adopt(more),
        resend(more),
        astray(more),
        handover(more),
        refused(more),
        retention(more),
        journey(more),
    ]
}

pub fn named(name: &str) -> Scenario {
    let found = all(Depth::Usual).into_iter().find(|scenario| scenario.name == name);
    found.unwrap_or_else(|| panic!("no scenario {name}"))
}

impl Scenario {
    fn new(name: &'static str, processes: u8, max_attempts: u8, left: Budget) -> Self {
        let mut start = World { left, processes: (0..processes).collect(), ..World::default() };
        start.db.live = vec![true; usize::from(processes)];
        Self { name, start, consumed: true, max_attempts, ..Self::default() }
    }

    /// A message that was accepted, with its row as `change` leaves it.
    fn accepted(&mut self, body: Body, change: impl FnOnce(&mut Row)) -> Row {
        let tx = self.start.mint();
        let mut row = Row { owner: Some(0), publish_due: false, ..fresh(tx, body, Mode::Own, 0, self.max_attempts) };
        row.log_key = Some(self.start.db.keep(StoreType::Log, &row));
        change(&mut row);
        self.start.db.journal.push(row.clone());
        self.start.record.accepted[usize::from(body)] = true;
        self.start.record.logged[usize::from(body)] = true;
        row
    }

    /// Its publish is about to be sent.
    fn being_published(self, mode: Mode) -> Self {
        self.being_published_again(mode, 0)
    }

    /// The same, after so many publishes that counted.
    fn being_published_again(mut self, mode: Mode, publishes: u8) -> Self {
        let row = self.accepted(0, |row| (row.mode, row.publishes) = (mode, publishes));
        let publish =
            Publish { instance: 0, tx: row.tx, attempts: 0, redone: false, sent: false, publishes: row.publishes };
        self.start.tasks.push(Task::Publish(publish));
        self
    }

    /// It was published, confirmed and marked.
    fn published(mut self, body: Body, queue: u8, on: u8) -> Self {
        let row = self.accepted(body, |row| {
            row.state = JournalState::Published;
            row.published = Age::Fresh;
            row.queue = queue;
        });
        self.start.ready.push(copy(row.tx, body, on, true));
        self.start.record.lost[usize::from(body)] = queue != on;
        self
    }

    /// Its attempts are used up: it stands in the error store.
    fn given_up(mut self, body: Body) -> Self {
        let row = self.accepted(body, |row| {
            row.state = JournalState::Error;
            row.attempts = row.max_attempts;
            row.owner = None;
        });
        self.start.db.keep(StoreType::Error, &row);
        self.start.record.waiting[usize::from(body)] = 1;
        self
    }
}

fn copy(tx: u8, body: Body, queue: u8, own: bool) -> Copy {
    Copy { tx, body, queue, own, attempts: 0, redone: false, redelivered: false }
}

/// Clients that send the same id, at the same time and again.
fn accept(more: u8) -> Scenario {
    let left = Budget { posts: 3, cuts: 2 + more, refusals: 1, crashes: 1, ..Budget::default() };
    let scenario = Scenario::new("accept", 1 + more, 2, left);
    Scenario { consumed: false, messages: vec![(0, 0)], ..scenario }
}

/// Clients of a primary whose standby is lost, found again and promoted.
fn standby(more: u8) -> Scenario {
    let left =
        Budget { posts: 3, refusals: 1, away: 1 + more, restarts: 1, promotions: 1, cuts: more, ..Budget::default() };
    let mut scenario = Scenario::new("standby", 1, 2, left);
    scenario.start.standby = Standby::Follows;
    Scenario { consumed: false, messages: vec![(0, 0)], ..scenario }
}

/// A delivery: redelivered, lost, its process dead.
fn consume(more: u8) -> Scenario {
    let left = Budget { crashes: 1, channels: more, losses: 1, haste: 1, ..Budget::default() };
    Scenario::new("consume", 1, 2, left).published(0, 0, 0)
}

/// A delivery whose database goes away in each of its statements, COMMIT included.
fn commit(more: u8) -> Scenario {
    let left = Budget { cuts: 1 + more, channels: 1, crashes: more, ..Budget::default() };
    Scenario { steps_fail: true, ..Scenario::new("commit", 1, 2, left).published(0, 0, 0) }
}

/// A consumer that is thought dead and goes on, beside the one that has taken over.
fn zombie(more: u8) -> Scenario {
    let left = Budget { zombies: 1, cuts: more, ..Budget::default() };
    Scenario { steps_fail: true, ..Scenario::new("zombie", 1, 2, left).published(0, 0, 0) }
}

/// Steps that fail, delays, marks that come late, and the last attempt.
fn retry(more: u8) -> Scenario {
    let left = Budget { crashes: 1, channels: more, ..Budget::default() };
    Scenario { steps_fail: true, ..Scenario::new("retry", 1, 2, left).being_published(Mode::Own) }
}

/// A message that was tried before, whose instances are stopped in the midst of it.
fn deployed(more: u8) -> Scenario {
    let left = Budget { stops: 3 + more, channels: 1, ..Budget::default() };
    let mut scenario = Scenario::new("deployed", 1, 2, left);
    let row = scenario.accepted(0, |row| {
        row.state = JournalState::Published;
        row.published = Age::Fresh;
        row.attempts = 1;
    });
    scenario.start.ready.push(Copy { attempts: 1, ..copy(row.tx, 0, 0, true) });
    scenario.published(1, 0, 0)
}

/// Several copies of a message that kills its process.
fn redone(more: u8) -> Scenario {
    let left = Budget { crashes: 2, haste: 1, losses: more, ..Budget::default() };
    Scenario::new("redone", 1, 1, left).being_published(Mode::Own)
}

/// A message of others, delivered again and again.
fn adopt(more: u8) -> Scenario {
    let left = Budget { crashes: 2, channels: 1, cuts: 1, haste: more, ..Budget::default() };
    let mut scenario = Scenario { steps_fail: more > 0, ..Scenario::new("adopt", 1, 2, left) };
    scenario.start.ready.push(copy(7, 0, 0, false));
    scenario.start.record.accepted[0] = true;
    scenario
}

/// Two operators, a step that may fail again, and a process that may die.
fn resend(more: u8) -> Scenario {
    let left = Budget { resends: 2 + more, crashes: 1, cuts: 1, haste: more, ..Budget::default() };
    Scenario { steps_fail: true, ..Scenario::new("resend", 2, 2, left).given_up(0) }
}

/// An own message without a row, and one on another queue than its own.
fn astray(more: u8) -> Scenario {
    let left = Budget { channels: 1, crashes: more, ..Budget::default() };
    let mut scenario = Scenario::new("astray", 1, 2, left).published(0, 1, 0);
    scenario.start.ready.push(copy(7, 1, 0, true));
    scenario
}

/// A message for a queue of others that a listener of ours reads all the same.
fn handover(more: u8) -> Scenario {
    let left = Budget { crashes: 1, cuts: 1, haste: more, ..Budget::default() };
    Scenario::new("handover", 1, 2, left).being_published(Mode::Handover)
}

/// A message that the broker does not take, or that a full queue keeps back, before its last publish that counts.
fn refused(more: u8) -> Scenario {
    let left = Budget { cuts: 2, refusals: 2, crashes: 1, haste: more, losses: more, ..Budget::default() };
    Scenario::new("refused", 1, 2, left).being_published_again(Mode::Own, 8)
}

/// Clean-up beside a message on its way and one that waits for a person.
fn retention(more: u8) -> Scenario {
    let left = Budget { cleanups: 2, resends: 1, crashes: more, ..Budget::default() };
    Scenario::new("retention", 1, 1, left).published(0, 0, 0).given_up(1)
}

/// From the POST to the end.
fn journey(more: u8) -> Scenario {
    let left = Budget { posts: 1, crashes: 1, cuts: more, losses: more, ..Budget::default() };
    let scenario = Scenario::new("journey", 1, 2, left);
    Scenario { messages: vec![(0, 0)], steps_fail: true, ..scenario }
}
