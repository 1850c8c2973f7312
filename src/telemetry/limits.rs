//! So many lines of a kind in a while, and then how many more there were: what fails a thousand times a second is one thing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};

/// Lines of a kind in a [`WHILE`].
pub(super) const LINES: u32 = 50;
pub(super) const WHILE: Duration = Duration::from_secs(10);

/// What was written of each kind lately: a kind is what one place in the code says.
#[derive(Default)]
pub(super) struct Limits(Mutex<Kinds>);

#[derive(Default)]
struct Kinds {
    of: HashMap<Identifier, Kind>,
    left_out: u64,
}

struct Kind {
    metadata: &'static Metadata<'static>,
    began: Instant,
    lines: u32,
    /// Since when, and how many.
    left_out: Option<(Instant, u64)>,
}

/// Lines that were not written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// File and line.
    pub place: String,
    pub lines: u64,
}

impl Limits {
    /// Whether a line may be written. What is below INFO was asked for.
    pub(super) fn admit(&self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut kinds = self.kinds();
        let new = || Kind { metadata, began: now, lines: 0, left_out: None };
        let kind = kinds.of.entry(metadata.callsite()).or_insert_with(new);
        if now.saturating_duration_since(kind.began) >= WHILE {
            (kind.began, kind.lines) = (now, 0);
        }
        if kind.lines < LINES {
            kind.lines += 1;
            return true;
        }
        let (_since, lines) = kind.left_out.get_or_insert((now, 0));
        *lines += 1;
        kinds.left_out += 1;
        false
    }

    /// What was left out and is to be told now, once; `all`: also what is not over yet.
    pub(super) fn due(&self, now: Instant, all: bool) -> Vec<LeftOut> {
        let mut kinds = self.kinds();
        let over = |since: Instant| all || now.saturating_duration_since(since) >= WHILE;
        let due = kinds.of.values_mut().filter_map(|kind| {
            let (_since, lines) = kind.left_out.take_if(|(since, _)| over(*since))?;
            let (file, line) = (kind.metadata.file().unwrap_or_default(), kind.metadata.line().unwrap_or_default());
            Some(LeftOut { place: format!("{file}:{line}"), lines })
        });
        due.collect()
    }

    /// Lines left out so far.
    pub(super) fn left_out(&self) -> u64 {
        self.kinds().left_out
    }

    fn kinds(&self) -> MutexGuard<'_, Kinds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Subscriber};

    use super::*;

    /// Answers the metadata of an event of its own kind.
    fn metadata(event: impl FnOnce()) -> &'static Metadata<'static> {
        struct Seen;
        thread_local!(static SEEN: RefCell<Option<&'static Metadata<'static>>> = const { RefCell::new(None) });
        impl Subscriber for Seen {
            fn enabled(&self, _: &Metadata<'_>) -> bool {
                true
            }
            fn new_span(&self, _: &Attributes<'_>) -> Id {
                Id::from_u64(1)
            }
            fn record(&self, _: &Id, _: &Record<'_>) {}
            fn record_follows_from(&self, _: &Id, _: &Id) {}
            fn event(&self, event: &Event<'_>) {
                SEEN.set(Some(event.metadata()));
            }
            fn enter(&self, _: &Id) {}
            fn exit(&self, _: &Id) {}
        }
        tracing::subscriber::with_default(Seen, event);
        SEEN.take().unwrap()
    }

    #[test]
    fn of_each_kind_so_many_lines_are_written_in_a_while_and_the_others_are_counted_and_told_once() {
        let (limits, start) = (Limits::default(), Instant::now());
        let (one, other) = (metadata(|| tracing::warn!("one")), metadata(|| tracing::info!("other")));
        let admitted = |kind, times, now| (0..times).filter(|_| limits.admit(kind, now)).count();
        assert_eq!(admitted(one, 1000, start), 50);
        assert_eq!(admitted(other, 3, start), 3, "one does not hide another");
        assert_eq!(limits.due(start + WHILE / 2, false), []);
        assert_eq!(admitted(one, 60, start + WHILE), 50, "a new while");
        let due = limits.due(start + WHILE, false);
        assert_eq!(due.iter().map(|kind| kind.lines).collect::<Vec<_>>(), [960]);
        assert!(due[0].place.starts_with(file!()), "{due:?}");
        assert_eq!(limits.due(start + WHILE, false), []);
        assert_eq!(admitted(one, 1, start + WHILE), 0);
        assert_eq!(limits.due(start + WHILE, true).len(), 1, "at the end all is told");
        assert_eq!(limits.left_out(), 961);
    }

    #[test]
    fn a_kind_that_goes_on_all_the_time_is_told_each_while() {
        let (limits, start) = (Limits::default(), Instant::now());
        let kind = metadata(|| tracing::error!("again"));
        let mut told = Vec::new();
        for second in 0..40 {
            let now = start + Duration::from_secs(second);
            assert!((0..100).filter(|_| limits.admit(kind, now)).count() <= 50);
            told.extend(limits.due(now, false).into_iter().map(|kind| kind.lines));
        }
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.iter().all(|lines| (900..=1100).contains(lines)), "{told:?}");
    }

    #[test]
    fn what_is_below_info_was_asked_for_and_is_written() {
        let limits = Limits::default();
        let kind = metadata(|| tracing::debug!("detail"));
        assert!((0..1000).all(|_| limits.admit(kind, Instant::now())));
        assert_eq!(limits.left_out(), 0);
    }
}
