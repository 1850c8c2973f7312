//! Journal rows, whose work writes to several databases, the processes that try them, alone or together, and everything that
//! may happen.

use posthaste::txn::Branches;
use posthaste::txn::protocol::Outcome;
use stateright::{Model, Property};

use super::coordinator::{self, Coordinator, Step};
use super::janitor::{self, Janitor, Way};
use super::mutants::Mutant;
use super::rules::{self, Rule};
use super::scenarios::{From, Scenario};
use super::servers::{Attempt, Attempted, Backend, Entry, Gtrid, Home, Instance, Rows, Servers};

/// How much may still go wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Processes that die.
    pub crashes: u8,
    /// Processes that are thought dead, and go on.
    pub zombies: u8,
    /// Answers that are lost, sessions that are cut, databases that cannot be asked.
    pub losses: u8,
    /// Work, PREPARE and COMMIT that are refused.
    pub refusals: u8,
    /// Graceful stops with somebody still at work.
    pub sign_offs: u8,
    /// Each of these may cost an attempt; one more succeeds.
    pub attempts: u8,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct World {
    pub servers: Servers,
    pub coordinators: Vec<Coordinator>,
    pub janitors: Vec<Janitor>,
    /// Decisions that coordinators have given up, in the memory of their process.
    pub forgotten: Vec<(Instance, Gtrid)>,
    /// The processes, by their present incarnation.
    pub processes: Vec<Instance>,
    pub left: Budget,
    /// A rule that a step itself has broken.
    pub broken: Option<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A process wants these rows, in one transaction.
    Begin(Instance, Rows),
    Step(Attempt, Step),
    /// A round begins.
    Round(Instance),
    Clean(Instance, Way),
    Server(Attempt, Server),
    /// A silent instance is fenced, once nothing shares its fence.
    Fence(Instance),
    /// What shares it for too long is ended.
    EndSessions(Instance),
    SignOff(Instance),
    Crash(Instance),
    Suspect(Instance),
    /// The row of an incarnation arrives late.
    Enter(Instance),
}

/// What servers do by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Server {
    Prepares(u8),
    RefusesPrepare(u8),
    /// The client is gone.
    EndsBranch(u8),
    Commits,
    RefusesCommit,
    EndsHome,
    /// The client is not gone.
    CutsHome,
}

impl Action {
    /// It happens by itself, and nothing goes wrong in it.
    pub fn is_ordinary(self) -> bool {
        match self {
            Self::Step(_, step) => step.is_ordinary(),
            Self::Clean(_, way) => way == Way::Well,
            Self::Server(_, server) => {
                !matches!(server, Server::RefusesPrepare(_) | Server::RefusesCommit | Server::CutsHome)
            }
            Self::Begin(..) | Self::Round(_) | Self::Fence(_) | Self::EndSessions(_) => true,
            Self::SignOff(_) | Self::Crash(_) | Self::Suspect(_) | Self::Enter(_) => false,
        }
    }
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

    /// The compare-and-set leaves out what is done already.
    pub fn begin(&self, world: &mut World, instance: Instance, wanted: Rows) {
        let attempt = u8::try_from(world.servers.attempts.len()).unwrap();
        let gtrid = if self.is(Mutant::GtridPerRow) { 0 } else { attempt };
        let open = wanted & !world.servers.done();
        let mut one = Attempted::new(instance, gtrid, open);
        if self.is(Mutant::WorksForWhatIsDone) {
            one.rows = wanted;
        }
        if self.is(Mutant::FirstAloneIsDone) {
            one.done = open & open.wrapping_neg();
        }
        one.saw_live = self.is(Mutant::FenceUnderRepeatableRead) && world.servers.is_live(instance);
        one.backends[..usize::from(self.scenario.branches)].fill(Backend::Open);
        world.servers.attempts.push(one);
        world.coordinators.push(Coordinator::new(attempt));
    }
}

impl Model for Lab {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.scenario.start(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let left = &world.left;
        for one in &world.coordinators {
            actions.extend(one.steps(world).into_iter().map(|step| Action::Step(one.attempt, step)));
        }
        for one in &world.janitors {
            actions.extend(one.ways(world).into_iter().map(|way| Action::Clean(one.instance, way)));
        }
        let (done, locked) = (world.servers.done(), world.servers.locked());
        let free = |rows: &Rows| *rows & !done != 0 && (*rows & locked == 0 || self.is(Mutant::NoRowLock));
        let wanted: Vec<Rows> = (1..=self.scenario.all_rows()).filter(free).collect();
        let commits = world.servers.decisions.iter().any(|one| one.outcome == Outcome::Commit);
        let rounds = world.janitors.len() < self.scenario.janitors && (commits || !world.servers.prepared.is_empty());
        for one in world.processes.iter().copied() {
            let begins = wanted.iter().filter(|_rows| left.attempts > 0);
            actions.extend(begins.map(|rows| Action::Begin(one, *rows)));
            let busy = world.janitors.iter().any(|janitor| janitor.instance == one);
            actions.extend((rounds && !busy).then_some(Action::Round(one)));
            let has_work = world.has_work(one);
            actions.extend((left.crashes > 0 && has_work).then_some(Action::Crash(one)));
            actions.extend((left.zombies > 0 && has_work).then_some(Action::Suspect(one)));
            actions.extend((left.sign_offs > 0 && has_work).then_some(Action::SignOff(one)));
        }
        for one in world.silent() {
            actions.extend([Action::Fence(one), Action::EndSessions(one)]);
        }
        for (instance, entry) in (0..).zip(&world.servers.entries) {
            actions.extend((*entry == Entry::Absent).then_some(Action::Enter(instance)));
        }
        for attempt in world.servers.numbers() {
            actions.extend(world.server_actions(attempt).into_iter().map(|server| Action::Server(attempt, server)));
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Begin(instance, wanted) => {
                world.left.attempts -= 1;
                self.begin(&mut world, instance, wanted);
            }
            Action::Step(attempt, step) => {
                let me = *world.coordinators.iter().find(|one| one.attempt == attempt)?;
                coordinator::step(self, &mut world, me, step)?;
            }
            // Its first statement with it.
            Action::Round(instance) => janitor::step(self, &mut world, Janitor::new(self, instance), Way::Well)?,
            Action::Clean(instance, way) => {
                let me = world.janitors.iter().find(|one| one.instance == instance)?.clone();
                janitor::step(self, &mut world, me, way)?;
            }
            Action::Server(attempt, server) => world.serve(self, attempt, server)?,
            Action::Fence(instance) => {
                if world.servers.fence_is_shared(instance) && !self.is(Mutant::FenceDoesNotWait) {
                    return None;
                }
                world.servers.entries[usize::from(instance)] = Entry::Fenced;
            }
            Action::EndSessions(instance) => {
                if !world.servers.fence_is_shared(instance) {
                    return None;
                }
                let its = |attempt: &Attempt| world.servers.at(*attempt).instance == instance;
                let open = |attempt: &Attempt| world.servers.at(*attempt).home.is_open();
                let ended: Vec<Attempt> = world.servers.numbers().filter(its).filter(open).collect();
                ended.into_iter().for_each(|attempt| world.servers.end_home(attempt));
            }
            Action::SignOff(instance) => {
                if world.servers.fence_is_shared(instance) && !self.is(Mutant::SignsOffWithoutLock) {
                    return None;
                }
                world.left.sign_offs -= 1;
                world.servers.entries[usize::from(instance)] = Entry::Fenced;
                world.restart(instance);
            }
            Action::Crash(instance) => {
                world.left.crashes -= 1;
                world.die(instance);
                world.restart(instance);
            }
            Action::Suspect(instance) => {
                world.left.zombies -= 1;
                world.restart(instance);
            }
            Action::Enter(instance) => world.servers.entries[usize::from(instance)] = Entry::Live,
        }
        world.tidy(self.scenario.all_rows());
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let reached = |lab: &Self, world: &World| rules::is_over(lab, world) && rules::is_done_once(lab, world);
        let recovered = |lab: &Self, world: &World| {
            let retried = world.servers.attempts.len() > 1 || lab.scenario.from == From::Decided;
            retried && rules::is_over(lab, world)
        };
        let rules = Rule::ALL.iter().map(|rule| rule.property());
        let ends = [
            Property::sometimes("the rows are done", reached),
            Property::sometimes("the rows are done by a retry", recovered),
        ];
        rules.chain(ends).collect()
    }
}

impl World {
    fn has_work(&self, instance: Instance) -> bool {
        let coordinates = self.coordinators.iter().any(|one| self.servers.at(one.attempt).instance == instance);
        coordinates || self.janitors.iter().any(|one| one.instance == instance)
    }

    /// LIVE in the database, and not known to be at work.
    pub fn silent(&self) -> impl Iterator<Item = Instance> {
        let live = (0..).zip(&self.servers.entries).filter(|(_, entry)| **entry == Entry::Live);
        live.map(|(instance, _)| instance).filter(|instance| !self.processes.contains(instance))
    }

    /// Leaves out what no decision and no rule depends on any more: states that differ in nothing else are one.
    pub fn tidy(&mut self, all: Rows) {
        for attempt in self.servers.numbers() {
            let prepared = self.servers.prepared.iter().any(|(_, whose)| *whose == attempt);
            let client = self.coordinators.iter().any(|one| one.attempt == attempt);
            let one = self.servers.at_mut(attempt);
            if !client {
                one.backends.iter_mut().filter(|one| !one.is_open()).for_each(|one| *one = Backend::Gone);
            }
            if !client && !prepared && one.is_dead() {
                *one = Attempted { home: Home::Gone, ..Attempted::new(0, one.gtrid, 0) };
            }
        }
        if self.servers.done() == all {
            self.left.attempts = 0;
        }
        self.janitors.sort_unstable();
    }

    fn die(&mut self, instance: Instance) {
        let servers = &self.servers;
        self.coordinators.retain(|one| servers.at(one.attempt).instance != instance);
        self.janitors.retain(|one| one.instance != instance);
        self.forgotten.retain(|(one, _)| *one != instance);
    }

    /// A new incarnation takes the place of one that is gone, or is thought to be.
    fn restart(&mut self, instance: Instance) {
        let fresh = u8::try_from(self.servers.entries.len()).unwrap();
        self.servers.entries.push(Entry::Live);
        self.processes.iter_mut().filter(|one| **one == instance).for_each(|one| *one = fresh);
    }

    fn server_actions(&self, attempt: Attempt) -> Vec<Server> {
        let one = self.servers.at(attempt);
        let client = self.coordinators.iter().find(|client| client.attempt == attempt);
        let mut servers = Vec::new();
        for (branch, backend) in (0..).zip(one.backends) {
            let sent = backend == Backend::Sent;
            servers.extend(sent.then_some(Server::Prepares(branch)));
            servers.extend((sent && self.left.refusals > 0).then_some(Server::RefusesPrepare(branch)));
            let alone = backend.is_open() && !client.is_some_and(|client| client.holds_branch(branch));
            servers.extend(alone.then_some(Server::EndsBranch(branch)));
        }
        let sent = one.home == Home::Sent;
        servers.extend(sent.then_some(Server::Commits));
        servers.extend((sent && self.left.refusals > 0).then_some(Server::RefusesCommit));
        if one.home.is_open() {
            match client.is_some_and(|client| client.holds_home()) {
                false => servers.push(Server::EndsHome),
                true => servers.extend((self.left.losses > 0).then_some(Server::CutsHome)),
            }
        }
        servers
    }

    fn serve(&mut self, lab: &Lab, attempt: Attempt, server: Server) -> Option<()> {
        match server {
            Server::Prepares(branch) => self.servers.prepare(attempt, branch),
            Server::RefusesPrepare(branch) => {
                self.left.refusals -= 1;
                self.servers.end_branch(attempt, branch, Backend::Refused);
            }
            Server::EndsBranch(branch) => self.servers.end_branch(attempt, branch, Backend::Gone),
            Server::Commits => {
                let late = lab.is(Mutant::DecisionAfterCommit);
                self.servers.commit_home(attempt, if late { Branches::NONE } else { lab.scenario.wrote() });
            }
            Server::RefusesCommit => {
                self.left.refusals -= 1;
                self.servers.at_mut(attempt).home = Home::Refused;
            }
            Server::EndsHome => self.servers.end_home(attempt),
            Server::CutsHome => {
                self.left.losses -= 1;
                self.servers.end_home(attempt);
            }
        }
        Some(())
    }
}
