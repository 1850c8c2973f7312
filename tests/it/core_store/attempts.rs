//! Who is told of a row, counts its attempts and ends them.

use std::time::{Duration, Instant};

use posthaste::model::{Incarnation, Mode, SlotId};
use posthaste::store::{Claim, GivenUpBy, SessionTimeouts, Store};

use super::{Home, MINUTE, envelope};
use crate::support::run;

#[test]
fn whoever_claims_a_row_is_told_whether_a_process_may_have_died_of_it() {
    run(async {
        let home = Home::new().await;
        let tx_id = home.accepted("1", Mode::Own).await;
        let suspect = async || home.store.claim(&home.open().await, MINUTE).await.unwrap()[0].suspect;
        assert!(suspect().await, "never counted");
        assert_eq!(home.start(tx_id).await, Some(1));
        assert!(suspect().await, "started and not ended");
        assert!(home.store.retry(&home.failed(tx_id, 1, "no"), Duration::ZERO).await.unwrap());
        assert!(!suspect().await, "ended by itself");
    });
}

#[test]
fn an_attempt_that_the_database_ended_is_made_up_for_once_and_only_by_its_runner() {
    run(async {
        let home = Home::new().await;
        let tx_id = home.accepted("1", Mode::Own).await;
        assert_eq!(home.start(tx_id).await, Some(1));
        let (settings, name) = (std::slice::from_ref(&home.settings), &home.settings.name);
        let other = Store::new(settings, name, Incarnation::mint(), SessionTimeouts::default()).unwrap();
        assert!(!other.excuse(tx_id, &home.queue, 1, "no space", 9).await.unwrap(), "not his attempt");
        assert!(!home.store.excuse(tx_id, &home.queue, 0, "no space", 9).await.unwrap(), "an attempt of before");
        assert!(!home.store.excuse(tx_id, &home.queue, 1, "no space", 2).await.unwrap(), "excused often enough");
        assert!(home.store.excuse(tx_id, &home.queue, 1, "no space", 9).await.unwrap());
        assert!(!home.store.excuse(tx_id, &home.queue, 1, "no space", 9).await.unwrap(), "made up for already");

        let row = home.store.journal_row(tx_id, MINUTE).await.unwrap().unwrap();
        assert_eq!((row.attempts, row.max_attempts, row.running_by), (1, 3, None));
        let told: String = home.db.one("SELECT outcome || ': ' || error FROM posthaste.attempt", &[]).await;
        assert_eq!(told, "FAILED: no space");

        // Both of its own attempts are left, and no more.
        for n in [2, 3] {
            assert_eq!(home.start(tx_id).await, Some(n));
        }
        assert_eq!(home.start(tx_id).await, None);
    });
}

#[test]
fn the_error_store_has_the_last_attempts_own_words_when_it_takes_the_message_later() {
    run(async {
        let home = Home::new().await;
        let tx_id = home.accepted("1", Mode::Own).await;
        for n in [1, 2] {
            assert_eq!(home.start(tx_id).await, Some(n));
            let words = format!("reason {n}");
            assert!(home.store.retry(&home.failed(tx_id, n, &words), Duration::ZERO).await.unwrap());
        }
        // I7: what the error store refused is not tried again by the pipeline.
        assert_eq!(home.start(tx_id).await, None);
        let looked = home.failed(tx_id, 2, "the process ended");
        let slot = SlotId::new("errors");
        assert!(home.store.give_up(&looked, &slot, "here", GivenUpBy::Observer).await.unwrap().is_some());
        let comments: String = home.db.one("SELECT comments::text FROM ibisstore WHERE type = 'E'", &[]).await;
        assert_eq!(comments, "reason 2");
        let outcomes = "SELECT outcome || ': ' || error FROM posthaste.attempt ORDER BY n";
        assert_eq!(home.db.column::<String>(outcomes, &[]).await, ["FAILED: reason 1", "FAILED: reason 2"]);
    });
}

#[test]
fn an_attempt_that_ended_without_a_word_is_recorded_as_crashed() {
    run(async {
        let home = Home::new().await;
        let tx_id = home.accepted("1", Mode::Own).await;
        assert_eq!(home.start(tx_id).await, Some(1));
        let looked = home.failed(tx_id, 1, "the process ended");
        let slot = SlotId::new("errors");
        assert!(home.store.give_up(&looked, &slot, "here", GivenUpBy::Observer).await.unwrap().is_some());
        let outcome = "SELECT outcome || ': ' || error FROM posthaste.attempt";
        assert_eq!(home.db.one::<String>(outcome, &[]).await, "CRASHED: the process ended");
    });
}

#[test]
fn an_observer_does_not_wait_for_a_row_that_somebody_holds() {
    run(async {
        let home = Home::new().await;
        let tx_id = home.accepted("1", Mode::Own).await;
        let sha256 = envelope(tx_id, "1").sha256();
        let claim = Claim { tx_id, destination: &home.queue, attempts: 0, started: false, sha256: &sha256 };
        let holder = home.store.begin_work().await.unwrap();
        assert_eq!(holder.take(&home.store, claim).await.unwrap(), Some(2));
        let began = Instant::now();
        let slot = SlotId::new("errors");
        let error =
            home.store.give_up(&home.failed(tx_id, 0, "no"), &slot, "here", GivenUpBy::Observer).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("55P03"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        holder.commit(&home.store).await.unwrap();
    });
}
