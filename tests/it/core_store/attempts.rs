//! Who is told of a row, counts its attempts and ends them.

use std::time::{Duration, Instant};

use posthaste::model::{Incarnation, Mode, SlotId, TxId};
use posthaste::store::{Claim, Excuse, FailedAttempt, GivenUpBy, SessionTimeouts, Start, Store};

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
        let excuse = async |store: &Store, n| store.excuse(&home.failed(tx_id, n, "no space"), Excuse::Database).await;
        let other = home.other();
        assert!(!excuse(&other, 1).await.unwrap(), "not his attempt");
        assert!(!excuse(&home.store, 0).await.unwrap(), "an attempt of before");
        assert!(excuse(&home.store, 1).await.unwrap());
        assert!(!excuse(&home.store, 1).await.unwrap(), "made up for already");

        let row = home.store.journal_row(tx_id, MINUTE).await.unwrap().unwrap();
        assert_eq!((row.attempts, row.max_attempts, row.running_by), (1, 3, None));
        assert_eq!(home.told().await, ["1 FAILED: no space"]);

        // Both of its own attempts are left, and no more.
        for n in [2, 3] {
            assert_eq!(home.start(tx_id).await, Some(n));
        }
        assert_eq!(home.start(tx_id).await, None);
    });
}

impl Home {
    fn other(&self) -> Store {
        let (settings, name) = (std::slice::from_ref(&self.settings), &self.settings.name);
        Store::new(settings, name, Incarnation::mint(), SessionTimeouts::default()).unwrap()
    }

    /// The attempts, in words.
    async fn told(&self) -> Vec<String> {
        let words = "SELECT concat(n, ' ', outcome, ': ' || error) FROM posthaste.attempt ORDER BY n";
        self.db.column(words, &[]).await
    }

    /// Ends an instance that is at work on a row.
    async fn gone(&self, store: &Store, told_to_stop: bool) {
        let sql =
            "INSERT INTO posthaste.instance (incarnation, name, host, pid, configuration_hash, state, stopping_at)
                   VALUES ($1, 'n', 'h', 1, '', 'FENCED', CASE WHEN $2 THEN clock_timestamp() END)";
        self.db.rows(sql, &[&store.incarnation.0, &told_to_stop]).await;
    }

    async fn began(&self, store: &Store, tx_id: TxId, alone: bool) -> Start {
        let sha256 = envelope(tx_id, "any").sha256();
        store.start(&self.wanted(tx_id, &sha256, alone)).await.unwrap()
    }
}

#[test]
fn what_an_instance_that_was_told_to_stop_left_running_does_not_count_and_what_another_left_does() {
    run(async {
        let home = Home::new().await;
        let tx_id = home.accepted("1", Mode::Own).await;
        // More often than it has attempts.
        for n in 1..=5 {
            let stopped = home.other();
            assert_eq!(home.began(&stopped, tx_id, true).await, Start::Begun { n, max_attempts: 1 + n });
            home.gone(&stopped, true).await;
            let row = home.store.journal_row(tx_id, MINUTE).await.unwrap().unwrap();
            assert_eq!((row.attempts, row.max_attempts, row.runner_lives), (n, 2 + n, false));
        }
        let died = home.other();
        assert_eq!(home.began(&died, tx_id, true).await, Start::Begun { n: 6, max_attempts: 7 });
        home.gone(&died, false).await;
        assert_eq!(home.began(&home.store, tx_id, false).await, Start::Alone, "a process has died in it");
        assert_eq!(home.start(tx_id).await, Some(7));
        let told = home.told().await;
        assert_eq!(told[..5], [1, 2, 3, 4, 5].map(|n| format!("{n} STOPPED: the instance was stopped")));
        assert_eq!(told[5..], ["6 CRASHED", "7 RUNNING"]);
        assert_eq!(home.start(tx_id).await, None);
    });
}

#[test]
fn a_message_that_its_instance_was_trying_when_it_was_stopped_is_given_back_with_a_word() {
    run(async {
        let home = Home::new().await;
        let tx_id = home.accepted("1", Mode::Own).await;
        let first = FailedAttempt { seen: 0, ..home.failed(tx_id, 1, "the instance was stopped") };
        assert!(home.store.excuse(&first, Excuse::Stop).await.unwrap());
        assert!(!home.store.excuse(&first, Excuse::Stop).await.unwrap(), "once");
        let row = home.store.journal_row(tx_id, MINUTE).await.unwrap().unwrap();
        assert_eq!((row.attempts, row.max_attempts, row.due), (1, 3, true));
        assert_eq!(home.told().await, ["1 STOPPED: the instance was stopped"]);
    });
}

#[test]
fn who_was_noted_by_a_process_that_died_goes_alone_and_has_an_attempt_behind_it() {
    run(async {
        let home = Home::new().await;
        let [died, stopped] = [home.other(), home.other()];
        let [one, other, fresh] = [
            home.accepted("1", Mode::Own).await,
            home.accepted("2", Mode::Own).await,
            home.accepted("3", Mode::Own).await,
        ];
        let all = [one, other, fresh];
        assert_eq!(stopped.note_in_hand(&all[1..2], &home.queue).await.unwrap().len(), 1);
        assert_eq!(died.note_in_hand(&all, &home.queue).await.unwrap(), [one, fresh].into(), "not what others have");
        home.gone(&stopped, true).await;
        assert_eq!(died.note_in_hand(&all, &home.queue).await.unwrap(), [other].into(), "not twice");
        home.gone(&died, false).await;
        assert!(home.store.note_in_hand(&all, &home.queue).await.unwrap().is_empty());
        assert_eq!(home.began(&home.store, one, false).await, Start::Alone);
        assert_eq!(home.start(one).await, Some(2));
        assert_eq!(home.told().await, ["1 CRASHED: the process ended while it was tried among others", "2 RUNNING"]);
    });
}

#[test]
fn who_has_but_one_attempt_or_was_excused_twice_is_tried_alone() {
    run(async {
        let home = Home::new().await;
        let tx_id = home.accepted("1", Mode::Own).await;
        home.execute("UPDATE posthaste.journal SET max_attempts = 1").await;
        assert!(home.store.note_in_hand(&[tx_id], &home.queue).await.unwrap().is_empty());
        assert_eq!(home.began(&home.store, tx_id, false).await, Start::Alone);
        home.execute("UPDATE posthaste.journal SET max_attempts = 3").await;
        assert_eq!(home.began(&home.store, tx_id, false).await, Start::Begun { n: 1, max_attempts: 3 });
        assert!(home.store.retry_excused(&home.failed(tx_id, 1, "again"), Duration::ZERO).await.unwrap());
        assert_eq!(home.began(&home.store, tx_id, false).await, Start::Alone);
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
