//! Small worlds, each around one danger: how many databases and processes, and how much may go wrong.

use posthaste::txn::Branches;
use posthaste::txn::protocol::{Outcome, State};

use super::servers::{Entry, Home, Rows};
use super::world::{Budget, Lab, World};

/// One of them.
#[derive(Debug, Clone, Default)]
pub struct Scenario {
    pub name: &'static str,
    /// Databases beside the home; the work writes to all of them.
    pub branches: u8,
    /// Journal rows; the first attempt is at all of them.
    pub rows: u8,
    pub processes: u8,
    /// Rounds of recovery at a time.
    pub janitors: usize,
    pub left: Budget,
    /// The first incarnation has no row, is at work, and another has taken its place.
    pub absent: bool,
    pub from: From,
}

/// Where the first attempt stands at the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum From {
    #[default]
    Work,
    /// Its branches are prepared, its COMMIT was sent, and there is no answer.
    Unsure,
    /// Its COMMIT was answered; no branch has heard of it.
    Decided,
}

impl Scenario {
    pub fn wrote(&self) -> Branches {
        Branches::first(self.branches)
    }

    pub fn all_rows(&self) -> Rows {
        (1 << self.rows) - 1
    }

    /// The first process has taken the rows.
    pub fn start(&self, lab: &Lab) -> World {
        let Budget { crashes, zombies, losses, refusals, sign_offs, .. } = self.left;
        let mut attempts =
            crashes + zombies + losses + refusals + sign_offs + u8::from(self.absent || self.from != From::Work);
        // What failed together succeeds one by one.
        attempts += if attempts == 0 { 0 } else { self.rows - 1 };
        let left = Budget { attempts, ..self.left };
        let mut world = World { left, processes: (0..self.processes).collect(), ..World::default() };
        world.servers.entries = vec![Entry::Live; usize::from(self.processes)];
        if self.absent {
            world.servers.entries = vec![Entry::Absent, Entry::Live];
            world.processes = vec![1];
        }
        lab.begin(&mut world, 0, self.all_rows());
        if self.from != From::Work {
            self.wrote().iter().for_each(|branch| world.servers.prepare(0, branch));
            world.servers.at_mut(0).home = Home::Sent;
        }
        let left = self.wrote();
        world.coordinators[0].state = match self.from {
            From::Work => State::Working,
            From::Unsure => State::Unsure { branches: left },
            From::Decided => {
                world.servers.commit_home(0, left);
                State::Finishing { outcome: Outcome::Commit, left, hazard: false }
            }
        };
        world.tidy(self.all_rows());
        world
    }
}

/// How far the exploration goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Seconds: every build.
    Usual,
    /// Minutes: by hand.
    Deep,
}

pub fn named(name: &str) -> Scenario {
    let found = all(Depth::Usual).into_iter().find(|scenario| scenario.name == name);
    found.unwrap_or_else(|| panic!("no scenario {name}"))
}

pub fn all(depth: Depth) -> Vec<Scenario> {
    let more = u8::from(depth == Depth::Deep);
    let none = Budget::default();
    let usual = Scenario { branches: 2, rows: 1, processes: 1, janitors: 1, ..Scenario::default() };
    let of = |name, left| Scenario { name, left, ..usual.clone() };
    vec![
        // Nothing but the home wrote: one phase.
        Scenario {
            branches: 0,
            processes: 2,
            ..of("alone", Budget { losses: 1, crashes: 1, zombies: 1, refusals: more, ..none })
        },
        // Answers that are lost, before, during and after the decision.
        Scenario { branches: 1 + more, ..of("losses", Budget { losses: 2, ..none }) },
        of("loss", Budget { losses: 1, ..none }),
        // Work, PREPARE and COMMIT are refused.
        of("refusals", Budget { refusals: 1 + more, ..none }),
        Scenario { branches: 1 + more, ..of("refusal and loss", Budget { refusals: 1, losses: 1, ..none }) },
        // A process dies anywhere.
        of("crash", Budget { crashes: 1 + more, ..none }),
        Scenario { branches: 1 + more, ..of("crash and loss", Budget { crashes: 1, losses: 1, ..none }) },
        // A process is thought dead and goes on.
        of("zombie", Budget { zombies: 1, ..none }),
        Scenario { branches: 1, ..of("zombie and loss", Budget { zombies: 1, losses: 1, ..none }) },
        // The same, while its COMMIT is on its way and unanswered.
        Scenario { branches: 1, from: From::Unsure, ..of("unsure", Budget { zombies: 1, losses: more, ..none }) },
        // The decision stands; branches and databases answer or not, and its process may die.
        Scenario { from: From::Decided, ..of("decided", Budget { crashes: 1, losses: 1, ..none }) },
        // Several recover at a time, and one of them dies amid it.
        Scenario { branches: 1, processes: 2, janitors: 2, ..of("janitors", Budget { crashes: 1, ..none }) },
        Scenario {
            from: From::Decided,
            processes: 2,
            janitors: 2,
            ..of("janitors of a decision", Budget { crashes: 1, zombies: 1, ..none })
        },
        // It stops in good order, and something of it is still on its way.
        of("sign-off", Budget { sign_offs: 1, ..none }),
        // Its own row is not there.
        Scenario { absent: true, ..of("absent", none) },
        // Messages share an attempt: what befalls it befalls all of them, and then they are tried again, together or not.
        Scenario { branches: 1 + more, rows: 2, ..of("group and refusal", Budget { refusals: 1, ..none }) },
        Scenario { branches: 1, rows: 2 + more, ..of("group and crash", Budget { crashes: 1, ..none }) },
        Scenario { branches: 1, rows: 2, ..of("group and loss", Budget { losses: 1, ..none }) },
        Scenario { branches: 1, rows: 2, ..of("group and zombie", Budget { zombies: 1, ..none }) },
        Scenario { branches: 3, ..of("three databases", Budget { refusals: 1 - more, crashes: more, ..none }) },
    ]
}
