//! A process over the world, and the ports of the other databases: every call takes its time, and may fail, be lost or be
//! late.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use posthaste::model::{HomeId, Incarnation};
use posthaste::txn::Gid;
use posthaste::txn::ports::{Database, DecidedBranch, Finished, InDoubt, Mark, Participant, Prepared};
use posthaste::txn::protocol::Outcome;
use tokio::sync::watch;

use crate::world::{Planted, World};

pub type Shared = Arc<Mutex<World>>;

/// One process: its calls stop while it is frozen, its sessions do not.
#[derive(Clone)]
pub struct Node {
    pub world: Shared,
    pub incarnation: Incarnation,
    pub frozen: watch::Receiver<bool>,
    /// Out of this many calls one goes wrong; 0: none does.
    pub trouble: Arc<Mutex<u64>>,
}

/// How a call goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Well,
    Refused,
    /// The connection is lost before the server has it.
    LostBefore,
    /// The server does it, and the answer is lost.
    LostAfter,
    /// The answer is lost first, and the server does it later.
    Late,
}

const T_FENCE: u64 = 20;
const STEP: Duration = Duration::from_millis(100);

impl Node {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Time passes; a frozen process does not go on.
    pub async fn pass(&self) {
        let pause = self.world().dice(30);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let mut frozen = self.frozen.clone();
        while *frozen.borrow() {
            if frozen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub fn way(&self) -> Way {
        let trouble = *self.trouble.lock().unwrap();
        let mut world = self.world();
        if trouble == 0 || world.dice(trouble) != 0 {
            return Way::Well;
        }
        [Way::Refused, Way::LostBefore, Way::LostAfter, Way::Late][usize::try_from(world.dice(4)).unwrap()]
    }

    pub fn later(&self, effect: impl FnOnce(&mut World) + Send + 'static) {
        let pause = self.world().dice(9000);
        let world = self.world.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            effect(&mut world.lock().unwrap());
        });
    }

    pub fn home_answers(&self) -> Result<(), String> {
        if self.world().home_down { Err("home down".to_owned()) } else { Ok(()) }
    }

    /// As the store's fence does it: waits for decisions on their way, then ends their sessions.
    pub async fn fence(&self, other: Incarnation) {
        let in_flight = |world: &World| -> Vec<u64> {
            world.pending.values().filter(|(whose, _)| *whose == other).map(|(_, session)| *session).collect()
        };
        for _step in 0..T_FENCE {
            self.pass().await;
            {
                let mut world = self.world();
                if world.home_down {
                    return;
                }
                if in_flight(&world).is_empty() || world.planted == Some(Planted::FenceDoesNotWait) {
                    world.note(format!("home: {other} is FENCED"));
                    world.instances.insert(other, false);
                    return;
                }
            }
            tokio::time::sleep(STEP).await;
        }
        let mut world = self.world();
        for session in in_flight(&world) {
            // A COMMIT that was sent may be through before its session is ended.
            if world.dice(2) == 0 {
                world.commit_home(session);
            }
            world.roll_back_home(session);
        }
        world.note(format!("home: {other} is FENCED, its sessions ended"));
        world.instances.insert(other, false);
    }
}

/// One branch. `writes`: it has something to commit.
pub struct FakeBranch {
    pub node: Node,
    pub at: usize,
    /// Those that write here.
    pub rows: Vec<usize>,
    pub place: String,
    /// A PREPARE that the server may still do.
    pub late: Option<tokio::task::JoinHandle<()>>,
    pub asked: bool,
}

impl FakeBranch {
    fn reached(&self) -> Result<(), String> {
        if self.node.world().participants[self.at].down { Err("down".to_owned()) } else { Ok(()) }
    }
}

#[async_trait]
impl Participant for FakeBranch {
    type Error = String;

    fn place(&self) -> &str {
        &self.place
    }

    async fn wrote(&mut self) -> Result<Option<Mark>, String> {
        self.node.pass().await;
        self.reached()?;
        match self.node.way() {
            Way::Well | Way::Late => Ok((!self.rows.is_empty()).then_some(Mark { xid: 0, timeline: 1 })),
            Way::Refused | Way::LostBefore | Way::LostAfter => Err("broken".to_owned()),
        }
    }

    async fn end(&mut self) {
        self.node.pass().await;
    }

    async fn roll_back(&mut self) {
        self.node.pass().await;
    }

    async fn prepare(&mut self, gid: &Gid) -> Prepared<String> {
        self.node.pass().await;
        if let Err(reason) = self.reached() {
            return Prepared::Unknown(reason);
        }
        let way = self.node.way();
        let (at, rows, gid) = (self.at, self.rows.clone(), *gid);
        match way {
            Way::Well | Way::LostAfter => self.node.world().prepare(at, gid, rows),
            Way::Refused => self.node.world().rolled_back(&gid),
            Way::LostBefore => {}
            Way::Late => {
                let pause = Duration::from_millis(self.node.world().dice(9000));
                let world = self.node.world.clone();
                self.late = Some(tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    world.lock().unwrap().prepare(at, gid, rows);
                }));
            }
        }
        self.node.pass().await;
        match way {
            Way::Well => Prepared::Yes,
            Way::Refused => Prepared::Refused("refused".to_owned()),
            Way::LostBefore | Way::LostAfter | Way::Late => Prepared::Unknown("lost".to_owned()),
        }
    }

    async fn finish(&mut self, gid: &Gid, outcome: Outcome) -> Finished {
        self.node.pass().await;
        if let Err(reason) = self.reached() {
            return Finished::NotYet(reason);
        }
        // The old session is ended first: what it was told is done by now, or never.
        if let Some(late) = self.late.take() {
            late.abort();
        }
        let first = !std::mem::replace(&mut self.asked, true) && outcome == Outcome::Commit;
        let way = self.node.way();
        if matches!(way, Way::Refused | Way::LostBefore) {
            return Finished::NotYet("lost".to_owned());
        }
        let known = self.node.world().finish(self.at, gid, outcome);
        self.node.pass().await;
        match (way, known) {
            (Way::Well, true) => Finished::Done,
            (Way::Well, false) => Finished::Missing { first },
            _ => Finished::NotYet("lost".to_owned()),
        }
    }
}

/// A database as the janitor sees it.
pub struct FakeDatabase {
    pub node: Node,
    pub at: usize,
    pub name: String,
}

#[async_trait]
impl Database for FakeDatabase {
    type Error = String;

    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> Option<&str> {
        Some(&self.name)
    }

    async fn in_doubt(&self, home: HomeId) -> Result<Vec<InDoubt>, String> {
        self.node.pass().await;
        let world = self.node.world();
        let participant = &world.participants[self.at];
        if participant.down {
            return Err("down".to_owned());
        }
        let ours = participant.prepared.keys().filter(|gid| gid.home == home);
        Ok(ours.map(|gid| InDoubt { gid: *gid, age: Duration::ZERO }).collect())
    }

    async fn has_committed(&self, branch: &DecidedBranch) -> Result<bool, String> {
        self.node.pass().await;
        let world = self.node.world();
        if world.participants[self.at].down {
            return Err("down".to_owned());
        }
        Ok(world.seen.get(&branch.gid.gtrid).is_some_and(|seen| seen.committed.has(branch.gid.branch)))
    }

    async fn finish(&self, gid: &Gid, outcome: Outcome) -> Finished {
        self.node.pass().await;
        let mut world = self.node.world();
        if world.participants[self.at].down {
            return Finished::NotYet("down".to_owned());
        }
        if world.finish(self.at, gid, outcome) { Finished::Done } else { Finished::Missing { first: false } }
    }
}
