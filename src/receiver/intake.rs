//! A session's deliveries as they come in, and how many are asked for in advance.

use std::sync::{Arc, Mutex, PoisonError};

use super::gather::Gathered;
use super::prefetch::Prefetch;
use super::share::Share;
use super::slot::Line;
use crate::broker::{ConsumerSession, Delivery, SessionEnd};

/// Bytes of bodies that one receiver holds unsettled, or one that is larger; twice what all together ask for. More come when a
/// queue's messages were small and are large all at once.
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
}

impl Intake {
    pub fn new(mut session: ConsumerSession, learnt: Arc<Mutex<Learnt>>, line: Arc<Line>) -> Self {
        session.hold_at_most(MOST);
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

    fn learn(&mut self, delivery: &Delivery) {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        let Learnt { prefetch, share } = &mut *learnt;
        prefetch.saw(delivery.bytes());
        if let Some(bytes) = self.session.overflow() {
            tracing::warn!(
                queue = self.session.queue(),
                bytes,
                "messages have become large: fewer are asked for at once"
            );
            prefetch.overflowed(bytes);
        } else if self.session.is_steady()
            && let Some(next) = prefetch.change(share.room())
        {
            tracing::debug!(queue = self.session.queue(), next, "deliveries in advance");
            self.session.consume_anew(u16::try_from(next).unwrap_or(u16::MAX), share.room());
        } else {
            return;
        }
        share.ask(prefetch.cost());
        self.line.follow(prefetch.now());
    }
}
