//! What no consumer of ours can read is parked, so that the messages behind it flow (ADR 24).

use std::time::Duration;

use super::left::with_cause;
use super::worker::{Worker, storable, storable_headers};
use crate::broker::Unreadable;
use crate::model::{Envelope, MessageId};

/// For all that is done with a queue at once.
const BOUND: Duration = Duration::from_secs(60);
/// Looked at beyond what may have been delivered: other instances hand back theirs, too.
const MORE: usize = 64;

impl Worker {
    /// Parks each message of the queue's first that cannot be read, and acknowledges it after the commit. Answers how many. What
    /// is cut off in the midst stays in the queue, or comes again and is known.
    ///
    /// # Errors
    /// Why it could not be done, for people.
    pub(super) async fn set_aside(&self) -> Result<usize, String> {
        let done = tokio::time::timeout(BOUND, Box::pin(self.take_out())).await;
        done.unwrap_or_else(|_elapsed| Err(format!("not done within {} s", BOUND.as_secs())))
    }

    async fn take_out(&self) -> Result<usize, String> {
        let settings = &self.settings;
        let relay = &self.processor.relay;
        let broker = relay.broker(&settings.connection).ok_or("its connection is gone")?;
        let most = settings.prefetch() * 2 + MORE;
        let mut aside = broker.look_for_unreadable(&settings.queue, most).await.map_err(|error| with_cause(&error))?;
        let mut parked = 0;
        // Who waits for room here holds messages of this queue and no room: nobody who has some waits for them.
        let room = |bytes| relay.room().take(bytes);
        while let Some(one) = aside.next(&room).await.map_err(|error| with_cause(&error))? {
            let (envelope, reason) = (self.kept(&one.message), reason(&one.message));
            let done = self.processor.park(settings, &envelope, &reason).await;
            // Its body is there no longer than its room is taken.
            drop(envelope);
            done.map_err(|error| error.to_string())?;
            parked += 1;
            aside.ack(one).await.map_err(|error| with_cause(&error))?;
        }
        aside.close().await;
        Ok(parked)
    }

    fn kept(&self, message: &Unreadable) -> Envelope {
        let tx_id = message.tx_id.unwrap_or_else(|| self.processor.relay.mint());
        let own = || MessageId::parse(&tx_id.to_string()).unwrap_or_else(|_error| MessageId::mint());
        let message_id = message.message_id.clone().unwrap_or_else(own);
        Envelope {
            tx_id,
            root_id: tx_id.into(),
            correlation_id: message.correlation_id.clone().unwrap_or_else(|| message_id.clone()),
            message_id,
            content_type: message.content_type.clone().filter(|text| storable(text)),
            headers: storable_headers(message.headers.clone()),
            body: message.body.clone(),
        }
    }
}

fn reason(message: &Unreadable) -> String {
    format!("it cannot be read as others are: {}; it was never processed", message.what)
}
