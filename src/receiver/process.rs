//! One attempt: the transaction around a pipeline, and what is written when it fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::InAdvance;
use super::Pace;
use super::ReceiverSettings;
use super::attempt::{Unclaimed, Verdict, after_failure, unclaimed};
use super::fault::{Fault, Troubles};
use super::way::Way;
use crate::model::{Envelope, TxId};
use crate::pipeline::{
    AdapterRegistry, Committed, Engine, FailureKind, NotCommitted, Outcomes, Pipelines, StepFailure,
};
use crate::relay::Relay;
use crate::store::{Claim, FailedAttempt, GivenUpBy, Outgoing, Plans, Store, StoreError, WorkTransaction};

/// What every attempt needs. Cheap to clone.
#[derive(Clone)]
pub struct Processor {
    pub store: Store,
    pub relay: Relay,
    pub registry: AdapterRegistry,
    pub pipelines: Pipelines,
    pub host: Arc<str>,
    /// How the messages of one receiver went lately.
    pub pace: Arc<Pace>,
    /// What its databases answered lately.
    pub troubles: Arc<Troubles>,
    /// The same for whoever looks from outside, and how long messages took.
    pub outcomes: Arc<Outcomes>,
    /// What all receivers ask for in advance.
    pub in_advance: InAdvance,
}

/// How an attempt, or the try to have one, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// Committed.
    Done,
    /// Failed, and what follows is committed: a retry, or the error store.
    Failed { step: Option<String>, reason: String, given_up: bool },
    /// Failed as others did before it, and its retry is committed; who takes messages pauses all the same.
    Deferred { reason: String },
    /// Nothing to do any more: settled by somebody else, parked, or brought back by its row.
    Settled,
    /// Uncounted; again after a pause.
    HandBack,
    /// The database is at fault; nothing more can be done until it answers.
    Infrastructure {
        reason: String,
        /// Whether the attempt is known to have done nothing.
        undone: bool,
    },
    /// This instance stops: it was cut off in the midst, and does not count.
    Stopped,
}

/// A pause before a delivery is handed back.
pub const HAND_BACK_AFTER: Duration = Duration::from_millis(500);

impl Processor {
    /// Tries a row that is not started: the first attempt.
    pub async fn first(&self, settings: &ReceiverSettings, envelope: &Envelope) -> AttemptEnd {
        self.attempt(settings, envelope, Way::First).await
    }

    /// One attempt.
    pub async fn attempt(&self, settings: &ReceiverSettings, envelope: &Envelope, way: Way) -> AttemptEnd {
        let attempt = async |plans| self.attempt_with(plans, settings, envelope, way).await;
        let at_most_twice = async {
            match attempt(Plans::Kept).await {
                Some(end) => end,
                None => attempt(Plans::New).await.unwrap_or(AttemptEnd::HandBack),
            }
        };
        at_most_twice.instrument(attempt_span(settings, envelope, way.n())).await
    }

    /// `None`: rolled back, and a plan that the session had kept may be to blame.
    async fn attempt_with(
        &self,
        plans: Plans,
        settings: &ReceiverSettings,
        envelope: &Envelope,
        way: Way,
    ) -> Option<AttemptEnd> {
        let began = Instant::now();
        let sha256 = envelope.sha256();
        let transaction = match self.store.begin_work_with(plans).await {
            Ok(transaction) => transaction,
            Err(error) => return Some(undone(&error)),
        };
        let claim = Claim {
            tx_id: envelope.tx_id,
            destination: &settings.destination,
            attempts: way.seen(),
            started: way != Way::First,
            sha256: &sha256,
        };
        let max_attempts = match transaction.take(&self.store, claim).await {
            Ok(Some(max_attempts)) => max_attempts,
            Ok(None) => {
                transaction.roll_back(&self.store).await;
                return Some(self.read_unclaimed(settings, envelope).await);
            }
            Err(error) => {
                transaction.roll_back(&self.store).await;
                return (plans == Plans::New || !error.may_be_stale_plan()).then(|| undone(&error));
            }
        };
        Some(match self.run(settings, envelope, transaction).await {
            Ok(Committed { sent }) => {
                self.pace.single(began.elapsed());
                count_processed(settings, 1);
                self.committed(envelope, sent);
                AttemptEnd::Done
            }
            // The next start, which locks the row, tells (DQ2).
            Err(NotCommitted::Unknown(error)) => {
                tracing::info!(txn.outcome = "unknown", reason = %error);
                AttemptEnd::Infrastructure { reason: error.to_string(), undone: false }
            }
            Err(NotCommitted::Failed(failure)) if failure.kind == FailureKind::StalePlan => return None,
            Err(NotCommitted::Failed(failure)) => {
                let failed = Failed { way, max_attempts, took: began.elapsed() };
                self.failed(settings, envelope, &failed, failure).await
            }
            Err(NotCommitted::Stopped) => self.stopped(settings, envelope, way, began).await,
        })
    }

    /// What a commit is followed by for each of its messages, which are [counted](count_processed) together.
    pub(super) fn committed(&self, envelope: &Envelope, sent: Vec<(Outgoing, bytes::Bytes)>) {
        self.troubles.success();
        self.outcomes.done(self.relay.clock().since(envelope.tx_id));
        tracing::debug!(txn.outcome = "committed");
        self.relay.processed(envelope.tx_id);
        self.publish_sent(envelope, sent);
    }

    /// The pipeline, bounded by the transaction time-out, and the COMMIT.
    async fn run(
        &self,
        settings: &ReceiverSettings,
        envelope: &Envelope,
        transaction: WorkTransaction,
    ) -> Result<Committed, NotCommitted> {
        let relay = self.relay.clone();
        let mint = move || relay.mint();
        let engine = Engine { store: &self.store, registry: &self.registry, mint: &mint };
        let (adapter, bound) = (&settings.adapter, settings.transaction_timeout);
        self.pipelines.run_and_commit(adapter, envelope, transaction, engine, bound, self.relay.cut_off()).await
    }

    /// What an attempt that was rolled back is followed by.
    pub(super) async fn failed(
        &self,
        settings: &ReceiverSettings,
        envelope: &Envelope,
        failed: &Failed,
        failure: StepFailure,
    ) -> AttemptEnd {
        tracing::info!(txn.outcome = "rolled back", step = %failure.step, reason = %failure.reason);
        let error = failure.to_string();
        let (kind, excused) = match failure.kind {
            FailureKind::Infrastructure(trouble) => {
                match self.whose_fault(settings, envelope.tx_id, failed, trouble).await {
                    Fault::Database => (failure.kind, false),
                    Fault::Several => return self.deferred(settings, envelope, failed, error).await,
                    Fault::Unclear => (FailureKind::Step, true),
                    Fault::Message => (FailureKind::Step, false),
                }
            }
            FailureKind::Step | FailureKind::Permanent | FailureKind::StalePlan => (failure.kind, false),
        };
        let n = failed.way.n();
        let verdict = match after_failure(kind, n, failed.max_attempts, settings) {
            Verdict::GiveUp if excused => Verdict::Retry { delay: settings.delay_after(n) },
            verdict => verdict,
        };
        let record = self.record_of(settings, envelope, failed, (!excused).then_some(failure.step.as_str()), &error);
        let adapter = settings.adapter.to_string();
        let (written, given_up) = match verdict {
            Verdict::HandBack => return AttemptEnd::Infrastructure { reason: error, undone: true },
            Verdict::Retry { delay } => {
                tracing::info!(verdict = "retry", delay = ?delay, excused);
                metrics::counter!("posthaste_retried_total", "adapter" => adapter).increment(1);
                self.relay.wake();
                let written = if excused {
                    self.store.retry_excused(&record, delay).await
                } else {
                    self.store.retry(&record, delay).await
                };
                (written, false)
            }
            Verdict::GiveUp => {
                tracing::warn!(verdict = "error store", slot = %settings.error_slot, reason = %error);
                metrics::counter!("posthaste_failed_total", "adapter" => adapter).increment(1);
                let written = self.store.give_up(&record, &settings.error_slot, &self.host, GivenUpBy::Attempt).await;
                (self.or_later(written.map(|key| key.is_some()), &record).await, true)
            }
        };
        match written {
            Ok(true) => {
                self.relay.wake();
                AttemptEnd::Failed { step: Some(failure.step), reason: error, given_up }
            }
            Ok(false) => self.read_unclaimed(settings, envelope).await,
            Err(error) => ended(&error),
        }
    }

    /// The error store itself refuses the message: it stays in the journal, waits, and somebody must look.
    async fn or_later(
        &self,
        written: Result<bool, StoreError>,
        record: &FailedAttempt<'_>,
    ) -> Result<bool, StoreError> {
        match written {
            Err(error) if !error.is_infrastructure() => {
                tracing::error!(tx_id = %record.tx_id, %error, "the error store refused a message; trying again later");
                let doublings = u32::try_from(record.n.clamp(0, 6)).unwrap_or(0);
                let delay = Duration::from_secs(60) * 2_u32.pow(doublings);
                // The attempt stays counted (I7): the sweeper tries the error store again, not the pipeline.
                self.store.retry(record, delay).await
            }
            written => written,
        }
    }

    /// Reads the row of a delivery that could not be claimed, and does what it says.
    pub(super) async fn read_unclaimed(&self, settings: &ReceiverSettings, envelope: &Envelope) -> AttemptEnd {
        let row = match self.store.journal_row(envelope.tx_id, watch(settings)).await {
            Ok(row) => row,
            Err(error) => return ended(&error),
        };
        let done = match unclaimed(row.as_ref(), &settings.destination, &envelope.sha256()) {
            Unclaimed::Drop => Ok(()),
            Unclaimed::HandBack => return AttemptEnd::HandBack,
            Unclaimed::Reopen { attempts } => self.store.reopen(envelope.tx_id, &settings.destination, attempts).await,
            Unclaimed::Park { reason } => self.park(settings, envelope, &reason).await,
            Unclaimed::GiveUp { attempts } => self.give_up_crashed(settings, envelope.tx_id, attempts).await,
        };
        match done {
            Ok(()) => AttemptEnd::Settled,
            Err(error) => ended(&error),
        }
    }

    /// Keeps a message for a person (type H).
    pub async fn park(&self, settings: &ReceiverSettings, envelope: &Envelope, reason: &str) -> Result<(), StoreError> {
        if self.store.park(envelope, &settings.error_slot, &self.host, reason).await? {
            metrics::counter!("posthaste_parked_total", "adapter" => settings.adapter.to_string()).increment(1);
            tracing::warn!(message.id = %envelope.message_id, tx.id = %envelope.tx_id, reason, "parked");
        }
        Ok(())
    }

    async fn give_up_crashed(&self, settings: &ReceiverSettings, tx_id: TxId, n: i32) -> Result<(), StoreError> {
        let error = format!("the process ended during attempt {n}");
        let record = FailedAttempt {
            tx_id,
            destination: &settings.destination,
            seen: n,
            n,
            adapter: settings.adapter.as_str(),
            step: None,
            error: &error,
            took: Duration::ZERO,
        };
        if self.store.give_up(&record, &settings.error_slot, &self.host, GivenUpBy::Observer).await?.is_some() {
            metrics::counter!("posthaste_failed_total", "adapter" => settings.adapter.to_string()).increment(1);
            tracing::warn!(tx.id = %tx_id, reason = %error, "moved to the error store");
        }
        Ok(())
    }

    /// What the pipeline sent is committed: publish it from memory, in a task of its own.
    pub fn publish_sent(&self, envelope: &Envelope, sent: Vec<(Outgoing, bytes::Bytes)>) {
        for (outgoing, body) in sent {
            let message = outgoing.into_message(Envelope { body, ..envelope.clone() });
            let relay = self.relay.clone();
            self.relay.tasks().spawn(async move { relay.publish(message).await });
        }
    }
}

/// Counts messages whose transaction was committed.
pub(super) fn count_processed(settings: &ReceiverSettings, messages: usize) {
    let messages = u64::try_from(messages).unwrap_or(0);
    metrics::counter!("posthaste_processed_total", "adapter" => settings.adapter.to_string()).increment(messages);
}

/// An error of an attempt whose transaction was never committed.
fn undone(error: &StoreError) -> AttemptEnd {
    match ended(error) {
        AttemptEnd::Infrastructure { reason, .. } => AttemptEnd::Infrastructure { reason, undone: true },
        end => end,
    }
}

pub(super) struct Failed {
    pub way: Way,
    pub max_attempts: i32,
    pub took: Duration,
}

pub(super) fn attempt_span(settings: &ReceiverSettings, envelope: &Envelope, n: i32) -> tracing::Span {
    tracing::info_span!(
        "attempt",
        message.id = %envelope.message_id, tx.id = %envelope.tx_id, adapter = %settings.adapter, attempt.n = n
    )
}

/// The same for a message that went well: most do, and a span that nobody sees costs more than the rest of it.
pub(super) fn span_of_success(settings: &ReceiverSettings, envelope: &Envelope) -> Option<tracing::Span> {
    tracing::enabled!(tracing::Level::DEBUG).then(|| attempt_span(settings, envelope, 1))
}

/// How long a started attempt may take before it is nobody's.
pub(super) fn watch(settings: &ReceiverSettings) -> Duration {
    settings.transaction_timeout + Duration::from_secs(10)
}

/// An error outside the pipeline never counts against the message.
pub(super) fn ended(error: &StoreError) -> AttemptEnd {
    if error.is_infrastructure() {
        AttemptEnd::Infrastructure { reason: error.to_string(), undone: false }
    } else {
        tracing::warn!(%error, "not claimed; the delivery goes back");
        AttemptEnd::HandBack
    }
}
