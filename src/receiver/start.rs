//! Attempts that are started or noted before they are made, and those that are made up for (protocol §5).

use std::time::Instant;

use super::ReceiverSettings;
use super::fault::{Fault, Probe, Suspicion, whose};
use super::process::{AttemptEnd, Failed, Processor, ended, watch};
use super::way::Way;
use crate::model::{Envelope, TxId};
use crate::pipeline::Trouble;
use crate::store::{Excuse, FailedAttempt, Start, StartRequest, StoreError};

/// What became of a message that was to be started.
pub enum Started {
    Ended(AttemptEnd),
    /// Nothing was done: it is to be started alone.
    Alone,
}

impl Processor {
    /// Commits a start, then tries. `alone`: nothing else that needs it is tried beside it.
    pub async fn start_and_try(&self, settings: &ReceiverSettings, envelope: &Envelope, alone: bool) -> Started {
        let sha256 = envelope.sha256();
        let request = StartRequest {
            tx_id: envelope.tx_id,
            destination: &settings.destination,
            sha256: &sha256,
            adapter: settings.adapter.as_str(),
            watch: watch(settings),
            // Where all fail alike, nobody is told apart by being tried alone.
            max_attempts: if self.troubles.several() { i32::MAX } else { settings.max_attempts() },
            alone,
        };
        let began = Instant::now();
        Started::Ended(match self.store.start(&request).await {
            Ok(Start::Begun { n, .. }) => {
                let end = self.attempt(settings, envelope, Way::Started { n }).await;
                if let AttemptEnd::Infrastructure { reason, undone: true } = &end {
                    let record = self.record(settings, envelope, Way::Started { n }, began, reason);
                    self.excuse(&record, Excuse::Database).await;
                }
                end
            }
            Ok(Start::NotNow) => self.read_unclaimed(settings, envelope).await,
            Ok(Start::Alone) => return Started::Alone,
            Err(error) => ended(&error),
        })
    }

    /// Whether the message may be tried among others now; otherwise it is to be started.
    ///
    /// # Errors
    /// Nothing was noted.
    pub async fn note(&self, settings: &ReceiverSettings, tx_id: TxId) -> Result<bool, StoreError> {
        Ok(self.store.note_in_hand(&[tx_id], &settings.destination).await?.contains(&tx_id))
    }

    /// The instance stops in the midst of an attempt. What cannot be written now is seen from the instance's row.
    pub(super) async fn stopped(
        &self,
        settings: &ReceiverSettings,
        envelope: &Envelope,
        way: Way,
        began: Instant,
    ) -> AttemptEnd {
        tracing::warn!(took = ?began.elapsed(), "the instance stops in the midst of an attempt: it does not count");
        let record = self.record(settings, envelope, way, began, "the instance was stopped");
        self.excuse(&record, Excuse::Stop).await;
        AttemptEnd::Stopped
    }

    /// Whose fault it was that an attempt failed as in a database that is in trouble.
    pub(super) async fn whose_fault(
        &self,
        settings: &ReceiverSettings,
        tx_id: TxId,
        failed: &Failed,
        trouble: Trouble,
    ) -> Fault {
        // A resend has its one attempt, and whoever asked for it is told why it failed.
        if failed.way == Way::Resent {
            return Fault::Message;
        }
        let company = self.troubles.failure(tx_id, trouble);
        let passed = self.store.takes_writes(&settings.databases).await;
        let probe = if passed { Probe::Passed } else { Probe::Failed };
        let excused = failed.max_attempts.saturating_sub(settings.max_attempts());
        whose(Suspicion { trouble, probe, company, excused })
    }

    /// It failed as others did: it comes again behind those that have not had their turn. When this cannot be written, nothing
    /// is, and its delivery comes again.
    pub(super) async fn deferred(
        &self,
        settings: &ReceiverSettings,
        envelope: &Envelope,
        failed: &Failed,
        reason: String,
    ) -> AttemptEnd {
        let delay = settings.delay_after(failed.way.n());
        tracing::info!(verdict = "retry", delay = ?delay, excused = true);
        metrics::counter!("posthaste_retried_total", "adapter" => settings.adapter.to_string()).increment(1);
        let record = self.record_of(settings, envelope, failed, None, &reason);
        match self.store.retry_excused(&record, delay).await {
            Ok(true) => {
                self.relay.wake();
                AttemptEnd::Deferred { reason }
            }
            Ok(false) => self.read_unclaimed(settings, envelope).await,
            Err(error) => {
                tracing::debug!(%error, "the retry was not written");
                AttemptEnd::Infrastructure { reason, undone: true }
            }
        }
    }

    /// The attempt that the database or a stop ended does not count. When this cannot be written, it does, unless the
    /// instance has said that it stops.
    async fn excuse(&self, record: &FailedAttempt<'_>, excuse: Excuse) {
        match self.store.excuse(record, excuse).await {
            Ok(true) => {}
            Ok(false) => tracing::debug!(tx.id = %record.tx_id, "attempt {} is others' already", record.n),
            Err(error) => tracing::debug!(tx.id = %record.tx_id, %error, "attempt {} stays as it is", record.n),
        }
    }

    fn record<'a>(
        &self,
        settings: &'a ReceiverSettings,
        envelope: &Envelope,
        way: Way,
        began: Instant,
        error: &'a str,
    ) -> FailedAttempt<'a> {
        FailedAttempt {
            tx_id: envelope.tx_id,
            destination: &settings.destination,
            seen: way.seen(),
            n: way.n(),
            adapter: settings.adapter.as_str(),
            step: None,
            error,
            took: began.elapsed(),
        }
    }

    /// What is written of an attempt that failed and whose reason is known.
    pub(super) fn record_of<'a>(
        &self,
        settings: &'a ReceiverSettings,
        envelope: &Envelope,
        failed: &Failed,
        step: Option<&'a str>,
        error: &'a str,
    ) -> FailedAttempt<'a> {
        FailedAttempt {
            tx_id: envelope.tx_id,
            destination: &settings.destination,
            seen: failed.way.seen(),
            n: failed.way.n(),
            adapter: settings.adapter.as_str(),
            step,
            error,
            took: failed.took,
        }
    }
}
