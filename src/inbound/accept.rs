//! Accepting one message: the decision, and what is done after it (protocol §4).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::answer::{Answer, NotReady};
use super::group::Together;
use super::verdict::{AfterFailure, after_failure, undone};
use super::{Accept, DuplicateKey, Groups, InboundSettings, Path};
use crate::model::{Envelope, MessageId};
use crate::pipeline::{AdapterRegistry, AllOutcomes, AmqpSenderSettings, Engine, FailureKind, NotCommitted, Pipelines};
use crate::relay::{NotTaken, Relay};
use crate::store::{AcceptRequest, Claimed, Inserted, LogEntry, Outgoing, Plans, Store, StoreError, Winner};

/// Longest search for a definite answer after the connection was lost; then the answer is unknown.
const SEARCH: Duration = Duration::from_secs(10);
/// Longest look whether a message that is refused is known.
const LOOK_UP: Duration = Duration::from_secs(5);
/// Between two tries of the statement.
const AGAIN: Duration = Duration::from_millis(100);

/// What accepting needs.
pub struct Acceptor {
    pub store: Store,
    pub groups: Groups,
    pub relay: Relay,
    pub registry: AdapterRegistry,
    pub pipelines: Pipelines,
    pub host: Arc<str>,
    /// What became of messages lately.
    pub outcomes: AllOutcomes,
}

/// The memory that a body takes; given back when nothing is waited for that needs it.
pub type Room = Arc<Option<OwnedSemaphorePermit>>;

impl Acceptor {
    /// Whether a message would be taken now; the text says why not. Asks no server.
    pub fn ready(&self, inbound: &InboundSettings, path: &Path) -> Result<(), NotReady> {
        if !self.registry.is_started(&inbound.adapter) {
            return Err(NotReady::own("adapter", format!("adapter {} is stopped", inbound.adapter)));
        }
        if self.store.home().is_none() || self.relay.clock().now().is_none() {
            return Err(NotReady::own("home", "the home database was not reached yet".to_owned()));
        }
        self.store.gate.pass().map_err(|error| NotReady {
            reason: error.to_string(),
            public: error.public(),
            about: "home without an answer".to_owned(),
            since: self.store.gate.shut_since(),
        })?;
        for sender in path.senders() {
            if inbound.accept == Accept::Confirmed {
                let public = || format!("no messages are taken for {} now", sender.destination);
                let not_ready =
                    |NotTaken { what, about, since }| NotReady { reason: what, public: public(), about, since };
                self.relay.ready(&sender.destination).map_err(not_ready)?;
            }
            let open = self.relay.open(&sender.destination).open;
            if open >= inbound.max_open {
                let many = format!("{open} messages for {} are not done yet", sender.destination);
                return Err(NotReady::own(format!("open for {}", sender.destination), many));
            }
        }
        Ok(())
    }

    /// What is wrong with the destinations alone.
    pub fn trouble(&self, inbound: &InboundSettings, path: &Path) -> Vec<NotTaken> {
        match inbound.accept {
            Accept::Confirmed => {
                path.senders().iter().filter_map(|sender| self.relay.ready(&sender.destination).err()).collect()
            }
            Accept::Journalled => Vec::new(),
        }
    }

    /// A refusal must not hide an acceptance: a known id gets the duplicate answer whatever is out of order.
    pub async fn refuse(&self, inbound: &InboundSettings, envelope: &Envelope, reason: String) -> Answer {
        let (Some(log), Some(key)) = (&inbound.message_log, dedup_key(inbound, envelope)) else {
            return Answer::Refused { reason };
        };
        let found = tokio::time::timeout(LOOK_UP, self.store.winner(&log.slot_id, key.as_str())).await;
        match found.unwrap_or(Ok(None)) {
            Ok(Some(seen)) => match self.store.outlasting(seen).await {
                Ok(winner) => self.duplicate(inbound, envelope, &key, &winner).await,
                // It is known here, and a fail-over may forget it.
                Err(error) => Answer::unknown_after(&error, &envelope.message_id),
            },
            Ok(None) | Err(_) => Answer::Refused { reason },
        }
    }

    /// Decides. To be run to its end: dropped half way it leaves a message that may be accepted and is not published.
    pub async fn accept(&self, inbound: &InboundSettings, path: &Path, envelope: Envelope, room: Room) -> Answer {
        // What is taken seldom, or is large, is kept out of the future of the usual way.
        match path {
            Path::Enqueue(senders) => {
                let deadline = Instant::now() + SEARCH;
                let request = Box::new(self.request(inbound, senders, envelope));
                if request.log.is_none() {
                    return Box::pin(self.alone(inbound, *request, None, deadline, &room)).await;
                }
                match self.groups.accept(request, inbound.accept, room.clone()).await {
                    Together::Accepted => Answer::Accepted,
                    Together::Not { request, tried } => {
                        let tried = Some(tried).filter(|tried| !tried.as_ref().is_err_and(undone));
                        Box::pin(self.alone(inbound, *request, tried, deadline, &room)).await
                    }
                    Together::Busy { reason } => Answer::Refused { reason },
                    Together::Lost => Answer::Unknown { reason: "the task of its group ended early".to_owned() },
                }
            }
            Path::Transaction(_) => Box::pin(self.in_transaction(inbound, envelope, &room)).await,
        }
    }

    pub(super) fn request(
        &self,
        inbound: &InboundSettings,
        senders: &[AmqpSenderSettings],
        envelope: Envelope,
    ) -> AcceptRequest {
        let outgoing = senders.iter().enumerate().map(|(index, sender)| Outgoing {
            tx_id: if index == 0 { envelope.tx_id } else { self.relay.mint() },
            destination: sender.destination.clone(),
            mode: sender.mode,
            max_attempts: sender.max_attempts,
        });
        AcceptRequest {
            outgoing: outgoing.collect(),
            sha256: envelope.sha256(),
            host: self.host.clone(),
            log: log_entry(inbound, &envelope),
            envelope,
        }
    }

    /// By statements of its own. `tried`: what became of it in a group, when that was not undone.
    async fn alone(
        &self,
        inbound: &InboundSettings,
        request: AcceptRequest,
        tried: Option<Result<Inserted, StoreError>>,
        deadline: Instant,
        room: &Room,
    ) -> Answer {
        let answer = self.decide(inbound, &request, tried, deadline).await;
        if answer == Answer::Accepted {
            self.publish(inbound, request.into_messages(), room).await;
        }
        answer
    }

    /// Sends the statement until the answer is known, or the time is over.
    async fn decide(
        &self,
        inbound: &InboundSettings,
        request: &AcceptRequest,
        tried: Option<Result<Inserted, StoreError>>,
        deadline: Instant,
    ) -> Answer {
        let envelope = &request.envelope;
        let key = request.log.as_ref().and_then(|log| log.dedup_key.as_ref());
        let mut unknown = false;
        let mut tried = match tried {
            Some(tried) => tried,
            None => self.store.accept(request).await,
        };
        loop {
            let error = match tried {
                Ok(Inserted::Yes) => return Answer::Accepted,
                Ok(Inserted::Conflict) => match self.read_winner(inbound, envelope, key).await {
                    Ok(Some(answer)) => return answer,
                    // Neither inserted nor found: the row was removed in between. Execute again.
                    Ok(None) => StoreError::Unexpected("the accepted row is gone".to_owned()),
                    Err(error) => error,
                },
                Err(error) => match after_failure(&error, unknown) {
                    // Found, not written now: see `outlasting`.
                    AfterFailure::Accepted => match self.store.durable().await {
                        Ok(()) => return Answer::Accepted,
                        Err(error) => error,
                    },
                    AfterFailure::None => return self.refused_by(&error, inbound, envelope),
                    AfterFailure::Again => error,
                },
            };
            unknown = true;
            if Instant::now() + AGAIN >= deadline {
                // Whatever it was, it was so for long.
                self.note_failure(inbound, envelope, error.to_string());
                return Answer::unknown_after(&error, &envelope.message_id);
            }
            tokio::time::sleep(AGAIN).await;
            tried = self.store.accept(request).await;
        }
    }

    async fn read_winner(
        &self,
        inbound: &InboundSettings,
        envelope: &Envelope,
        key: Option<&MessageId>,
    ) -> Result<Option<Answer>, StoreError> {
        let (Some(log), Some(key)) = (&inbound.message_log, key) else { return Ok(None) };
        let Some(seen) = self.store.winner(&log.slot_id, key.as_str()).await? else { return Ok(None) };
        let winner = self.store.outlasting(seen).await?;
        if winner.tx_id == envelope.tx_id {
            return Ok(Some(Answer::Accepted));
        }
        Ok(Some(self.duplicate(inbound, envelope, key, &winner).await))
    }

    async fn duplicate(
        &self,
        inbound: &InboundSettings,
        envelope: &Envelope,
        key: &MessageId,
        winner: &Winner,
    ) -> Answer {
        let sha256 = envelope.sha256();
        let conflict = winner.sha256 != sha256;
        if conflict && let Some(log) = &inbound.message_log {
            let size = envelope.body.len();
            if let Err(error) = self.store.record_conflict(&log.slot_id, key.as_str(), &sha256, size).await {
                tracing::warn!(message.id = %envelope.message_id, %error, "a conflict was not recorded");
            }
        }
        Answer::Duplicate { conflict }
    }

    /// Past the decision the answer is never negative: what cannot be published now is published later.
    async fn publish(&self, inbound: &InboundSettings, messages: Vec<Claimed>, room: &Room) {
        if messages.is_empty() {
            return;
        }
        let (relay, room) = (self.relay.clone(), room.clone());
        let publish = async move {
            let _until_published = room;
            relay.publish_all(messages, |_| ()).await
        };
        match inbound.accept {
            // In this task: no client can cancel it.
            Accept::Confirmed => {
                publish.await;
            }
            Accept::Journalled => {
                self.relay.tasks().spawn(publish);
            }
        }
    }

    /// Log row first, then the steps; COMMIT decides, and a failing step rolls everything back.
    async fn in_transaction(&self, inbound: &InboundSettings, envelope: Envelope, room: &Room) -> Answer {
        for plans in [Plans::Kept, Plans::New] {
            if let Some(answer) = self.in_one_transaction(plans, inbound, &envelope, room).await {
                return answer;
            }
        }
        Answer::Refused { reason: "its statements changed under it".to_owned() }
    }

    /// `None`: rolled back, and a plan that the session had kept may be to blame.
    async fn in_one_transaction(
        &self,
        plans: Plans,
        inbound: &InboundSettings,
        envelope: &Envelope,
        room: &Room,
    ) -> Option<Answer> {
        let transaction = match self.store.begin_submit(plans).await {
            Ok(transaction) => transaction,
            Err(error) => return Some(self.refused_by(&error, inbound, envelope)),
        };
        if let Some(entry) = log_entry(inbound, envelope) {
            match transaction.insert_log(&self.store, &entry, envelope, &self.host).await {
                Ok(true) => {}
                Ok(false) => {
                    transaction.roll_back(&self.store).await;
                    let answer = self.read_winner(inbound, envelope, entry.dedup_key.as_ref()).await;
                    return Some(match answer {
                        Ok(Some(answer)) => answer,
                        Ok(None) => Answer::Unknown { reason: "the accepted row is gone".to_owned() },
                        Err(error) => self.unknown_after(&error, inbound, envelope),
                    });
                }
                // Another session may hold the same id.
                Err(error) => {
                    transaction.roll_back(&self.store).await;
                    return Some(match after_failure(&error, false) {
                        AfterFailure::None => self.refused_by(&error, inbound, envelope),
                        AfterFailure::Accepted | AfterFailure::Again => self.unknown_after(&error, inbound, envelope),
                    });
                }
            }
        }
        let relay = self.relay.clone();
        let mint = move || relay.mint();
        let engine = Engine { store: &self.store, registry: &self.registry, mint: &mint };
        let (adapter, bound) = (&inbound.adapter, inbound.transaction_timeout);
        let running =
            self.pipelines.run_and_commit(adapter, envelope, transaction, engine, bound, self.relay.cut_off());
        Some(match running.await {
            Ok(committed) => {
                let sent = committed.sent.into_iter();
                let messages = sent.map(|(row, body)| row.into_message(Envelope { body, ..envelope.clone() }));
                self.publish(inbound, messages.collect(), room).await;
                Answer::Accepted
            }
            Err(NotCommitted::Failed(failure)) => {
                if let FailureKind::Infrastructure(_) = failure.kind {
                    self.note_failure(inbound, envelope, failure.to_string());
                }
                return Answer::failed_by(failure, inbound, &envelope.message_id);
            }
            Err(NotCommitted::Unknown(error)) => self.unknown_after(&error, inbound, envelope),
            Err(NotCommitted::Stopped) => Answer::Refused { reason: "this instance stops".to_owned() },
        })
    }
}

pub(super) fn log_entry(inbound: &InboundSettings, envelope: &Envelope) -> Option<LogEntry> {
    let log = inbound.message_log.as_ref()?;
    let (slot_id, retention) = (log.slot_id.clone(), log.retention);
    Some(LogEntry { slot_id, retention, dedup_key: dedup_key(inbound, envelope) })
}

fn dedup_key(inbound: &InboundSettings, envelope: &Envelope) -> Option<MessageId> {
    inbound.check_for_duplicates.map(|key| match key {
        DuplicateKey::MessageId => envelope.message_id.clone(),
        DuplicateKey::CorrelationId => envelope.correlation_id.clone(),
    })
}
