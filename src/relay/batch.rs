//! Messages that go to one broker together.

use futures_util::stream::{self, Stream};
use futures_util::{FutureExt, StreamExt};

use super::publish::CONFIRM_BOUND;
use crate::broker::{Broker, Confirmed, OutMessage, PublishError};
use crate::store::Mark;
use crate::txn::faults::{Injected, Point, reach};

/// Where a message stood, its mark, and the broker's word on it.
pub(super) type Answered = ((usize, Mark), Result<Confirmed, PublishError>);

/// What goes to one broker, each with the place that it had among all.
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

    /// What becomes known of them, bit by bit; of each message once.
    pub(super) fn send(self) -> impl Stream<Item = Vec<Answered>> {
        let Self { broker, marks, out } = self;
        let publishing = async move { broker.publisher().publish_all(out, CONFIRM_BOUND).await };
        let words = publishing.map(|publishing| {
            stream::unfold(publishing, async |mut publishing| {
                let some = publishing.some().await;
                (!some.is_empty()).then_some((some, publishing))
            })
        });
        words.flatten_stream().then(move |words| {
            let answered = words.into_iter().filter_map(|(at, answer)| Some((*marks.get(at)?, answer)));
            lose_some(answered.collect())
        })
    }
}

/// Where a test loses confirms.
async fn lose_some(mut answered: Vec<Answered>) -> Vec<Answered> {
    for (_, answer) in answered.iter_mut().filter(|(_, answer)| answer.is_ok()) {
        if let Err(injected) = points().await {
            *answer = Err(injected.into());
        }
    }
    answered
}

async fn points() -> Result<(), Injected> {
    reach(Point::IN5).await?;
    reach(Point::IN7).await
}
