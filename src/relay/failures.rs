//! What could not be published: the journal keeps it, and whoever comes next waits longer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Relay;
use crate::broker::{NotSent, PublishError};
use crate::store::{Mark, Unpublished};

/// First wait after a failed publish; doubles.
const SPACING: Duration = Duration::from_secs(1);
/// Notes under way that nobody waits for. Each takes a session of the home, which others need, too.
pub(super) const NOTES: usize = 2;

/// A publish without a confirm.
pub(super) type Unconfirmed = (Mark, PublishError);

impl Relay {
    /// Says what could not be published, and notes it in the journal.
    pub(super) async fn note(&self, failed: &[Unconfirmed]) {
        if failed.is_empty() {
            return;
        }
        self.say(failed);
        self.write_down(failed).await;
    }

    /// The same, in a task. With [`NOTES`] under way the journal is not told: each row's `publish_after` passes by itself.
    pub(super) fn note_later(&self, failed: Vec<Unconfirmed>) {
        if failed.is_empty() {
            return;
        }
        self.say(&failed);
        match self.0.notes.clone().try_acquire_owned() {
            Ok(permit) => {
                let relay = self.clone();
                self.tasks().spawn(async move {
                    relay.write_down(&failed).await;
                    drop(permit);
                });
            }
            Err(_busy) => tracing::debug!(messages = failed.len(), "not noted: others are being noted"),
        }
    }

    /// One line for all that the same trouble of a connection has kept back, and one for each that is told of alone.
    fn say(&self, failed: &[Unconfirmed]) {
        let mut together: BTreeMap<String, usize> = BTreeMap::new();
        for (mark, error) in failed {
            if of_the_connection(error) {
                *together.entry(error.to_string()).or_default() += 1;
                continue;
            }
            if matches!(error, PublishError::Returned { .. }) {
                self.unverify_all();
            }
            tracing::warn!(tx_id = %mark.tx_id, %error, "publish failed; the journal keeps the message");
        }
        for (error, messages) in together {
            tracing::warn!(messages, %error, "publish failed; the journal keeps the messages");
        }
    }

    async fn write_down(&self, failed: &[Unconfirmed]) {
        let rows: Vec<Unpublished> = failed.iter().map(|(mark, error)| row(mark, error)).collect();
        if let Err(error) = self.0.store.publish_failed(&rows, SPACING).await {
            tracing::debug!(%error, messages = rows.len(), "not noted; each row's publish_after passes by itself");
        }
        self.wake();
    }
}

/// Nothing was sent, and that says nothing of the message.
fn of_the_connection(error: &PublishError) -> bool {
    match error {
        PublishError::NotSent(reason) => match reason {
            NotSent::Down(_) | NotSent::Blocked(_) | NotSent::Full | NotSent::Expired | NotSent::Closed => true,
            NotSent::Unfit(_) => false,
        },
        PublishError::Returned { .. } | PublishError::Nacked | PublishError::Unknown(_) => false,
    }
}

/// What was sent, or will never fit, counts: the error store has it after ten tries.
fn row(mark: &Mark, error: &PublishError) -> Unpublished {
    Unpublished { tx_id: mark.tx_id, attempts: mark.attempts, counts: !of_the_connection(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Doubt;
    use crate::model::{Mode, TxId};

    #[test]
    fn only_what_says_something_of_the_message_counts() {
        let mark = Mark { tx_id: TxId::mint(), attempts: 3, mode: Mode::Own, published_at: 0 };
        for reason in [NotSent::Down("x".into()), NotSent::Blocked("x".into()), NotSent::Full, NotSent::Expired] {
            assert!(!row(&mark, &PublishError::NotSent(reason)).counts);
        }
        let returned = PublishError::Returned { reason: "NO_ROUTE".to_owned() };
        for error in [returned, PublishError::Nacked, PublishError::Unknown(Doubt::Lost)] {
            let row = row(&mark, &error);
            assert!(row.counts && row.attempts == 3, "{error}");
        }
    }
}
