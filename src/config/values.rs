//! The forms of single values: durations, sizes, numbers, words, names. Pure functions from text.

use std::time::Duration;

/// Why a text is not the value that was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Completes "`key` must be …".
    pub expected: String,
    pub help: String,
}

impl Wrong {
    pub fn new(expected: impl Into<String>, help: impl Into<String>) -> Self {
        Self { expected: expected.into(), help: help.into() }
    }
}

const DURATION_FORMS: &str = "write a whole number and a unit: 250ms, 5s, 10m, 1h or 30d";
const SIZE_FORMS: &str = "write bytes, or a whole number and a unit: 65536, 64KiB, 1MiB";
const SCHEME_FORMS: &str = "1mx5,1hx24 waits one minute five times, then an hour 24 times; units are s, m, h and d";

/// The most attempts that a `retryScheme` or `maxRetries` can ask for.
pub(super) const MAX_RETRIES: u32 = 10_000;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) fn flag(text: &str) -> Result<bool, Wrong> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Wrong::new("true or false", "")),
    }
}

pub(super) fn number(text: &str, least: u64, most: u64) -> Result<u64, Wrong> {
    let digits = text.chars().all(|c| c.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|n| digits && (least..=most).contains(n))
        .ok_or_else(|| Wrong::new(format!("a whole number from {least} to {most}"), ""))
}

/// Longer than nothing, at most a year.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || Wrong::new("a duration", DURATION_FORMS);
    let (digits, unit) = split_unit(text).ok_or_else(wrong)?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let duration = digits.parse().ok().and_then(|n: u64| n.checked_mul(millis)).map(Duration::from_millis);
    match duration {
        Some(duration) if duration > Duration::ZERO && duration <= YEAR => Ok(duration),
        _ => Err(Wrong::new("a duration from 1ms to 365d", DURATION_FORMS)),
    }
}

pub(super) fn duration_between(text: &str, least: Duration, most: Duration) -> Result<Duration, Wrong> {
    let value = duration(text)?;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Wrong::new(format!("from {} to {}", show_duration(least), show_duration(most)), ""))
}

/// In the largest unit that keeps it whole.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
        .iter()
        .find(|(_, size)| millis >= *size && millis.is_multiple_of(*size))
        .map_or_else(|| format!("{millis}ms"), |(unit, size)| format!("{}{unit}", millis / size))
}

pub(super) fn size(text: &str, most: u64) -> Result<usize, Wrong> {
    let wrong = || Wrong::new("a size", SIZE_FORMS);
    let (digits, unit) =
        if text.chars().all(|c| c.is_ascii_digit()) { (text, "") } else { split_unit(text).ok_or_else(wrong)? };
    let bytes: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let size = digits.parse().ok().and_then(|n: u64| n.checked_mul(bytes));
    let size = size.filter(|size| (1..=most).contains(size)).and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| Wrong::new(format!("from 1 byte to {}", show_size(most)), SIZE_FORMS))
}

/// In the largest unit that keeps it whole.
pub(super) fn show_size(bytes: u64) -> String {
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        .iter()
        .find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size))
        .map_or_else(|| format!("{bytes} bytes"), |(unit, size)| format!("{}{unit}", bytes / size))
}

/// `item(,item)*`, an item being `<int>(s|m|h|d)x<int>` (N4): every single wait, in order.
pub(super) fn retry_scheme(text: &str) -> Result<Vec<Duration>, Wrong> {
    let mut waits = Vec::new();
    for item in text.split(',').map(str::trim) {
        let wrong = || Wrong::new("a retry scheme", format!("`{item}` is no item of one. {SCHEME_FORMS}"));
        let (wait, times) = item.split_once('x').ok_or_else(wrong)?;
        if wait.ends_with("ms") {
            return Err(wrong());
        }
        let wait = duration(wait).map_err(|_| wrong())?;
        let times = number(times, 1, u64::from(MAX_RETRIES)).map_err(|_| wrong())?;
        waits.extend(std::iter::repeat_n(wait, usize::try_from(times).unwrap_or(0)));
        if waits.len() > usize::try_from(MAX_RETRIES).unwrap_or(0) {
            return Err(Wrong::new(format!("at most {MAX_RETRIES} waits altogether"), SCHEME_FORMS));
        }
    }
    Ok(waits)
}

/// One of some words, as written.
pub(super) fn word<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, Wrong> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    Err(Wrong::new(one_of(&names), did_you_mean(text, names.iter().copied()).unwrap_or_default()))
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn one_of(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// A name for an entry, an adapter or a step: it stands in urls, tables, logs and metrics.
pub(super) fn name(text: &str) -> Result<(), Wrong> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=100).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('.') {
        return Ok(());
    }
    Err(Wrong::new(
        "1 to 100 letters (a-z, A-Z), digits, `_`, `-` or `.`",
        "it stands in urls, logs and metrics; it does not start with `.`",
    ))
}

/// A role of PostgreSQL, which cuts off longer names and keeps `none` for itself.
pub(super) fn role(text: &str) -> Result<(), Wrong> {
    if (1..=63).contains(&text.len()) && !text.contains('\0') && text != "none" {
        return Ok(());
    }
    Err(Wrong::new(
        "the name of a role, of 1 to 63 bytes",
        "as it stands in pg_roles, without quotes; leave the key out for the role that the user has by itself",
    ))
}

pub(super) fn slot_id(text: &str) -> Result<(), Wrong> {
    let visible = text.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    if (1..=100).contains(&text.len()) && visible && !matches!(text, "." | "..") {
        return Ok(());
    }
    Err(Wrong::new(
        "1 to 100 visible ASCII characters",
        "no spaces, no accents, and not `.` or `..`: it stands in urls",
    ))
}

pub(super) fn queue_name(text: &str) -> Result<(), Wrong> {
    if (1..=255).contains(&text.len()) && !text.chars().any(char::is_control) && !text.starts_with("amq.") {
        return Ok(());
    }
    Err(Wrong::new("a queue's name of at most 255 bytes", "names that start with `amq.` are the broker's own"))
}

/// The valid name that somebody who wrote `text` most likely meant.
pub(super) fn did_you_mean<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let lower = text.to_lowercase();
    names
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1.max(name.chars().count().max(lower.chars().count()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| format!("did you mean `{name}`?"))
}

fn split_unit(text: &str) -> Option<(&str, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
    text.split_at_checked(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_whole_numbers_with_a_unit() {
        for (text, millis) in
            [("250ms", 250), ("5s", 5000), ("10m", 600_000), ("1h", 3_600_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "1.5s", "-5s", "5S", "5sec", "0s", "366d", "99999999999999999999d", "５s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        let size = |text| size(text, 1 << 40);
        assert_eq!(size("65536"), Ok(65536));
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        for text in ["", "0", "1MB", "1 MiB", "-1", "1.5MiB", "99999999999999999999", "2000GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_retry_scheme_is_every_wait_in_order() {
        let waits = retry_scheme("1mx5,1hx24,1dx7").unwrap();
        assert_eq!(waits.len(), 36);
        assert_eq!(waits[4], Duration::from_secs(60));
        assert_eq!(waits[5], Duration::from_secs(3600));
        assert_eq!(waits[35], Duration::from_secs(86400));
        for text in ["", "1m", "1mx", "x5", "1mx0", "1msx5", "1mx5,", "1mx5;1hx2", "1mx10001", "1mx9999,1mx9999"] {
            assert!(retry_scheme(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_close_by_is_proposed_and_a_distant_one_is_not() {
        let near = |text| did_you_mean(text, ["maxRetries", "receiver", "api"].into_iter());
        assert_eq!(near("maxretrys").as_deref(), Some("did you mean `maxRetries`?"));
        assert_eq!(near("API").as_deref(), Some("did you mean `api`?"));
        assert_eq!(near("listener"), None);
    }

    proptest! {
        #[test]
        fn a_shown_duration_reads_back_as_itself(millis in 1_u64..31_536_000_000) {
            let value = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(value)), Ok(value));
        }

        #[test]
        fn no_text_is_taken_that_does_not_start_with_a_digit(text in "[^0-9]\\PC*") {
            prop_assert!(duration(&text).is_err());
            prop_assert!(size(&text, 1 << 30).is_err());
            prop_assert!(retry_scheme(&text).is_err());
            prop_assert!(number(&text, 0, 9).is_err());
        }
    }
}
