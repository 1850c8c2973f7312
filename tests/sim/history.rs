//! One history: two nodes process a few messages while the dice let things go wrong; then calm, and the judgement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use posthaste::model::{HomeId, Incarnation, TxId};
use posthaste::txn::Coordinators;
use posthaste::txn::driver::{Coordinator, NotCommitted, commit};
use posthaste::txn::janitor::Janitor;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::home::FakeHome;
use crate::ports::{FakeBranch, FakeDatabase, Node, Shared};
use crate::world::{Planted, World};

/// How often what happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cut {
    pub crashes: u64,
    pub freezes: u64,
    pub outages: u64,
    pub fenced: u64,
    pub retried: u64,
    pub unknown: u64,
    pub recovered_commits: u64,
    pub recovered_aborts: u64,
    pub tombstones: u64,
    /// Transactions of several messages that were committed, and that were not.
    pub shared: u64,
    pub shared_in_vain: u64,
}

impl Cut {
    pub const fn and(self, other: Self) -> Self {
        Self {
            crashes: self.crashes + other.crashes,
            freezes: self.freezes + other.freezes,
            outages: self.outages + other.outages,
            fenced: self.fenced + other.fenced,
            retried: self.retried + other.retried,
            unknown: self.unknown + other.unknown,
            recovered_commits: self.recovered_commits + other.recovered_commits,
            recovered_aborts: self.recovered_aborts + other.recovered_aborts,
            tombstones: self.tombstones + other.tombstones,
            shared: self.shared + other.shared,
            shared_in_vain: self.shared_in_vain + other.shared_in_vain,
        }
    }

    pub fn everything_happened(self) -> bool {
        let Self { crashes, freezes, outages, fenced, retried, unknown, .. } = self;
        let Self { recovered_commits, recovered_aborts, tombstones, shared, shared_in_vain, .. } = self;
        let recovered = [recovered_commits, recovered_aborts, tombstones];
        let counts = [crashes, freezes, outages, fenced, retried, unknown, shared, shared_in_vain];
        counts.iter().chain(&recovered).all(|count| *count > 0)
    }
}

/// Virtual time in which things go wrong, in milliseconds.
const ROUGH: u64 = 20_000;
/// Longest virtual time until all is settled.
const CALM: Duration = Duration::from_secs(300);
const LEASE: Duration = Duration::from_secs(5);

/// One of the two nodes, as long as it lives.
struct Process {
    node: Node,
    freeze: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// What all processes of a history share.
#[derive(Clone)]
struct Setting {
    world: Shared,
    home: HomeId,
    trouble: Arc<Mutex<u64>>,
    /// Per row the databases that its work writes to, and those that it only reads.
    wrote: BTreeMap<usize, BTreeSet<usize>>,
    participants: usize,
    cut: Arc<Mutex<Cut>>,
}

/// Plays one history to its end and judges it.
///
/// # Errors
/// What is wrong, and the story.
pub fn play(seed: u64, planted: Option<Planted>) -> Result<Cut, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut dice = fastrand::Rng::with_seed(seed.wrapping_add(1) << 8);
        let (rows, participants) = (dice.usize(3..10), dice.usize(1..4));
        let mut world = World::new(seed, rows, participants);
        world.planted = planted;
        // Of odd seeds each message has its own: what they found before there were groups stays found.
        world.shares = seed.is_multiple_of(2);
        world.note(format!("seed {seed}: {rows} messages, {participants} databases beside the home"));
        let wrote = (0..rows).map(|row| (row, (0..participants).filter(|_| dice.u8(0..4) > 0).collect())).collect();
        let setting = Setting {
            world: Arc::new(Mutex::new(world)),
            home: HomeId(uuid::Uuid::nil()),
            trouble: Arc::new(Mutex::new(dice.u64(4..40))),
            wrote,
            participants,
            cut: Arc::default(),
        };
        let mut processes = vec![setting.start(), setting.start()];
        setting.rough(&mut dice, &mut processes).await;
        setting.calm(&mut processes).await;
        let mut world = setting.world.lock().unwrap();
        world.judge(&setting.wrote);
        if let Some(wrong) = world.wrong.take() {
            return Err(wrong);
        }
        let mut cut = *setting.cut.lock().unwrap();
        cut.fenced = world.instances.values().filter(|live| !**live).count() as u64;
        cut.tombstones = world.decisions.len() as u64;
        Ok(cut)
    })
}

impl Setting {
    fn start(&self) -> Process {
        let (freeze, frozen) = watch::channel(false);
        let incarnation = Incarnation::mint();
        let node = Node { world: self.world.clone(), incarnation, frozen, trouble: self.trouble.clone() };
        self.world.lock().unwrap().instances.insert(incarnation, true);
        let coordinators = Coordinators::default();
        let work = tokio::spawn(work(self.clone(), node.clone(), coordinators.clone()));
        let janitor = tokio::spawn(clean(self.clone(), node.clone(), coordinators));
        Process { node, freeze, tasks: vec![work, janitor] }
    }

    fn count(&self, change: impl FnOnce(&mut Cut)) {
        change(&mut self.cut.lock().unwrap());
    }

    fn note(&self, what: String) {
        self.world.lock().unwrap().note(what);
    }

    async fn rough(&self, dice: &mut fastrand::Rng, processes: &mut [Process]) {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(ROUGH) {
            sleep(Duration::from_millis(dice.u64(20..1500))).await;
            let which = dice.usize(0..2);
            match dice.u8(0..6) {
                0 | 1 => {
                    self.count(|cut| cut.crashes += 1);
                    self.note(format!("{} crashes", processes[which].node.incarnation));
                    let dead = end(&mut processes[which]);
                    self.fence_later(dead, &processes[1 - which]);
                    sleep(Duration::from_millis(dice.u64(0..8000))).await;
                    processes[which] = self.start();
                }
                2 | 3 => self.freeze(dice, which, processes).await,
                4 => {
                    self.count(|cut| cut.outages += 1);
                    let at = dice.usize(0..self.participants);
                    self.world.lock().unwrap().participants[at].down = true;
                    sleep(Duration::from_millis(dice.u64(0..12_000))).await;
                    self.world.lock().unwrap().participants[at].down = false;
                }
                _ => {
                    self.count(|cut| cut.outages += 1);
                    self.world.lock().unwrap().home_down = true;
                    sleep(Duration::from_millis(dice.u64(0..12_000))).await;
                    self.world.lock().unwrap().home_down = false;
                }
            }
        }
    }

    async fn freeze(&self, dice: &mut fastrand::Rng, which: usize, processes: &mut [Process]) {
        self.count(|cut| cut.freezes += 1);
        let zombie = processes[which].node.incarnation;
        self.note(format!("{zombie} stands still"));
        processes[which].freeze.send_replace(true);
        let pause = Duration::from_millis(dice.u64(0..20_000));
        if pause > LEASE {
            self.fence_later(zombie, &processes[1 - which]);
        }
        sleep(pause).await;
        self.note(format!("{zombie} goes on"));
        processes[which].freeze.send_replace(false);
        sleep(Duration::from_millis(dice.u64(0..3000))).await;
        // By now its heart-beat has told it.
        if self.world.lock().unwrap().instances[&zombie] {
            return;
        }
        end(&mut processes[which]);
        processes[which] = self.start();
    }

    /// The other node sees no sign of life for a lease.
    fn fence_later(&self, dead: Incarnation, by: &Process) {
        let node = by.node.clone();
        let world = self.world.clone();
        tokio::spawn(async move {
            sleep(LEASE).await;
            while world.lock().unwrap().instances[&dead] {
                node.fence(dead).await;
                sleep(Duration::from_millis(500)).await;
            }
        });
    }

    async fn calm(&self, processes: &mut [Process]) {
        *self.trouble.lock().unwrap() = 0;
        self.note("calm".to_owned());
        let fresh = self.start();
        let begun = tokio::time::Instant::now();
        loop {
            let unfinished = self.world.lock().unwrap().unfinished();
            let Some(unfinished) = unfinished else { break };
            if begun.elapsed() > CALM {
                self.world.lock().unwrap().fail(unfinished);
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        // Whatever is still on its way has arrived.
        sleep(Duration::from_secs(20)).await;
        for process in processes {
            end(process);
        }
        let mut fresh = fresh;
        end(&mut fresh);
    }
}

/// The process is gone; its sessions find out by themselves.
fn end(process: &mut Process) -> Incarnation {
    for task in process.tasks.drain(..) {
        task.abort();
    }
    process.node.incarnation
}

/// Takes one message after the other, or several together.
async fn work(setting: Setting, node: Node, coordinators: Coordinators) {
    loop {
        node.pass().await;
        sleep(Duration::from_millis(100)).await;
        let Some(home) = claim(&node) else { continue };
        let rows = home.rows.clone();
        let branch = |at: usize| FakeBranch {
            node: node.clone(),
            at,
            rows: rows.iter().copied().filter(|row| setting.wrote[row].contains(&at)).collect(),
            place: format!("db{at}"),
            late: None,
            asked: false,
        };
        let branches = (0..setting.participants).map(branch).collect();
        let me = node.incarnation;
        let others: Vec<TxId> = (1..rows.len()).map(tx_id_of).collect();
        let coordinator = Coordinator {
            home: setting.home,
            incarnation: me,
            tx_id: tx_id_of(0),
            others: &others,
            coordinators: &coordinators,
        };
        match commit(coordinator, home, branches, &node).await {
            Ok(()) => setting.count(|cut| cut.shared += u64::from(!others.is_empty())),
            Err(NotCommitted::RolledBack(_)) => setting.count(|cut| {
                cut.retried += 1;
                cut.shared_in_vain += u64::from(!others.is_empty());
            }),
            Err(NotCommitted::Unknown(_)) => setting.count(|cut| cut.unknown += 1),
            Err(NotCommitted::Defect(reason)) => node.world().fail(reason),
        }
    }
}

fn tx_id_of(number: usize) -> TxId {
    TxId(uuid::Uuid::from_u128(number.try_into().unwrap()))
}

/// The compare-and-set on rows that nobody holds: on one, or on several together.
fn claim(node: &Node) -> Option<FakeHome> {
    let mut world = node.world();
    if world.home_down {
        return None;
    }
    let free = world.planted == Some(Planted::NoRowLock);
    let most = if world.shares { 1 + usize::try_from(world.dice(4)).unwrap() } else { 1 };
    let open = world.rows.iter().enumerate().filter(|(_, row)| row.done_by.is_empty() && (free || row.lock.is_none()));
    let rows: Vec<usize> = open.map(|(at, _)| at).take(most).collect();
    if rows.is_empty() {
        return None;
    }
    let session = world.session();
    for row in &rows {
        world.rows[*row].lock = Some(session);
    }
    Some(FakeHome { node: node.clone(), session, rows })
}

/// A round of recovery each second.
async fn clean(setting: Setting, node: Node, coordinators: Coordinators) {
    let janitor = Janitor { home: setting.home, incarnation: node.incarnation, coordinators };
    let databases: Vec<FakeDatabase> =
        (0..setting.participants).map(|at| FakeDatabase { node: node.clone(), at, name: format!("db{at}") }).collect();
    loop {
        if let Ok(round) = janitor.round(&databases, &node).await {
            setting.count(|cut| {
                cut.recovered_commits += u64::try_from(round.committed.len()).unwrap();
                cut.recovered_aborts += round.rolled_back;
            });
        }
        sleep(Duration::from_secs(1)).await;
    }
}
