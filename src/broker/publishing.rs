//! What waits for the broker's words on messages that were handed over together, and tells them as they come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::outcome::{Confirmed, Doubt, NotSent, PublishError};

/// Most words that are told at once.
const MANY: usize = 256;

/// Settles whether a message is sent or withdrawn: whoever takes it first.
#[derive(Debug, Clone, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A message's place among those that were handed over with it, and the broker's word on it.
pub type Word = (usize, Result<Confirmed, PublishError>);

/// Messages that were handed over to be published.
#[derive(Debug)]
pub struct Publishing {
    told: mpsc::Receiver<Word>,
    jobs: Vec<Waiting>,
    /// What is known and was not yet told.
    known: Vec<Word>,
    deadline: Instant,
}

/// Those of a job whose word has not come.
#[derive(Debug)]
struct Waiting {
    claim: Claim,
    places: BTreeSet<usize>,
}

impl Publishing {
    /// Of so many messages. The sender has room for one word on each.
    pub(super) fn of(messages: usize, deadline: Instant) -> (mpsc::Sender<Word>, Self) {
        let (tell, told) = mpsc::channel(messages.max(1));
        (tell, Self { told, jobs: Vec::new(), known: Vec::new(), deadline })
    }

    /// The words on these come from a lane, once it has claimed them.
    pub(super) fn wait_for(&mut self, claim: Claim, places: BTreeSet<usize>) {
        self.jobs.push(Waiting { claim, places });
    }

    /// These are not handed over.
    pub(super) fn not_sent(&mut self, places: impl IntoIterator<Item = usize>, reason: &NotSent) {
        let error = PublishError::NotSent(reason.clone());
        self.known.extend(places.into_iter().map(|at| (at, Err(error.clone()))));
    }

    /// Waits until something is known of some of them, and tells it: of each message once. Empty: of all it was told.
    pub async fn some(&mut self) -> Vec<Word> {
        let mut words = std::mem::take(&mut self.known);
        if !words.is_empty() || self.jobs.is_empty() {
            return words;
        }
        match tokio::time::timeout_at(self.deadline, self.told.recv_many(&mut words, MANY)).await {
            Ok(1..) => self.heard(&words),
            Ok(0) => self.end(&mut words, &NotSent::Closed, Doubt::Lost),
            Err(_elapsed) => self.end(&mut words, &NotSent::Expired, Doubt::NoConfirm),
        }
        words
    }

    /// All that will ever be known, in the order of the messages.
    pub async fn all(mut self) -> Vec<Result<Confirmed, PublishError>> {
        let mut all = BTreeMap::new();
        loop {
            let some = self.some().await;
            if some.is_empty() {
                return all.into_values().collect();
            }
            all.extend(some);
        }
    }

    fn heard(&mut self, words: &[Word]) {
        for job in &mut self.jobs {
            for (at, _) in words {
                job.places.remove(at);
            }
        }
        self.jobs.retain(|job| !job.places.is_empty());
    }

    /// No word will come any more, or none that is waited for.
    fn end(&mut self, words: &mut Vec<Word>, unsent: &NotSent, doubt: Doubt) {
        for job in self.jobs.drain(..) {
            let error = if job.claim.take() {
                PublishError::NotSent(unsent.clone())
            } else {
                PublishError::Unknown(doubt.clone())
            };
            words.extend(job.places.into_iter().map(|at| (at, Err(error.clone()))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn unknown(at: usize, doubt: Doubt) -> Word {
        (at, Err(PublishError::Unknown(doubt)))
    }

    fn unsent(at: usize, reason: NotSent) -> Word {
        (at, Err(PublishError::NotSent(reason)))
    }

    /// Of five messages two wait for a lane that has claimed them, two for one that has not, and one is known.
    fn five() -> (mpsc::Sender<Word>, Publishing) {
        let (tell, mut publishing) = Publishing::of(5, Instant::now() + Duration::from_millis(20));
        let (claimed, free) = (Claim::default(), Claim::default());
        assert!(claimed.take());
        publishing.wait_for(claimed, BTreeSet::from([0, 3]));
        publishing.wait_for(free, BTreeSet::from([1, 4]));
        publishing.not_sent([2], &NotSent::Full);
        (tell, publishing)
    }

    #[tokio::test]
    async fn each_message_is_told_once_and_as_soon_as_it_is_known() {
        let (tell, mut publishing) = five();
        assert_eq!(publishing.some().await, [unsent(2, NotSent::Full)]);
        tell.send(unknown(3, Doubt::Lost)).await.unwrap();
        assert_eq!(publishing.some().await, [unknown(3, Doubt::Lost)]);
        for at in [4, 0, 1] {
            tell.send((at, Err(PublishError::Nacked))).await.unwrap();
        }
        assert_eq!(publishing.some().await, [4, 0, 1].map(|at| (at, Err(PublishError::Nacked))));
        assert_eq!(publishing.some().await, []);
    }

    #[tokio::test]
    async fn what_no_word_came_on_in_time_is_withdrawn_or_unknown() {
        let (_tell, publishing) = five();
        let (known, withdrawn) = (unsent(2, NotSent::Full), |at| unsent(at, NotSent::Expired).1);
        let open = || unknown(0, Doubt::NoConfirm).1;
        assert_eq!(publishing.all().await, [open(), withdrawn(1), known.1, open(), withdrawn(4)]);
    }

    #[tokio::test]
    async fn what_no_lane_will_tell_of_was_not_sent_or_is_lost() {
        let (tell, publishing) = five();
        tell.send((3, Err(PublishError::Nacked))).await.unwrap();
        drop(tell);
        let closed = |at| unsent(at, NotSent::Closed).1;
        let nacked = Err(PublishError::Nacked);
        let wanted = [unknown(0, Doubt::Lost).1, closed(1), unsent(2, NotSent::Full).1, nacked, closed(4)];
        assert_eq!(publishing.all().await, wanted);
    }
}
