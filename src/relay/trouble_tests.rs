use super::*;
use crate::broker::{End, Scope, WireError};

const SECOND: Duration = Duration::from_secs(1);

fn nacked() -> News {
    news(&Err(PublishError::Nacked), 1)
}

fn silent(connection: u64) -> News {
    news(&Err(PublishError::Unknown(Doubt::NoConfirm)), connection)
}

/// In trouble for a second.
fn troubled(began: Instant) -> Health {
    let mut health = Health::default();
    assert_eq!(health.hear(nacked(), began, 1), Some(Change::Began));
    health
}

#[test]
fn only_what_is_about_the_destination_is_news_of_it() {
    let end =
        |about| PublishError::Unknown(Doubt::Ended(End { about, scope: Scope::Channel, reason: "403 no".into() }));
    let returned = PublishError::Returned { reason: "312 NO_ROUTE".to_owned() };
    let nothing = [
        PublishError::NotSent(NotSent::Down("x".into())),
        PublishError::NotSent(NotSent::Blocked("x".into())),
        PublishError::NotSent(NotSent::Full),
        PublishError::NotSent(NotSent::Expired),
        PublishError::NotSent(NotSent::Closed),
        PublishError::NotSent(NotSent::Unfit(WireError::TooManyHeaders(65))),
        PublishError::Refused { reason: "406".into() },
        PublishError::Unknown(Doubt::Lost),
        PublishError::Unknown(Doubt::Unsettled),
        end(About::Message),
        end(About::Broker),
    ];
    for error in nothing {
        assert_eq!(news(&Err(error.clone()), 1), News::Nothing, "{error}");
    }
    for error in [returned, PublishError::Nacked, PublishError::Unknown(Doubt::NoConfirm), end(About::Destination)] {
        assert!(matches!(news(&Err(error.clone()), 1), News::Trouble(_)), "{error}");
    }
}

#[test]
fn in_trouble_one_message_at_a_time_is_tried_ever_more_rarely_and_the_rest_waits() {
    let began = Instant::now();
    let mut health = troubled(began);
    assert_eq!(health.admit(began, 1), Admission::Wait);
    assert_eq!(health.would_admit(began + SECOND, 1), Ok(Admission::Try));
    assert_eq!(health.admit(began + SECOND, 1), Admission::Try);
    assert_eq!(health.admit(began + SECOND, 1), Admission::Wait);
    let pauses = [0, 40, 80, 3600].map(|lasted| pause(Duration::from_secs(lasted)).as_secs());
    assert_eq!(pauses, [1, 5, 10, 15]);
    let mut now = began;
    for _ in 0..40 {
        now += LONGEST;
        assert_eq!(health.admit(now, 1), Admission::Try);
        assert_eq!(health.hear(nacked(), now, 1), None);
    }
    assert_eq!(health.would_admit(now, 1), Err(LONGEST));
}

#[test]
fn a_confirm_makes_it_well_at_once() {
    let began = Instant::now();
    let mut health = troubled(began);
    let later = began + 20 * SECOND;
    assert_eq!(health.hear(nacked(), later, 1), None);
    assert!(health.trouble(later, 1).unwrap().refuses(later));
    assert_eq!(health.hear(News::Well, later, 1), Some(Change::Ended { after: 20 * SECOND }));
    assert_eq!(health.admit(later, 1), Admission::All);
    assert_eq!(health.trouble(later, 1), None);
}

#[test]
fn new_messages_are_refused_after_a_bound_and_for_as_long_as_there_is_news() {
    let began = Instant::now();
    let mut health = troubled(began);
    assert!(!health.trouble(began + 9 * SECOND, 1).unwrap().refuses(began + 9 * SECOND));
    assert!(health.trouble(began + REFUSE_AFTER, 1).unwrap().refuses(began + REFUSE_AFTER));
    // Nothing waits that could be tried: the next message is.
    assert_eq!(health.trouble(began + FORGOTTEN, 1), None);
    assert_eq!(health.admit(began + FORGOTTEN, 1), Admission::All);
    assert_eq!(health.hear(nacked(), began + FORGOTTEN, 1), Some(Change::Began));
    assert_eq!(health.trouble(began + FORGOTTEN, 1).unwrap().since, began + FORGOTTEN);
}

#[test]
fn silence_is_the_connection_s_once_that_has_gone() {
    let now = Instant::now();
    let mut health = Health::default();
    let _began = health.hear(silent(1), now, 1);
    assert!(health.trouble(now, 1).is_some());
    assert_eq!(health.trouble(now, 2), None);
    assert_eq!(health.admit(now, 2), Admission::All);
    // A full queue stays full.
    assert!(troubled(now).trouble(now, 2).is_some());
}

#[test]
fn a_destination_that_changes_all_the_time_is_told_of_now_and_then() {
    let began = Instant::now();
    let mut health = troubled(began);
    assert!(health.hear(News::Well, began + SECOND, 1).is_some());
    for second in 2..30 {
        let now = began + second * SECOND;
        assert_eq!((health.hear(nacked(), now, 1), health.hear(News::Well, now, 1)), (None, None));
    }
    assert_eq!(health.hear(nacked(), began + TELL, 1), Some(Change::Began));
}
