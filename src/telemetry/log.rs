//! Log lines, from the event to standard error.

use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::TelemetryError;
use super::format::{Fields, Limited};
use super::limits::{LeftOut, Limits};
use super::lines::Lines;
use crate::lifecycle::log_panics;

/// Bytes of lines that may wait for whoever reads them.
const ROOM: usize = 1024 * 1024;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The log of this process.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    lines: Lines,
    /// `None`: whoever asked for DEBUG gets all.
    limits: Option<Arc<Limits>>,
}

/// Sends log lines to standard error, and panics with them.
///
/// # Errors
/// The filter cannot be read, or a logger is set already.
pub fn log_to_stderr(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    // The AMQP client logs returned messages with their bodies: it stays silent whatever is asked for.
    let directives = format!("{filter},lapin=off,deadpool=error,tokio_postgres=warn,refinery=off,refinery_core=off");
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| TelemetryError::Filter { given: filter.to_owned(), reason: error.to_string() })?;
    let limited = filter.max_level_hint().is_some_and(|level| level <= LevelFilter::INFO);
    let limits = limited.then(Arc::<Limits>::default);
    let seen = limits.clone();
    let lines = Lines::begin(std::io::stderr(), ROOM, move |dropped| tell(dropped, seen.as_deref(), false))?;
    let registry = tracing_subscriber::registry().with(filter);
    // What the layer itself has to say it would write to standard error, and wait.
    let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone()).log_internal_errors(false);
    let of = limits.clone();
    let set = match format {
        LogFormat::Text => {
            let layer = layer.with_ansi(std::io::stderr().is_terminal()).fmt_fields(Fields);
            registry.with(layer.map_event_format(|inner| Limited { inner, limits: of })).try_init()
        }
        LogFormat::Json => {
            registry.with(layer.json().map_event_format(|inner| Limited { inner, limits: of })).try_init()
        }
    };
    set.map_err(|_already| TelemetryError::Twice)?;
    LOG.set(Log { lines, limits }).map_err(|_already| TelemetryError::Twice)?;
    log_panics();
    Ok(())
}

/// Lines that are missing in the log.
fn tell(dropped: u64, limits: Option<&Limits>, all: bool) {
    if dropped > 0 {
        tracing::warn!(lines = dropped, "log lines were dropped: nobody read them in time");
    }
    for LeftOut { place, lines } in limits.map(|limits| limits.due(Instant::now(), all)).unwrap_or_default() {
        tracing::warn!(lines, place, "log lines were left out: too many of a kind; --log debug writes all");
    }
}

/// Waits until the log so far is written, at most so long if there is a bound.
pub fn flush_log(bound: Option<Duration>) {
    if let Some(log) = LOG.get() {
        tell(0, log.limits.as_deref(), true);
        log.lines.flush(bound);
    }
}

/// How many lines were not written so far, by reason.
pub(super) fn dropped() -> [(&'static str, u64); 2] {
    let log = LOG.get();
    let unread = log.map_or(0, |log| log.lines.dropped());
    let limit = log.and_then(|log| log.limits.as_ref()).map_or(0, |limits| limits.left_out());
    [("unread", unread), ("limit", limit)]
}
