//! What may go to a destination now, and what is heard of it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::Relay;
use super::batch::Answered;
use super::board::Troubled;
use super::trouble::{Admission, news};
use crate::broker::{Broker, LinkStatus, PublishError};
use crate::model::Destination;

/// When a destination is in trouble and somebody else tries it.
const SOON: Duration = Duration::from_secs(1);

/// Why no message would be taken for a destination now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTaken {
    /// For people.
    pub what: String,
    /// The same as long as the trouble lasts.
    pub about: String,
    /// Where that is known.
    pub since: Option<Timestamp>,
}

impl NotTaken {
    fn of(about: &str, what: String) -> Self {
        Self { what, about: about.to_owned(), since: None }
    }
}

impl Relay {
    /// Whether a new message for this destination would be taken now, or why not.
    pub fn ready(&self, destination: &Destination) -> Result<(), NotTaken> {
        self.reachable(destination)?;
        match self.troubled(destination) {
            Some(Troubled { what, since, refuses: true }) => {
                Err(NotTaken { since: Some(since), ..NotTaken::of(destination.as_str(), what) })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether there is a way to it, or why not.
    pub(super) fn reachable(&self, destination: &Destination) -> Result<(), NotTaken> {
        let not_configured = |what: String| NotTaken::of("configuration", format!("{what} is not configured"));
        let settings = self.destination(destination).ok_or_else(|| not_configured(destination.to_string()))?;
        let connection = &settings.connection;
        let broker = self.0.brokers.get(connection);
        let broker = broker.ok_or_else(|| not_configured(format!("connection {connection}")))?;
        let since = |since| Some(self.0.board.moment(since));
        match broker.publish_status() {
            LinkStatus::Up => {}
            LinkStatus::Down { reason, since: down } => {
                let what = format!("{connection} is down: {reason}");
                return Err(NotTaken { since: since(down), ..NotTaken::of(connection, what) });
            }
            LinkStatus::Blocked { reason, since: blocked } => {
                let what = format!("{connection} takes no messages: {reason}");
                return Err(NotTaken { since: since(blocked), ..NotTaken::of(connection, what) });
            }
        }
        if !broker.publisher().is_ready() {
            let what = format!("too much is waiting to be published on {connection}");
            return Err(NotTaken::of(&format!("room on {connection}"), what));
        }
        self.0
            .board
            .verified(destination)
            .map_err(|(what, since)| NotTaken { since: Some(since), ..NotTaken::of(destination.as_str(), what) })
    }

    /// The trouble that it is in, if its connection is well: a connection's trouble is told as that.
    #[must_use]
    pub fn troubled(&self, destination: &Destination) -> Option<Troubled> {
        let broker = self.0.brokers.get(&self.destination(destination)?.connection)?;
        match broker.publish_status() {
            LinkStatus::Up => self.0.board.troubled(destination, broker.publish_ups()),
            LinkStatus::Blocked { .. } | LinkStatus::Down { .. } => None,
        }
    }

    /// Every destination that is in trouble.
    #[must_use]
    pub fn all_troubled(&self) -> Vec<Troubled> {
        self.settings().destinations.iter().filter_map(|one| self.troubled(&one.destination)).collect()
    }

    /// Whether a message may go there now. Whoever is told `Try` publishes one.
    pub(super) fn admit(&self, destination: &Destination, broker: &Broker) -> Admission {
        self.0.board.admit(destination, broker.publish_ups())
    }

    /// Whether a row may be claimed for it, or when to ask again. `tried`: where a round has a try already.
    pub(super) fn may_go(&self, destination: &Destination, tried: &mut BTreeSet<Destination>) -> Result<(), Duration> {
        let connection = self.destination(destination).and_then(|one| self.0.brokers.get(&one.connection));
        let ups = connection.map_or(0, Broker::publish_ups);
        match self.0.board.would_admit(destination, ups)? {
            Admission::All => Ok(()),
            Admission::Try if tried.insert(destination.clone()) => Ok(()),
            Admission::Try | Admission::Wait => Err(SOON),
        }
    }

    /// How long what waits for a destination waits until its next publish.
    pub(super) fn pause(&self, destination: &Destination) -> Option<Duration> {
        let broker = self.0.brokers.get(&self.destination(destination)?.connection)?;
        self.0.board.would_admit(destination, broker.publish_ups()).err()
    }

    /// What the broker's words say of destinations, and of messages that were there when a channel ended.
    pub(super) fn hear(&self, answered: &[Answered<'_>]) {
        let mut again = false;
        for (sent, answer) in answered {
            let tx_id = sent.mark.tx_id;
            match answer {
                Ok(_confirmed) => self.0.suspects.clear(tx_id),
                Err(error) => {
                    self.0.suspects.note(tx_id, error);
                    if let PublishError::Returned { .. } = error {
                        // Looked at, and made again, before anything more is accepted for it.
                        self.0.board.doubt(sent.destination);
                    }
                }
            }
            let Some(settings) = self.destination(sent.destination) else { continue };
            let ups = self.0.brokers.get(&settings.connection).map_or(0, Broker::publish_ups);
            again |= self.0.board.hear(sent.destination, news(answer, ups), ups);
        }
        if again {
            self.wake();
        }
    }
}
