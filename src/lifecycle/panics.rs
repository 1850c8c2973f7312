//! A panic as an outcome, and what may be told of it.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Longest text of a panic that is told.
const LONGEST: usize = 200;

/// Awaits work and answers the panic that ended it, told without what it may quote. For work whose locals are dropped with
/// it: what it shares with others must be right at every moment.
///
/// # Errors
/// It has panicked.
pub fn caught<T>(work: impl Future<Output = T>) -> impl Future<Output = Result<T, String>> {
    // Not as an async function: it would hold the work twice.
    AssertUnwindSafe(work).catch_unwind().map(|ended| ended.map_err(|panic| text(&*panic)))
}

/// Writes each panic as a log line with its place, instead of as it stands to standard error: it may quote a message.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, reason = text(panic.payload()), "a panic: a fault of this program");
    }));
}

/// What a panic says, without what it may quote: a text that was put together is told up to its first quotation mark.
fn text(panic: &(dyn Any + Send)) -> String {
    let whole = match (panic.downcast_ref::<&'static str>(), panic.downcast_ref::<String>()) {
        (Some(fixed), _) => fixed,
        (None, Some(made)) => made.split(['"', '`', '\'', '\n']).next().unwrap_or_default(),
        (None, None) => "no text",
    };
    whole.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_does_not_panic_has_its_outcome() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_is_told_with_its_text() {
        let ended: Result<(), String> = caught(async { panic!("a `fixed` text") }).await;
        assert_eq!(ended, Err("a `fixed` text".to_owned()));
        let ended: Result<(), String> = caught(async { panic!("the len is {} but the index is {}", 3, 7) }).await;
        assert_eq!(ended, Err("the len is 3 but the index is 7".to_owned()));
        let ended: Result<(), String> = caught(async { std::panic::resume_unwind(Box::new(7)) }).await;
        assert_eq!(ended, Err("no text".to_owned()));
    }

    #[derive(Debug)]
    struct Secret(usize);

    impl std::str::FromStr for Secret {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, String> {
            text.parse().map(Self).map_err(|_| text.to_owned())
        }
    }

    #[tokio::test]
    async fn what_a_panic_quotes_is_not_told() {
        let secret = "äsecret".to_owned();
        let inside_a_letter: Result<(&str, &str), String> = caught(async { secret.split_at(1) }).await;
        let unwrapped: Result<usize, String> = caught(async { secret.parse::<Secret>().unwrap().0 }).await;
        let unequal: Result<(), String> = caught(async { assert_eq!(secret, "other") }).await;
        for told in [inside_a_letter.unwrap_err(), unwrapped.unwrap_err(), unequal.unwrap_err()] {
            assert!(!told.is_empty() && !told.contains("secret"), "{told}");
        }
    }

    #[tokio::test]
    async fn a_long_text_is_cut_and_stays_in_one_line() {
        let long = "ä".repeat(1000);
        let ended: Result<(), String> = caught(async { panic!("{long}") }).await;
        assert_eq!(ended.unwrap_err().chars().count(), LONGEST);
        let ended: Result<(), String> = caught(async { panic!("two\nlines\t") }).await;
        assert_eq!(ended, Err("two lines".to_owned()));
    }
}
