//! A session's deliveries as they come in, and how many are asked for in advance.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;

use super::gather::Gathered;
use super::prefetch::Prefetch;
use super::share::Share;
use super::slot::Line;
use crate::broker::{ConsumerSession, Delivery, SessionEnd};

/// Bytes of bodies that all receivers hold unsettled together, and each one message in any case; twice what they ask for. More come
/// when a queue's messages were small and are large all at once.
const MOST: usize = 64 << 20;

/// What a receiver keeps from one session to the next.
pub struct Learnt {
    pub prefetch: Prefetch,
    pub share: Share,
}

/// A session with what is learnt from it.
pub struct Intake {
    pub session: ConsumerSession,
    learnt: Arc<Mutex<Learnt>>,
    line: Arc<Line>,
}

impl Learnt {
    /// What is asked for in advance.
    pub fn now(learnt: &Mutex<Self>) -> u16 {
        let now = learnt.lock().unwrap_or_else(PoisonError::into_inner).prefetch.now();
        u16::try_from(now).unwrap_or(u16::MAX)
    }

    /// How large bodies are changes what the same number asks for.
    fn ask(&mut self) {
        let cost = self.prefetch.cost();
        self.share.ask(cost);
    }
}

impl Intake {
    pub fn new(mut session: ConsumerSession, learnt: Arc<Mutex<Learnt>>, line: Arc<Line>) -> Self {
        let held = learnt.lock().unwrap_or_else(PoisonError::into_inner).share.held();
        session.hold_at_most(MOST, held);
        Self { session, learnt, line }
    }

    /// The next delivery, or why there will be none. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Result<Delivery, SessionEnd> {
        let delivery = self.session.next().await?;
        self.learn(&delivery);
        Ok(delivery)
    }

    /// The next delivery if it is here already.
    pub fn waiting(&mut self) -> Option<Delivery> {
        let delivery = self.session.waiting()?;
        self.learn(&delivery);
        Some(delivery)
    }

    /// Takes in what is there, without waiting, so that what is too much is not kept.
    pub fn look(&mut self) {
        let _never_ends = self.session.take_in().now_or_never();
    }

    /// What the session has not told yet is known to the next one.
    pub async fn leave(&mut self) {
        self.session.cancel().await;
        if let Some(bytes) = self.session.overflow() {
            self.too_much(bytes);
        }
    }

    fn learn(&mut self, delivery: &Delivery) {
        self.learnt().prefetch.saw(delivery.bytes());
        if let Some(bytes) = self.session.overflow() {
            return self.too_much(bytes);
        }
        let (change, room) = {
            let mut learnt = self.learnt();
            let room = learnt.share.room();
            let change = if self.session.is_steady() { learnt.prefetch.change(room) } else { None };
            learnt.ask();
            (change, room)
        };
        if let Some(next) = change {
            tracing::debug!(queue = self.session.queue(), next, "deliveries in advance");
            self.session.consume_anew(u16::try_from(next).unwrap_or(u16::MAX), room);
            self.line.follow(next);
        }
    }

    fn too_much(&self, bytes: usize) {
        tracing::warn!(queue = self.session.queue(), bytes, "messages have become large: fewer are asked for at once");
        let mut learnt = self.learnt();
        learnt.prefetch.overflowed(bytes);
        learnt.ask();
        self.line.follow(learnt.prefetch.now());
    }

    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
