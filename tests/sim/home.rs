//! The home's ports, over the world: transactions of attempts, and the decision log.

use async_trait::async_trait;
use posthaste::model::{Incarnation, TxId};
use posthaste::txn::Gtrid;
use posthaste::txn::ports::{Decided, Decision, DecisionLog, HomeTransaction};
use posthaste::txn::protocol::Outcome;
use posthaste::txn::recovery::Owner;

use crate::ports::{Node, Way};
use crate::world::{Planted, World};

/// The home's transaction of one attempt, with the locks of its rows.
pub struct FakeHome {
    pub node: Node,
    pub session: u64,
    pub rows: Vec<usize>,
}

impl Drop for FakeHome {
    /// The process is gone, or has ended it; what was sent last may still be done.
    fn drop(&mut self) {
        let mut world = self.node.world();
        if world.sent.contains_key(&self.session) && world.dice(2) == 0 {
            world.commit_home(self.session);
        }
        world.roll_back_home(self.session);
    }
}

impl FakeHome {
    async fn send_commit(&mut self, decision: Option<Decision>) -> Decided<String> {
        self.node.pass().await;
        let session = self.session;
        if !self.node.world().rows.iter().any(|row| row.lock == Some(session)) {
            return Decided::Unknown("the session was ended".to_owned());
        }
        self.node.world().sent.insert(session, (self.rows.clone(), decision));
        match self.node.way() {
            Way::Well => {}
            Way::Refused => {
                self.node.world().roll_back_home(session);
                return Decided::No("refused".to_owned());
            }
            Way::LostBefore => {
                self.node.world().roll_back_home(session);
                return Decided::Unknown("lost".to_owned());
            }
            Way::LostAfter => {
                self.node.world().commit_home(session);
                self.node.pass().await;
                return Decided::Unknown("lost".to_owned());
            }
            Way::Late => {
                // The server goes on by itself, whatever becomes of this side.
                let own = self.node.world().session();
                move_session(&mut self.node.world(), session, own);
                self.node.later(move |world| {
                    world.commit_home(own);
                });
                return Decided::Unknown("late".to_owned());
            }
        }
        let done = self.node.world().commit_home(session);
        self.node.pass().await;
        if done { Decided::Yes } else { Decided::Unknown("the session was ended".to_owned()) }
    }
}

fn move_session(world: &mut World, from: u64, to: u64) {
    if let Some(sent) = world.sent.remove(&from) {
        world.sent.insert(to, sent);
    }
    for (_, holder) in world.pending.values_mut().filter(|(_, holder)| *holder == from) {
        *holder = to;
    }
    for row in &mut world.rows {
        if row.lock == Some(from) {
            row.lock = Some(to);
        }
    }
}

#[async_trait]
impl HomeTransaction for FakeHome {
    type Error = String;

    async fn commit(&mut self) -> Decided<String> {
        self.send_commit(None).await
    }

    async fn decide(&mut self, decision: &Decision) -> Decided<String> {
        self.node.pass().await;
        {
            let mut world = self.node.world();
            let live = world.instances.get(&decision.incarnation) == Some(&true)
                || world.planted == Some(Planted::DecisionIgnoresFence);
            let taken = world.decisions.contains_key(&decision.gtrid);
            let held = world.rows.iter().any(|row| row.lock == Some(self.session));
            if !live || taken || !held || world.home_down {
                world.roll_back_home(self.session);
                return Decided::No("fenced, overtaken or ended".to_owned());
            }
            world.pending.insert(decision.gtrid, (decision.incarnation, self.session));
        }
        self.send_commit(Some(decision.clone())).await
    }

    async fn roll_back(&mut self) {
        self.node.pass().await;
        self.node.world().roll_back_home(self.session);
    }
}

#[async_trait]
impl DecisionLog for Node {
    type Error = String;

    async fn abort_unless_decided(
        &self,
        gtrid: Gtrid,
        incarnation: Incarnation,
        tx_id: TxId,
    ) -> Result<Outcome, String> {
        self.pass().await;
        self.home_answers()?;
        let (others, branches) = (Vec::new(), Vec::new());
        let decision = Decision { gtrid, incarnation, outcome: Outcome::Abort, tx_id, others, branches };
        let written = {
            let mut world = self.world();
            let live = world.instances.get(&incarnation) == Some(&true);
            if !live && world.planted != Some(Planted::FencedAsksTheLog) {
                return Err("fenced".to_owned());
            }
            world.tombstone(decision)
        };
        self.pass().await;
        self.home_answers()?;
        written.ok_or_else(|| "the key is held".to_owned())
    }

    async fn owners(&self, incarnations: &[Incarnation]) -> Result<Vec<(Incarnation, Option<Owner>)>, String> {
        self.pass().await;
        self.home_answers()?;
        let world = self.world();
        let owner =
            |one: &Incarnation| world.instances.get(one).map(|live| if *live { Owner::Live } else { Owner::Fenced });
        Ok(incarnations.iter().map(|one| (*one, owner(one))).collect())
    }

    async fn enter_fenced(&self, incarnations: &[Incarnation]) -> Result<(), String> {
        self.pass().await;
        self.home_answers()?;
        for one in incarnations {
            self.world().instances.entry(*one).or_insert(false);
        }
        Ok(())
    }

    async fn outcomes(&self, gtrids: &[Gtrid]) -> Result<Vec<(Gtrid, Outcome)>, String> {
        self.pass().await;
        self.home_answers()?;
        let world = self.world();
        let outcome = |gtrid: &Gtrid| Some((*gtrid, world.decisions.get(gtrid)?.outcome));
        Ok(gtrids.iter().filter_map(outcome).collect())
    }

    async fn committed(&self) -> Result<Vec<Decision>, String> {
        self.pass().await;
        self.home_answers()?;
        let world = self.world();
        Ok(world.decisions.values().filter(|one| one.outcome == Outcome::Commit).cloned().collect())
    }

    async fn forget(&self, gtrids: &[Gtrid]) -> Result<(), String> {
        self.pass().await;
        self.home_answers()?;
        for gtrid in gtrids {
            self.world().decisions.remove(gtrid);
        }
        Ok(())
    }
}
