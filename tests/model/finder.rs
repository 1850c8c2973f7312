//! How open rows are found (protocol §2, I9): statements that insert rows, statements that settle them, and a sweeper that
//! walks, each reading one snapshot and committing later; and a clock that jumps. Beside the product's finder those that
//! rest on a mark, which it does not have.

use stateright::{Model, Property};

use super::harness;

/// Rows 0 and 1 are inserted together, row 2 alone.
const GROUPS: [&[usize]; 2] = [&[0, 1], &[2]];
const ROWS: usize = 3;
/// A mark stays behind the clock by as much.
const LATE: i8 = 1;
/// The sweeper looks so often at most.
const LOOKS: u8 = 2;

harness::mutants! {
    /// A statement inserts rows and names none.
    InsertNamesNothing caught_by I9 in "entries",
    /// It names the first of them alone.
    InsertNamesTheFirst caught_by I9 in "entries",
    /// The rows are named by a transaction of its own, afterwards.
    NamedAfterwards caught_by I9 in "entries",
    /// An entry goes without a look at its rows.
    RemovedUnseen caught_by I9 in "entries",
    /// An entry goes when one of its rows is settled.
    RemovedForOne caught_by I9 in "entries",
    /// The journal is read by an earlier statement than the entries.
    JournalReadBefore caught_by I9 in "entries",
    /// A row leaves `due` while it is open.
    DueDropped caught_by I9 in "entries",
    /// A mark that follows the clock, and no guard.
    LateId caught_by I9 in "mark by the clock",
    /// A mark that follows the clock; ids that are late by the clock are refused, even at the last moment.
    ClockBack caught_by I9 in "mark by the clock",
    /// A mark that is announced, and moved when every transaction that had an id of its own then has ended.
    SnapshotBeforeXid caught_by I9 in "mark by transactions",
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    I9,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum State {
    #[default]
    Absent,
    Open,
    Settled,
}

/// A statement that inserts a group of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Insert {
    #[default]
    Idle,
    /// The ids are made, by the clock.
    Minted,
    /// It runs: it has read its snapshot. `late`: it has seen that its ids lie before the mark.
    Reading {
        late: bool,
    },
    /// It has an xid: whoever looks at running transactions sees it.
    Writing {
        late: bool,
    },
    Committed,
    /// Refused, or rolled back.
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct World {
    clock: i8,
    jumps: u8,
    ticks: u8,
    inserts: [Insert; 2],
    /// The time in their ids.
    ids: [i8; 2],
    rows: [State; ROWS],
    /// By group: which rows an entry names.
    named: [Vec<usize>; 2],
    due: [bool; ROWS],
    looks: u8,
    /// The journal as an earlier statement of the walk has read it.
    read: Option<[State; ROWS]>,
    /// Entries that the walk's statement will remove when it commits.
    removes: Vec<usize>,
    /// What is not after this is not walked.
    mark: i8,
    /// A mark that is announced, and who was writing then.
    announced: Option<(i8, [bool; 2])>,
    removed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Action {
    Tick,
    Jump(i8),
    Mint(usize),
    Begin(usize),
    Write(usize),
    Commit(usize),
    RollBack(usize),
    /// The entry that comes after its rows.
    Name(usize),
    /// A retry, a failed publish, a start, a look that says later.
    Postpone(usize),
    DropDue(usize),
    Settle(usize),
    ReadJournal,
    Look,
    Remove,
    Announce,
    MoveMark,
}

#[derive(Debug, Clone, Copy)]
struct Lab(Option<Mutant>);

impl Lab {
    fn is(&self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }

    fn by_clock(&self) -> bool {
        self.is(Mutant::LateId) || self.is(Mutant::ClockBack)
    }

    fn by_transactions(&self) -> bool {
        self.is(Mutant::SnapshotBeforeXid)
    }

    fn marks(&self) -> bool {
        self.by_clock() || self.by_transactions()
    }

    fn finds(&self, world: &World, row: usize) -> bool {
        let named = world.named[group_of(row)].contains(&row);
        world.due[row] || if self.marks() { world.ids[group_of(row)] > world.mark } else { named }
    }

    /// Which entries a look removes, and whether it may.
    fn removable(&self, journal: &[State; ROWS], world: &World, group: usize) -> bool {
        let named = &world.named[group];
        let done = |row: &usize| journal[*row] != State::Open || world.due[*row];
        !named.is_empty()
            && (self.is(Mutant::RemovedUnseen)
                || if self.is(Mutant::RemovedForOne) { named.iter().any(done) } else { named.iter().all(done) })
    }

    fn commit(&self, world: &mut World, group: usize, late: bool) {
        world.inserts[group] = Insert::Committed;
        for row in GROUPS[group] {
            world.rows[*row] = State::Open;
            world.due[*row] |= late;
        }
        if !(self.marks() || self.is(Mutant::InsertNamesNothing) || self.is(Mutant::NamedAfterwards)) {
            let named = if self.is(Mutant::InsertNamesTheFirst) { &GROUPS[group][..1] } else { GROUPS[group] };
            world.named[group] = named.to_vec();
        }
    }
}

fn group_of(row: usize) -> usize {
    usize::from(!GROUPS[0].contains(&row))
}

impl Model for Lab {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World { mark: -LATE, ..World::default() }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend([Action::Tick, Action::Jump(3), Action::Jump(-3), Action::ReadJournal, Action::Look]);
        actions.extend([Action::Remove, Action::Announce, Action::MoveMark]);
        for group in 0..world.inserts.len() {
            actions.extend([Action::Mint(group), Action::Begin(group), Action::Write(group), Action::Commit(group)]);
            actions.extend([Action::RollBack(group), Action::Name(group)]);
        }
        for row in 0..ROWS {
            actions.extend([Action::Postpone(row), Action::DropDue(row), Action::Settle(row)]);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Tick if world.ticks < 2 => (world.clock, world.ticks) = (world.clock + 1, world.ticks + 1),
            // Ahead once, and put right.
            Action::Jump(by) if (world.jumps == 0 && by > 0) || (world.jumps == 1 && by < 0) => {
                (world.clock, world.jumps) = (world.clock + by, world.jumps + 1);
            }
            Action::Mint(group) if world.inserts[group] == Insert::Idle => {
                (world.inserts[group], world.ids[group]) = (Insert::Minted, world.clock);
            }
            Action::Begin(group) if world.inserts[group] == Insert::Minted => {
                let id = world.ids[group];
                let late = self.by_transactions() && id <= world.announced.map_or(world.mark, |(mark, _)| mark);
                world.inserts[group] = Insert::Reading { late };
            }
            Action::Write(group) => match world.inserts[group] {
                Insert::Reading { late } => world.inserts[group] = Insert::Writing { late },
                _ => return None,
            },
            Action::Commit(group) => match world.inserts[group] {
                Insert::Writing { .. } if self.is(Mutant::ClockBack) && world.ids[group] < world.clock => {
                    world.inserts[group] = Insert::Ended;
                }
                Insert::Writing { late } => self.commit(&mut world, group, late),
                _ => return None,
            },
            Action::RollBack(group) if matches!(world.inserts[group], Insert::Writing { .. }) => {
                world.inserts[group] = Insert::Ended;
            }
            Action::Name(group)
                if self.is(Mutant::NamedAfterwards)
                    && world.inserts[group] == Insert::Committed
                    && world.named[group].is_empty() =>
            {
                world.named[group] = GROUPS[group].to_vec();
            }
            Action::Postpone(row) if world.rows[row] == State::Open && self.finds(&world, row) => world.due[row] = true,
            Action::DropDue(row) if world.due[row] => {
                if world.rows[row] != State::Settled && !self.is(Mutant::DueDropped) {
                    return None;
                }
                world.due[row] = false;
            }
            Action::Settle(row) if world.rows[row] == State::Open => {
                // The row in `due` goes now, or later: both are the product's.
                world.rows[row] = State::Settled;
            }
            Action::ReadJournal if self.is(Mutant::JournalReadBefore) && world.read.is_none() => {
                world.read = Some(world.rows);
            }
            Action::Look if world.removes.is_empty() && world.looks < LOOKS => {
                let journal = if self.is(Mutant::JournalReadBefore) { world.read.take()? } else { world.rows };
                world.looks += 1;
                world.removes = [0, 1].into_iter().filter(|group| self.removable(&journal, &world, *group)).collect();
                if self.by_clock() {
                    // It walks from the mark on: what is open there and not in `due` keeps the mark where it is.
                    let open = |row: &usize| world.rows[*row] == State::Open && !world.due[*row];
                    let oldest =
                        (0..ROWS).filter(open).map(|row| world.ids[group_of(row)]).filter(|id| *id > world.mark);
                    let mark = oldest.map(|id| id - 1).chain([world.clock - LATE]).min()?;
                    world.mark = world.mark.max(mark);
                }
            }
            Action::Remove if !world.removes.is_empty() => {
                for group in std::mem::take(&mut world.removes) {
                    world.named[group].clear();
                    world.removed = true;
                }
            }
            Action::Announce if self.by_transactions() && world.announced.is_none() && world.looks < LOOKS => {
                let writing = |group: usize| matches!(world.inserts[group], Insert::Writing { .. });
                world.looks += 1;
                world.announced = Some((world.clock, [writing(0), writing(1)]));
            }
            Action::MoveMark => {
                let (mark, writing) = world.announced?;
                let running = |group: usize| writing[group] && matches!(world.inserts[group], Insert::Writing { .. });
                if running(0) || running(1) {
                    return None;
                }
                let open = |row: &usize| world.rows[*row] == State::Open && !world.due[*row];
                let oldest = (0..ROWS).filter(open).map(|row| world.ids[group_of(row)] - 1);
                let mark = oldest.chain([mark]).min()?;
                (world.mark, world.announced) = (world.mark.max(mark), None);
            }
            Action::Tick | Action::Jump(_) | Action::Mint(_) | Action::Begin(_) | Action::RollBack(_) => return None,
            Action::Name(_) | Action::Postpone(_) | Action::DropDue(_) | Action::Settle(_) => return None,
            Action::ReadJournal | Action::Look | Action::Remove | Action::Announce => return None,
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            i9(),
            Property::sometimes("an entry goes while a row is open", |_, world: &World| {
                world.removed && world.rows.contains(&State::Open)
            }),
            Property::sometimes("all is settled and nothing is left", |lab: &Self, world: &World| {
                let left = world.named.iter().any(|named| !named.is_empty()) || world.due.contains(&true);
                lab.0.is_none() && world.rows == [State::Settled; ROWS] && !left
            }),
        ]
    }
}

fn i9() -> Property<Lab> {
    Property::always("every open row is found", |lab: &Lab, world: &World| {
        (0..ROWS).all(|row| world.rows[row] != State::Open || lab.finds(world, row))
    })
}

#[test]
fn every_open_row_is_found_whatever_clocks_do() {
    harness::explore("finder", Lab(None));
}

#[test]
fn every_mutant_of_the_finder_is_caught() {
    let missed: Vec<String> = ALL
        .iter()
        .filter_map(|(mutant, rule, _)| match rule {
            Rule::I9 => harness::caught(mutant, Lab(Some(*mutant)), i9()).err(),
        })
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
