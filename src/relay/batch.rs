//! Messages that go to one broker together.

use super::publish::CONFIRM_BOUND;
use crate::broker::{Broker, Confirmed, OutMessage, PublishError};
use crate::store::Mark;
use crate::txn::faults::{Injected, Point, reach};

/// Where a message stood, its mark, and the broker's word on it.
pub(super) type Answered = ((usize, Mark), Result<Confirmed, PublishError>);

/// What goes to one broker, and which answer each message is waited for at.
pub(super) struct Batch<'a> {
    broker: &'a Broker,
    marks: Vec<(usize, Mark)>,
    out: Vec<OutMessage>,
}

impl<'a> Batch<'a> {
    pub(super) const fn of(broker: &'a Broker) -> Self {
        Self { broker, marks: Vec::new(), out: Vec::new() }
    }

    pub(super) fn push(&mut self, at: usize, mark: Mark, out: OutMessage) {
        self.marks.push((at, mark));
        self.out.push(out);
    }

    /// One answer for each, in the order in which they were pushed.
    pub(super) async fn send(self) -> Vec<Answered> {
        let mut answers = self.broker.publisher().publish_all(self.out, CONFIRM_BOUND).await;
        for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
            if let Err(injected) = points().await {
                *answer = Err(injected.into());
            }
        }
        self.marks.into_iter().zip(answers).collect()
    }
}

/// Where a test loses a confirm.
async fn points() -> Result<(), Injected> {
    reach(Point::IN5).await?;
    reach(Point::IN7).await
}
