//! What could not be published: the journal keeps it, and whoever comes next waits longer. Only what is about the message
//! itself counts against it (ADR 19).

use std::collections::BTreeMap;
use std::time::Duration;

use super::Relay;
use super::act::to_error_store;
use super::batch::Sent;
use super::decide::MAX_PUBLISHES;
use crate::broker::{Doubt, NotSent, PublishError};
use crate::model::{Destination, TxId};
use crate::store::Unpublished;

/// First wait after a failed publish.
const SPACING: Duration = Duration::from_secs(1);
/// Notes under way that nobody waits for. Each takes a session of the home, which others need, too.
pub(super) const NOTES: usize = 2;

/// A publish without a confirm.
#[derive(Debug, Clone)]
pub(super) struct Unconfirmed {
    tx_id: TxId,
    attempts: i32,
    destination: Destination,
    publishes: i32,
    /// `None`: it was not tried, since its destination takes nothing.
    error: Option<PublishError>,
}

/// What follows a publish that was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterPublish {
    /// It waits, however often: nothing is wrong with the message.
    Wait,
    /// The broker does not take this very message: that counts.
    Count,
    /// And it has counted often enough: the error store, with the broker's reason.
    GiveUp { reason: String },
}

/// Decides, for a row with so many `publishes` before this one.
#[must_use]
pub fn after_publish(error: &PublishError, publishes: i32) -> AfterPublish {
    let reason: &dyn std::fmt::Display = match error {
        PublishError::Refused { reason } => reason,
        PublishError::NotSent(NotSent::Unfit(reason)) => reason,
        // A full queue, a queue that is gone or cannot work, a connection: it is taken once that is mended.
        PublishError::Returned { .. }
        | PublishError::Nacked
        | PublishError::Unknown(Doubt::NoConfirm | Doubt::Lost | Doubt::Ended(_) | Doubt::Unsettled)
        | PublishError::NotSent(
            NotSent::Down(_) | NotSent::Blocked(_) | NotSent::Full | NotSent::Expired | NotSent::Closed,
        ) => return AfterPublish::Wait,
    };
    let tries = publishes.saturating_add(1);
    if tries < MAX_PUBLISHES {
        return AfterPublish::Count;
    }
    AfterPublish::GiveUp { reason: format!("cannot be published: {tries} tries failed, the last one: {reason}") }
}

impl Unconfirmed {
    pub(super) fn of(sent: Sent<'_>, error: PublishError) -> Self {
        Self { error: Some(error), ..Self::held(sent) }
    }

    pub(super) fn held(sent: Sent<'_>) -> Self {
        let Sent { mark, destination, publishes, .. } = sent;
        let (tx_id, attempts, destination) = (mark.tx_id, mark.attempts, destination.clone());
        Self { tx_id, attempts, destination, publishes, error: None }
    }

    fn then(&self) -> AfterPublish {
        self.error.as_ref().map_or(AfterPublish::Wait, |error| after_publish(error, self.publishes))
    }
}

impl Relay {
    /// Says what could not be published, and notes it in the journal.
    pub(super) async fn note(&self, failed: &[Unconfirmed]) {
        if failed.is_empty() {
            return;
        }
        say(failed);
        self.write_down(failed).await;
    }

    /// The same, in a task. With [`NOTES`] under way the journal is not told: each row's `publish_after` passes by itself.
    pub(super) fn note_later(&self, failed: Vec<Unconfirmed>) {
        if failed.is_empty() {
            return;
        }
        say(&failed);
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

    async fn write_down(&self, failed: &[Unconfirmed]) {
        let mut waits: BTreeMap<Duration, Vec<Unpublished>> = BTreeMap::new();
        for one in failed {
            let row = |counts| Unpublished { tx_id: one.tx_id, attempts: one.attempts, counts };
            match one.then() {
                AfterPublish::Wait => waits.entry(self.wait(one)).or_default().push(row(false)),
                AfterPublish::Count => waits.entry(SPACING).or_default().push(row(true)),
                AfterPublish::GiveUp { reason } => {
                    let given_up = to_error_store(self, one.tx_id, &one.destination, one.attempts, &reason).await;
                    if let Err(error) = given_up {
                        tracing::debug!(tx_id = %one.tx_id, %error, "not given up; it is published once more");
                    }
                }
            }
        }
        for (wait, rows) in waits {
            if let Err(error) = self.0.store.publish_failed(&rows, wait).await {
                tracing::debug!(%error, messages = rows.len(), "not noted; each row's publish_after passes by itself");
            }
        }
        self.wake();
    }

    /// As long as its destination needs, or as it was there when channels ended.
    fn wait(&self, one: &Unconfirmed) -> Duration {
        let trouble = self.pause(&one.destination);
        trouble.max(self.0.suspects.pause(one.tx_id)).unwrap_or(SPACING)
    }
}

/// One line for all that the same trouble of a connection has kept back, and one for each that the broker does not take. Of a
/// destination's trouble there is a line when it begins and when it ends.
fn say(failed: &[Unconfirmed]) {
    let mut together: BTreeMap<String, u64> = BTreeMap::new();
    for one in failed {
        let Some(error) = &one.error else {
            count("held");
            continue;
        };
        count(word(error));
        match error {
            PublishError::Refused { .. } | PublishError::NotSent(NotSent::Unfit(_)) => {
                tracing::warn!(tx_id = %one.tx_id, destination = %one.destination, %error, "publish failed");
            }
            PublishError::Returned { .. } | PublishError::Nacked | PublishError::Unknown(Doubt::NoConfirm) => {
                tracing::debug!(tx_id = %one.tx_id, destination = %one.destination, %error, "publish failed");
            }
            PublishError::Unknown(Doubt::Lost | Doubt::Ended(_) | Doubt::Unsettled)
            | PublishError::NotSent(
                NotSent::Down(_) | NotSent::Blocked(_) | NotSent::Full | NotSent::Expired | NotSent::Closed,
            ) => *together.entry(error.to_string()).or_default() += 1,
        }
    }
    for (error, messages) in together {
        tracing::warn!(messages, %error, "publish failed; the journal keeps the messages");
    }
}

/// The figure's label.
const fn word(error: &PublishError) -> &'static str {
    match error {
        PublishError::NotSent(NotSent::Unfit(_)) | PublishError::Refused { .. } => "refused",
        PublishError::NotSent(
            NotSent::Down(_) | NotSent::Blocked(_) | NotSent::Full | NotSent::Expired | NotSent::Closed,
        ) => "not_sent",
        PublishError::Returned { .. } => "returned",
        PublishError::Nacked => "nacked",
        PublishError::Unknown(Doubt::NoConfirm) => "no_confirm",
        PublishError::Unknown(Doubt::Lost | Doubt::Ended(_) | Doubt::Unsettled) => "lost",
    }
}

fn count(reason: &'static str) {
    metrics::counter!("posthaste_publish_failed_total", "reason" => reason).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{About, End, Scope, WireError};

    const LAST: i32 = MAX_PUBLISHES - 1;

    fn unfit() -> PublishError {
        PublishError::NotSent(NotSent::Unfit(WireError::TooManyHeaders(65)))
    }

    #[test]
    fn back_pressure_and_lost_connections_never_count() {
        let end = |about| End { about, scope: Scope::Channel, reason: "406".into() };
        let errors = [
            PublishError::NotSent(NotSent::Down("x".into())),
            PublishError::NotSent(NotSent::Blocked("x".into())),
            PublishError::NotSent(NotSent::Full),
            PublishError::NotSent(NotSent::Expired),
            PublishError::NotSent(NotSent::Closed),
            PublishError::Returned { reason: "312 NO_ROUTE".to_owned() },
            PublishError::Nacked,
            PublishError::Unknown(Doubt::NoConfirm),
            PublishError::Unknown(Doubt::Lost),
            PublishError::Unknown(Doubt::Unsettled),
            PublishError::Unknown(Doubt::Ended(end(About::Message))),
            PublishError::Unknown(Doubt::Ended(end(About::Destination))),
            PublishError::Unknown(Doubt::Ended(end(About::Broker))),
        ];
        for error in errors {
            assert_eq!(after_publish(&error, 1000), AfterPublish::Wait, "{error}");
        }
    }

    #[test]
    fn what_the_broker_does_not_take_counts_and_the_tenth_time_is_the_last() {
        for error in [PublishError::Refused { reason: "406 too large".into() }, unfit()] {
            assert_eq!(after_publish(&error, 0), AfterPublish::Count, "{error}");
            assert_eq!(after_publish(&error, LAST - 1), AfterPublish::Count, "{error}");
            assert!(matches!(after_publish(&error, LAST), AfterPublish::GiveUp { .. }), "{error}");
        }
    }

    #[test]
    fn the_error_store_has_the_broker_s_own_reason() {
        let refused = PublishError::Refused { reason: "406 PRECONDITION_FAILED - message size 9".into() };
        let AfterPublish::GiveUp { reason } = after_publish(&refused, LAST) else { panic!("it is not given up") };
        assert_eq!(
            reason,
            "cannot be published: 10 tries failed, the last one: 406 PRECONDITION_FAILED - message size 9"
        );
    }
}
