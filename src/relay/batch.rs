//! Messages that go to one broker together.

use futures_util::stream::{self, Stream};
use futures_util::{FutureExt, StreamExt};

use super::publish::CONFIRM_BOUND;
use crate::broker::{Broker, Confirmed, OutMessage, PublishError};
use crate::model::Destination;
use crate::store::Mark;
use crate::txn::faults::{Injected, Point, reach};

/// A message that is published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    /// Its place among all.
    pub at: usize,
    pub mark: Mark,
    pub destination: &'a Destination,
    pub publishes: i32,
}

/// The broker's word on a message.
pub(super) type Answered<'a> = (Sent<'a>, Result<Confirmed, PublishError>);

/// What goes to one broker.
pub(super) struct Batch<'a> {
    broker: &'a Broker,
    /// Each alone, on a connection that is nobody else's.
    apart: bool,
    sent: Vec<Sent<'a>>,
    out: Vec<OutMessage>,
}

impl<'a> Batch<'a> {
    pub(super) const fn of(broker: &'a Broker, apart: bool) -> Self {
        Self { broker, apart, sent: Vec::new(), out: Vec::new() }
    }

    pub(super) fn push(&mut self, sent: Sent<'a>, out: OutMessage) {
        self.sent.push(sent);
        self.out.push(out);
    }

    /// What becomes known of them, bit by bit; of each message once.
    pub(super) fn send(self) -> impl Stream<Item = Vec<Answered<'a>>> {
        let Self { broker, apart, sent, out } = self;
        let publishing = async move {
            let publisher = broker.publisher();
            if apart {
                publisher.publish_apart(out, CONFIRM_BOUND).await
            } else {
                publisher.publish_all(out, CONFIRM_BOUND).await
            }
        };
        let words = publishing.map(|publishing| {
            stream::unfold(publishing, async |mut publishing| {
                let some = publishing.some().await;
                (!some.is_empty()).then_some((some, publishing))
            })
        });
        words.flatten_stream().then(move |words| {
            let answered = words.into_iter().filter_map(|(at, answer)| Some((*sent.get(at)?, answer)));
            lose_some(answered.collect())
        })
    }
}

/// Where a test loses confirms.
async fn lose_some(mut answered: Vec<Answered<'_>>) -> Vec<Answered<'_>> {
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
