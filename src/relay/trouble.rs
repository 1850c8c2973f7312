//! A destination that takes no messages: since when and why, how often it is tried, when new messages are refused, and what
//! of it is told. Pure: a clock comes from outside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::{About, Confirmed, Doubt, NotSent, PublishError};

/// How long a destination may be in trouble before new messages for it are refused.
pub const REFUSE_AFTER: Duration = Duration::from_secs(10);
/// Between two tries, at first and at most. What waits when it is well again waits no longer than this.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);
/// Without news for so long nobody knows any more: more than two tries take, confirms that do not come included.
const FORGOTTEN: Duration = Duration::from_secs(45);
/// Between two lines on the same destination, however often it changes.
const TELL: Duration = Duration::from_secs(30);

/// What the broker's word on one message says of its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    Well,
    Trouble(Cause),
    /// It is about the message, or about the broker or the way there.
    Nothing,
}

/// Why a destination takes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub reason: Arc<str>,
    /// Of the publishing connection, when silence is all there is: another connection may be heard.
    pub silent: Option<u64>,
}

/// Reads the broker's word. `connection`: which of the connections there have been.
#[must_use]
pub fn news(answer: &Result<Confirmed, PublishError>, connection: u64) -> News {
    let error = match answer {
        Ok(_confirmed) => return News::Well,
        Err(error) => error,
    };
    let refuses = |reason: String| News::Trouble(Cause { reason: reason.into(), silent: None });
    match error {
        PublishError::Returned { reason } => refuses(format!("no queue took a message: {reason}")),
        PublishError::Nacked => refuses("the broker refuses its messages (is the queue full?)".to_owned()),
        PublishError::Unknown(doubt) => match doubt {
            Doubt::NoConfirm => {
                let reason = "the broker does not confirm its messages".into();
                News::Trouble(Cause { reason, silent: Some(connection) })
            }
            Doubt::Ended(end) => match end.about {
                About::Destination => refuses(format!("the broker refuses its messages: {}", end.reason)),
                About::Message | About::Broker => News::Nothing,
            },
            Doubt::Lost | Doubt::Unsettled => News::Nothing,
        },
        PublishError::NotSent(reason) => match reason {
            NotSent::Down(_)
            | NotSent::Blocked(_)
            | NotSent::Full
            | NotSent::Expired
            | NotSent::Closed
            | NotSent::Unfit(_) => News::Nothing,
        },
        PublishError::Refused { .. } => News::Nothing,
    }
}

/// A destination in trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub cause: Cause,
    pub since: Instant,
    /// The latest news.
    last: Instant,
    next_try: Instant,
    told: bool,
}

/// What may go there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Everything.
    All,
    /// This one, to see whether it is taken.
    Try,
    /// Nothing: it waits.
    Wait,
}

/// What is worth a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Began,
    Ended { after: Duration },
}

/// Whether a destination takes messages, as far as is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    trouble: Option<Trouble>,
    told: Option<Instant>,
}

impl Health {
    /// The trouble, unless nothing was heard of it for long, or it was silence on a connection that is no more.
    #[must_use]
    pub fn trouble(&self, now: Instant, connection: u64) -> Option<&Trouble> {
        self.trouble.as_ref().filter(|trouble| {
            let same = trouble.cause.silent.is_none_or(|silent| silent == connection);
            same && now.saturating_duration_since(trouble.last) < FORGOTTEN
        })
    }

    /// Takes in news; what is answered is to be told.
    pub fn hear(&mut self, news: News, now: Instant, connection: u64) -> Option<Change> {
        let known = self.trouble(now, connection).cloned();
        match news {
            News::Nothing => None,
            News::Well => {
                let ended = self.trouble.take()?;
                ended.told.then(|| Change::Ended { after: now.saturating_duration_since(ended.since) })
            }
            News::Trouble(cause) => {
                let next_try = |since| now + pause(now.saturating_duration_since(since));
                if let Some(known) = known {
                    self.trouble = Some(Trouble { cause, last: now, next_try: next_try(known.since), ..known });
                    return None;
                }
                let told = self.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL);
                self.trouble = Some(Trouble { cause, since: now, last: now, next_try: next_try(now), told });
                if told {
                    self.told = Some(now);
                }
                told.then_some(Change::Began)
            }
        }
    }

    /// Whether a message may go there now. Whoever is told `Try` tries.
    pub fn admit(&mut self, now: Instant, connection: u64) -> Admission {
        let Some(since) = self.trouble(now, connection).map(|trouble| trouble.since) else { return Admission::All };
        match &mut self.trouble {
            Some(trouble) if trouble.next_try <= now => {
                trouble.next_try = now + pause(now.saturating_duration_since(since));
                Admission::Try
            }
            Some(_) | None => Admission::Wait,
        }
    }

    /// Whether [`admit`](Self::admit) would let something go there now, and if not, when to ask again.
    pub fn would_admit(&self, now: Instant, connection: u64) -> Result<Admission, Duration> {
        match self.trouble(now, connection) {
            None => Ok(Admission::All),
            Some(trouble) if trouble.next_try <= now => Ok(Admission::Try),
            Some(trouble) => Err(pause(now.saturating_duration_since(trouble.since))),
        }
    }
}

impl Trouble {
    /// New messages are refused.
    #[must_use]
    pub fn refuses(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= REFUSE_AFTER
    }
}

/// Between two tries: the longer the trouble lasts, the longer.
#[must_use]
pub fn pause(lasted: Duration) -> Duration {
    (lasted / 8).clamp(FIRST, LONGEST)
}

#[cfg(test)]
#[path = "trouble_tests.rs"]
mod tests;
