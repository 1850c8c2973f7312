//! Logs and figures. No payload and no secret goes into either.

mod format;
mod histogram;
mod limits;
mod lines;
mod log;

pub use histogram::Histogram;
pub use log::{LogFormat, flush_log, log_to_stderr};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::model::{AdapterName, AdapterState, SlotId};
use crate::store::Store;

/// Why logging or figures could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("--log {given:?} is not a filter ({reason}); for example: info, debug, posthaste=debug,warn")]
    Filter { given: String, reason: String },
    #[error("it was set up already")]
    Twice,
    #[error("there is no thread to write the log: {0}")]
    Thread(#[from] std::io::Error),
}

/// Renders the figures of this process.
#[derive(Clone, Debug)]
pub struct MetricsHandle(PrometheusHandle);

/// Names and meanings, in the order of the page.
const COUNTERS: &[(&str, &str)] = &[
    ("posthaste_accepted_total", "Messages accepted (202)."),
    ("posthaste_duplicates_total", "Repeated ids, answered as duplicates."),
    ("posthaste_conflicts_total", "Repeated ids that came with another body."),
    ("posthaste_rejected_total", "Requests refused, by status."),
    ("posthaste_rolled_back_total", "Requests whose pipeline failed and was rolled back (422, 500)."),
    ("posthaste_unknown_total", "Requests whose outcome could not be told."),
    ("posthaste_accept_groups_total", "Groups of messages whose acceptance was tried in one statement."),
    ("posthaste_accept_group_messages_total", "Messages in these groups."),
    (
        "posthaste_accept_groups_failed_total",
        "Of these groups, those that were not accepted: each message went on alone, or was refused.",
    ),
    ("posthaste_published_total", "Messages confirmed by the broker, redone ones included."),
    ("posthaste_publish_failed_total", "Publishes without a confirm, by reason."),
    ("posthaste_processed_total", "Attempts committed."),
    ("posthaste_retried_total", "Attempts failed and to be repeated."),
    ("posthaste_failed_total", "Messages moved to the error store."),
    ("posthaste_resent_total", "Messages resent from the error store."),
    ("posthaste_parked_total", "Messages kept for a person, without being processed."),
    ("posthaste_adopted_total", "Messages of others taken over from a queue."),
    ("posthaste_recovered_total", "Prepared transactions finished by recovery, by outcome."),
    ("posthaste_heuristic_total", "Prepared transactions finished by hand, or by somebody unknown."),
    ("posthaste_adopted_without_id_total", "Messages of others without an id: repeats cannot be told."),
    ("posthaste_task_restarts_total", "Tasks of this process that ended too early and began anew."),
    ("posthaste_unwatched_found_total", "Open messages that nobody would have looked for, found by the audit."),
    ("posthaste_log_lines_dropped_total", "Log lines that were not written, by reason."),
    ("posthaste_connections_closed_total", "Connections of clients closed before their time, by listener and reason."),
];

impl MetricsHandle {
    /// Installs the recorder.
    ///
    /// # Errors
    /// One is installed already.
    pub fn install() -> Result<Self, TelemetryError> {
        let handle = PrometheusBuilder::new().install_recorder().map_err(|_already| TelemetryError::Twice)?;
        for (name, meaning) in COUNTERS {
            metrics::describe_counter!(*name, *meaning);
        }
        metrics::describe_gauge!("posthaste_journal_open", "Journal rows that are not settled.");
        metrics::describe_gauge!("posthaste_journal_oldest_seconds", "Age of the oldest of them.");
        metrics::describe_gauge!("posthaste_in_doubt", "Prepared transactions that wait for their outcome.");
        metrics::describe_gauge!("posthaste_in_doubt_oldest_seconds", "Age of the oldest of them.");
        metrics::describe_gauge!("posthaste_destination_in_trouble", "1 while a destination takes no messages.");
        metrics::describe_gauge!("posthaste_connections", "Open connections of clients, by listener.");
        metrics::describe_gauge!("posthaste_pool_in_use", "Database connections in use, by pool.");
        metrics::describe_gauge!("posthaste_pool_size", "Database connections possible, by pool.");
        metrics::describe_gauge!(
            "posthaste_error_store_messages",
            "Messages that wait for a person, by slot and type."
        );
        metrics::describe_gauge!("posthaste_error_store_oldest_seconds", "Age of the oldest of them.");
        metrics::describe_gauge!("posthaste_adapter_state", "1 for the state that an adapter is in, 0 for the others.");
        metrics::gauge!("posthaste_journal_open").set(0.0);
        metrics::gauge!("posthaste_journal_oldest_seconds").set(0.0);
        metrics::gauge!("posthaste_in_doubt").set(0.0);
        metrics::gauge!("posthaste_in_doubt_oldest_seconds").set(0.0);
        Ok(Self(handle))
    }

    /// Lets each counter of an adapter begin at 0: a figure that is absent until it happens cannot be alerted upon.
    pub fn begin(&self, inbound: &[String], receivers: &[String]) {
        for (name, adapters) in [
            ("posthaste_accepted_total", inbound),
            ("posthaste_duplicates_total", inbound),
            ("posthaste_conflicts_total", inbound),
            ("posthaste_unknown_total", inbound),
            ("posthaste_rolled_back_total", inbound),
            ("posthaste_processed_total", receivers),
            ("posthaste_retried_total", receivers),
            ("posthaste_failed_total", receivers),
            ("posthaste_resent_total", receivers),
            ("posthaste_parked_total", receivers),
        ] {
            for adapter in adapters {
                metrics::counter!(name, "adapter" => adapter.clone()).absolute(0);
            }
        }
        for name in [
            "posthaste_accept_groups_total",
            "posthaste_accept_group_messages_total",
            "posthaste_accept_groups_failed_total",
            "posthaste_published_total",
            "posthaste_adopted_total",
            "posthaste_adopted_without_id_total",
            "posthaste_heuristic_total",
            "posthaste_unwatched_found_total",
        ] {
            metrics::counter!(name).absolute(0);
        }
        for reason in ["refused", "not_sent", "returned", "nacked", "no_confirm", "lost", "held"] {
            metrics::counter!("posthaste_publish_failed_total", "reason" => reason).absolute(0);
        }
        for outcome in ["commit", "abort"] {
            metrics::counter!("posthaste_recovered_total", "outcome" => outcome).absolute(0);
        }
    }

    /// The same for what waits in error stores.
    pub fn begin_slots(&self, slots: &[SlotId]) {
        for slot in slots {
            for kind in ["E", "H"] {
                let labels = [("slot", slot.to_string()), ("type", kind.to_owned())];
                metrics::gauge!("posthaste_error_store_messages", &labels).set(0.0);
                metrics::gauge!("posthaste_error_store_oldest_seconds", &labels).set(0.0);
            }
        }
    }

    /// The figures in Prometheus' text format.
    #[must_use]
    pub fn render(
        &self,
        store: &Store,
        adapters: &[(AdapterName, AdapterState)],
        histograms: &[Histogram<'_>],
    ) -> String {
        for (adapter, state) in adapters {
            for one in AdapterState::ALL {
                let labels = [("adapter", adapter.to_string()), ("state", one.to_string())];
                let value = if one == state { 1.0 } else { 0.0 };
                metrics::gauge!("posthaste_adapter_state", &labels).set(value);
            }
        }
        let (group, accept) = (("group", &store.group), ("accept", &store.accept));
        for (name, pool) in [group, accept, ("work", &store.work), ("rows", &store.rows), ("house", &store.house)] {
            let (in_use, size) = pool.usage();
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; pools are small")]
            {
                metrics::gauge!("posthaste_pool_in_use", "pool" => name).set(in_use as f64);
                metrics::gauge!("posthaste_pool_size", "pool" => name).set(size as f64);
                metrics::gauge!("posthaste_pool_abandoned", "pool" => name).set(pool.abandoned() as f64);
            }
        }
        for (reason, lines) in log::dropped() {
            metrics::counter!("posthaste_log_lines_dropped_total", "reason" => reason).absolute(lines);
        }
        self.0.run_upkeep();
        let mut page = self.0.render();
        histograms.iter().for_each(|histogram| histogram.render(&mut page));
        page
    }
}
