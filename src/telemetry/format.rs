//! How a line of a text log looks, and whether it is written at all.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::limits::Limits;
use crate::model::text::{cut, one_line};

/// Longest field, in characters.
const LONGEST: usize = 2000;

/// Lines of whatever format, within limits.
pub(super) struct Limited<F> {
    pub inner: F,
    pub limits: Option<Arc<Limits>>,
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    /// A line that is not admitted is empty, and nothing is written.
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match &self.limits {
            Some(limits) if !limits.admit(event.metadata(), Instant::now()) => Ok(()),
            Some(_) | None => self.inner.format_event(ctx, writer, event),
        }
    }
}

/// Fields as the text format has them, on one line whatever they hold: who is refused writes neither lines of his own nor to
/// a terminal.
pub(super) struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Visitor { writer, first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'writer> {
    writer: Writer<'writer>,
    first: bool,
    result: fmt::Result,
}

impl Visitor<'_> {
    fn write(&mut self, name: &str, value: &str) -> fmt::Result {
        if !std::mem::take(&mut self.first) {
            self.writer.write_char(' ')?;
        }
        let value = cut(value, LONGEST);
        let value = one_line(&value);
        let name = name.strip_prefix("r#").unwrap_or(name);
        match name {
            "message" => write!(self.writer, "{value}"),
            // Italic, and dim.
            name if self.writer.has_ansi_escapes() => {
                write!(self.writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}")
            }
            name => write!(self.writer, "{name}={value}"),
        }
    }
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        self.record_debug(field, &format_args!("{text}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Where a line of the `log` crate comes from stands at its beginning already.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.write(field.name(), &format!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Mutex, PoisonError};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written of the log of this work.
    fn logged(ansi: bool, limits: Option<Arc<Limits>>, work: impl FnOnce()) -> String {
        let written = Written::default();
        let to = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || to.clone()).with_ansi(ansi).without_time();
        let layer = layer.fmt_fields(Fields).map_event_format(|inner| Limited { inner, limits });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const EVIL: &str = "a\n2026-11-30T00:00:00Z ERROR forged\x1b[31m\u{202e}\u{9b}\r\x07";
    const TOLD: &str = r"a\n2026-11-30T00:00:00Z ERROR forged\u{1b}[31m\u{202e}\u{9b}\r\u{7}";

    #[test]
    fn foreign_text_makes_no_line_of_its_own_and_reaches_no_terminal() {
        let log = logged(false, None, || {
            let span = tracing::info_span!("attempt", message.id = %EVIL, quoted = EVIL);
            let _within = span.enter();
            tracing::info!(reason = %EVIL, text = EVIL, error = &io::Error::other(EVIL) as &dyn std::error::Error);
            tracing::warn!("{EVIL}");
        });
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.contains(&format!("reason={TOLD} text=\"{TOLD}\" error={TOLD}")), "{log}");
        assert!(log.contains(&format!("attempt{{message.id={TOLD} quoted=\"{TOLD}\"}}")), "{log}");
        assert!(!log.contains(|character: char| character != '\n' && character.is_control()), "{log:?}");
        assert!(!log.contains('\u{202e}'), "{log:?}");
    }

    #[test]
    fn on_a_terminal_the_only_escapes_are_our_own() {
        let log = logged(true, None, || tracing::info!(reason = %EVIL, "said"));
        assert!(log.contains(&format!("said \x1b[3mreason\x1b[0m\x1b[2m=\x1b[0m{TOLD}")), "{log:?}");
    }

    #[test]
    fn a_long_field_is_cut() {
        let long = "ä".repeat(100_000);
        let log = logged(false, None, || tracing::info!(reason = %long, next = 1));
        assert!(log.chars().count() < LONGEST + 100 && log.contains("ä… next=1"), "{}", log.len());
    }

    #[test]
    fn what_is_beyond_the_limit_is_not_written() {
        let limits = Arc::new(Limits::default());
        let log = logged(false, Some(limits.clone()), || {
            for number in 0..1000 {
                tracing::info!(number, "again");
            }
            tracing::info!("another");
        });
        assert_eq!(log.lines().count(), 51, "{log}");
        assert!(log.ends_with("another\n"), "{log}");
        assert_eq!(limits.left_out(), 950);
    }
}
