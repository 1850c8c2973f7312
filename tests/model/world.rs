//! One home, one broker, the processes at work, and everything that may happen next.

use posthaste::model::{JournalState, Mode, StoreType};
use stateright::{Model, Property};

use super::mutants::Mutant;
use super::postgres::{Age, Body, Database, Id, Instance, Key, Queue, Row, Tx};
use super::rules::Rule;
use super::scenarios::Scenario;
use super::tasks::{Choice, Task};
use super::{chance, statements, sweeper, tasks};

/// A property: without it an exploration proves nothing.
pub const REACHED: &str = "a message reaches its end";
pub const MESSAGES: usize = 3;
pub const ROWS: usize = 8;

/// A message on a queue. Queues are sets: any copy may be the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Copy {
    /// AMQP's `message_id`; of a message of others its id.
    pub tx: Tx,
    pub body: Body,
    pub queue: Queue,
    /// It carries our home id.
    pub own: bool,
    pub attempts: u8,
    /// `x-posthaste-redone`.
    pub redone: bool,
    pub redelivered: bool,
}

/// How much may still go wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Processes that die.
    pub crashes: u8,
    /// Processes that are told to stop and end in the midst of their work.
    pub stops: u8,
    /// Processes that are fenced while they live, and go on.
    pub zombies: u8,
    /// Statements, publishes and confirms whose connection is lost.
    pub cuts: u8,
    /// Channels that close with deliveries in hand.
    pub channels: u8,
    /// Messages that the broker loses.
    pub losses: u8,
    /// Times that run out although somebody is at work.
    pub haste: u8,
    /// Requests that clients send (each again).
    pub posts: u8,
    /// Requests that are refused before their statement is sent, and messages that the broker does not take.
    pub refusals: u8,
    /// Resends by operators.
    pub resends: u8,
    /// Rounds of clean-up.
    pub cleanups: u8,
    /// Times that the standby is lost.
    pub away: u8,
    /// Restarts of the primary while commits wait, and waits that are cancelled.
    pub restarts: u8,
    /// Fail-overs to the standby.
    pub promotions: u8,
}

/// What an observer outside the system knows; no decision reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Record {
    pub effects: [u8; MESSAGES],
    pub accepted: [bool; MESSAGES],
    /// It has, or had, a row in the message log.
    pub logged: [bool; MESSAGES],
    pub expired: [bool; MESSAGES],
    /// Rows that went to the error store and were not taken from there.
    pub waiting: [u8; MESSAGES],
    pub lost: [bool; MESSAGES],
    /// Runs of the pipeline, by journal row, but for those that a stop ended.
    pub ran: [u8; ROWS],
    /// Requests that were answered `none`.
    pub refused: Vec<Tx>,
    /// A rule that a step itself has broken.
    pub broken: Option<Rule>,
}

/// Whether commits wait for a synchronous standby.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Standby {
    /// There is none, or it has been promoted.
    #[default]
    None,
    Follows,
    /// No commit is answered until it is back.
    Away,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct World {
    pub db: Database,
    pub standby: Standby,
    /// Acceptances that are visible and that the standby does not have: a fail-over forgets them.
    pub behind: Vec<Tx>,
    pub ready: Vec<Copy>,
    pub tasks: Vec<Task>,
    /// The processes, by their present incarnation.
    pub processes: Vec<Instance>,
    pub left: Budget,
    pub next_tx: Tx,
    pub record: Record,
}

impl World {
    pub fn rows(&self, body: usize) -> impl Iterator<Item = &Row> {
        self.db.journal.iter().filter(move |row| usize::from(row.body) == body)
    }

    pub fn stored(&self, kind: StoreType, body: usize) -> usize {
        self.db.store.iter().filter(|row| row.kind == kind && usize::from(row.body) == body).count()
    }

    pub fn broke(&self, rule: Rule) -> bool {
        self.record.broken == Some(rule)
    }

    fn all_copies(&self) -> impl Iterator<Item = &Copy> {
        self.ready.iter().chain(self.tasks.iter().filter_map(Task::unacknowledged))
    }

    /// Copies of a message at the broker, delivered or not.
    pub fn copies(&self, body: usize) -> usize {
        self.all_copies().filter(|copy| usize::from(copy.body) == body).count()
    }

    pub fn copies_of(&self, tx: Tx) -> usize {
        self.all_copies().filter(|copy| copy.own && copy.tx == tx).count()
    }

    pub fn mint(&mut self) -> Tx {
        self.next_tx += 1;
        assert!(usize::from(self.next_tx) <= ROWS, "the scenario needs more rows");
        self.next_tx - 1
    }

    /// Whether a process is at work on a row (`Relay::run`).
    pub fn runs(&self, instance: Instance, tx: Tx) -> bool {
        self.tasks.iter().any(|task| task.runs(instance, tx))
    }

    /// Whether nobody at all has to do with a row for now.
    pub fn is_idle(&self, tx: Tx) -> bool {
        self.copies_of(tx) == 0 && !self.tasks.iter().any(|task| task.concerns(tx))
    }

    pub fn effect(&mut self, body: Body) {
        self.record.effects[usize::from(body)] += 1;
    }

    /// A delivery goes back to its queue.
    pub fn give_back(&mut self, copy: Option<Copy>) {
        self.ready.extend(copy.map(|copy| Copy { redelivered: true, ..copy }));
    }

    /// Whatever a finder may take away it takes at once: a row that is found all the same is found by less than in any other
    /// order.
    fn sort(&mut self) {
        for row in &mut self.db.journal {
            statements::look_through(row);
            statements::forget_settled(row);
        }
        self.ready.sort_unstable();
        self.tasks.sort_unstable();
    }
}

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A task takes its next step.
    Step(usize, Choice),
    Deliver(usize, Instance),
    /// A sweeper reads a row and decides.
    Look(Instance, Tx),
    /// A time runs out.
    Pass(Tx, Clock),
    /// A log row expires.
    Expire(Key),
    /// The server decides a statement whose client is gone.
    Decide(Tx, Verdict),
    /// A silent instance is fenced.
    Fence(Instance),
    Crash(Instance),
    Stop(Instance),
    Zombie(Instance),
    CutChannel(Instance),
    Lose(usize),
    Post(Instance, Id, Body),
    Resend(Instance, Key),
    CleanUp,
    StandbyLost,
    StandbyBack,
    /// The primary, while commits wait for the standby.
    Restart,
    Promote,
}

impl Action {
    /// It happens by itself, and nothing goes wrong in it.
    pub fn is_ordinary(self) -> bool {
        match self {
            Self::Step(_, choice) => choice == Choice::Go,
            Self::Decide(_, verdict) => verdict == Verdict::Commit,
            Self::Deliver(..) | Self::Look(..) | Self::Pass(..) | Self::Fence(_) | Self::StandbyBack => true,
            Self::Expire(_)
            | Self::Crash(_)
            | Self::Stop(_)
            | Self::Zombie(_)
            | Self::CutChannel(_)
            | Self::Lose(_) => false,
            Self::Post(..) | Self::Resend(..) | Self::CleanUp => false,
            Self::StandbyLost | Self::Restart | Self::Promote => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    Commit,
    Abort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clock {
    NotBefore,
    PublishAfter,
    Redo,
    Watch,
    Keep,
}

impl Clock {
    pub const ALL: [Self; 5] = [Self::NotBefore, Self::PublishAfter, Self::Redo, Self::Watch, Self::Keep];
}

/// A scenario, and the safeguard that is missing in it, if one is.
#[derive(Debug, Clone)]
pub struct Lab {
    pub scenario: Scenario,
    pub mutant: Option<Mutant>,
}

impl Lab {
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether nothing will happen any more unless something goes wrong or somebody comes.
    pub fn is_quiet(&self, world: &World) -> bool {
        let nobody = world.tasks.is_empty() && world.db.pending.is_empty();
        nobody && world.ready.is_empty() && {
            let mut open = world.db.journal.iter().filter(|row| row.open() && self.scenario.consumed).map(|row| row.tx);
            let looks = |tx: Tx| world.processes.iter().any(|one| sweeper::next(self, world, *one, tx).is_some());
            let passes = |tx: Tx| Clock::ALL.iter().any(|clock| chance::may_pass(self, world, tx, *clock).is_some());
            !open.any(|tx| looks(tx) || passes(tx)) && chance::silent(world).next().is_none()
        }
    }
}

impl Model for Lab {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut world = self.scenario.start.clone();
        world.sort();
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (index, task) in world.tasks.iter().enumerate() {
            // Tasks that are alike do alike.
            if index == 0 || world.tasks[index - 1] != *task {
                actions.extend(task.choices(self, world).map(|choice| Action::Step(index, choice)));
            }
        }
        chance::actions(self, world, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Step(index, choice) => tasks::step(self, &mut world, index, choice)?,
            Action::Look(instance, tx) => {
                let look = sweeper::next(self, &world, instance, tx)?;
                world.tasks.push(Task::Sweep(look));
            }
            other => chance::happen(self, &mut world, other)?,
        }
        world.sort();
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let reached = |lab: &Self, world: &World| {
            let effects = world.record.effects.iter().any(|effects| *effects > 0);
            let accepted = world.record.accepted.iter().any(|accepted| *accepted);
            lab.is_quiet(world) && if lab.scenario.consumed { effects } else { accepted }
        };
        let rules = Rule::ALL.iter().map(|rule| rule.property());
        rules.chain([Property::sometimes(REACHED, reached)]).collect()
    }
}

/// Whether the row stands as the broker's confirm left it.
pub fn awaits_redo(row: &Row) -> bool {
    row.state == JournalState::Published && row.mode == Mode::Own && row.published == Age::Fresh
}
