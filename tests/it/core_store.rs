//! The statements of the core on a real home database, one claim each (protocol §3 to §5).

use std::time::{Duration, Instant};

use posthaste::dev::fresh_name;
use posthaste::model::{Destination, Envelope, Incarnation, JournalState, MessageId, Mode, SlotId, TxId};
use posthaste::store::migrate::migrate;
use posthaste::store::{
    AcceptRequest, Claim, FailedAttempt, GivenUpBy, HomeCheck, HomeDecision, Inserted, LogEntry, Mark, OpenRow,
    Outgoing, PostgresSettings, Retention, SessionTimeouts, Store, settle_home,
};
use uuid::Uuid;

use crate::support::{Database, Servers, run};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// A migrated home without any process.
struct Home {
    settings: PostgresSettings,
    store: Store,
    db: Database,
    slot: SlotId,
    queue: Destination,
}

impl Home {
    async fn new() -> Self {
        let url = Servers::shared().await.postgres.lock().await.create_database(&fresh_name("core")).await.unwrap();
        let settings = PostgresSettings {
            name: "main".to_owned(),
            url: url.clone().into(),
            username: None,
            password: None,
            pool_max_size: 1,
            branches: 0,
        };
        migrate(&settings, true, &[], false).await.unwrap();
        let store = Store::new(
            std::slice::from_ref(&settings),
            &settings.name,
            Incarnation::mint(),
            SessionTimeouts::default(),
        )
        .unwrap();
        let db = Database::new(url.parse().unwrap());
        Self { settings, store, db, slot: SlotId::new("log"), queue: Destination::queue("rabbit", "q") }
    }

    async fn accept(&self, tx_id: TxId, message_id: &str, mode: Mode) -> Inserted {
        self.store.accept(&self.request(tx_id, message_id, mode)).await.unwrap()
    }

    fn request(&self, tx_id: TxId, message_id: &str, mode: Mode) -> AcceptRequest {
        let envelope = envelope(tx_id, message_id);
        let dedup_key = Some(envelope.message_id.clone());
        let log = Some(LogEntry { slot_id: self.slot.clone(), retention: DAY, dedup_key });
        let outgoing = vec![Outgoing { tx_id, destination: self.queue.clone(), mode, max_attempts: 2 }];
        AcceptRequest { sha256: envelope.sha256(), envelope, host: "here".into(), log, outgoing }
    }

    async fn accepted(&self, message_id: &str, mode: Mode) -> TxId {
        let tx_id = TxId::mint();
        assert_eq!(self.accept(tx_id, message_id, mode).await, Inserted::Yes);
        tx_id
    }

    async fn open(&self) -> Vec<OpenRow> {
        self.store.open_rows(Uuid::nil(), 100).await.unwrap()
    }

    async fn execute(&self, sql: &str) {
        self.db.rows(sql, &[]).await;
    }

    fn failed<'a>(&'a self, tx_id: TxId, n: i32, error: &'a str) -> FailedAttempt<'a> {
        let (destination, took) = (&self.queue, Duration::ZERO);
        FailedAttempt { tx_id, destination, seen: n, n, adapter: "a", step: Some("s"), error, took }
    }

    /// Starts the next attempt of a row, whoever was at it.
    async fn start(&self, tx_id: TxId) -> Option<i32> {
        let sha256 = envelope(tx_id, "any").sha256();
        self.store.start(tx_id, &self.queue, &sha256, "a", MINUTE, false).await.unwrap()
    }
}

fn envelope(tx_id: TxId, message_id: &str) -> Envelope {
    let message_id = MessageId::parse(message_id).unwrap();
    Envelope {
        tx_id,
        root_id: tx_id.into(),
        correlation_id: message_id.clone(),
        message_id,
        content_type: None,
        headers: [].into(),
        body: "body".into(),
    }
}

fn two_minutes_ago() -> TxId {
    let now = jiff::Timestamp::now().as_microsecond();
    TxId::mint_at(now - 120_000_000)
}

#[test]
fn an_open_row_that_stands_in_due_stays_there_when_it_is_marked() {
    run(async {
        let home = Home::new().await;
        let (own, handover) = (home.accepted("own", Mode::Own).await, home.accepted("other", Mode::Handover).await);
        home.store.postpone(&[own.0, handover.0], Duration::ZERO).await.unwrap();
        let mark = |tx_id, mode| Mark { tx_id, attempts: 0, mode, published_at: 1_000_000 };
        let marks = [mark(own, Mode::Own), mark(handover, Mode::Handover)];
        assert_eq!(home.store.mark(&marks, MINUTE).await.unwrap(), 2);
        // The walk may have gone by for the row in `due`: without it the loss of the queue would go unnoticed (I1, IN7).
        let due = "SELECT tx_id FROM posthaste.due WHERE at > clock_timestamp() + interval '30 seconds'";
        assert_eq!(home.db.column::<Uuid>(due, &[]).await, [own.0]);
        assert_eq!(home.db.count("posthaste.due", &[]).await, 1);
        let open = home.open().await;
        assert_eq!((open.len(), open[0].tx_id, open[0].state), (1, own, JournalState::Published));
    });
}

#[test]
fn open_rows_that_the_walk_passes_by_are_counted_all_the_same() {
    run(async {
        let home = Home::new().await;
        let first = home.accepted("1", Mode::Own).await;
        let second = home.accepted("2", Mode::Own).await;
        home.store.postpone(&[first.0], MINUTE).await.unwrap();
        let found = home.store.open_before(second.0).await.unwrap();
        let [before] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((&before.destination, before.open, before.unpublished), (&home.queue, 1, 1));
        assert_eq!(before.oldest, first.0);
    });
}

#[test]
fn an_id_that_comes_too_late_for_the_walk_is_not_accepted() {
    run(async {
        let home = Home::new().await;
        assert_eq!(home.accept(two_minutes_ago(), "late", Mode::Own).await, Inserted::Conflict);
        assert_eq!(home.store.winner(&home.slot, "late").await.unwrap(), None);
        let request = AcceptRequest { log: None, ..home.request(two_minutes_ago(), "late", Mode::Own) };
        assert!(home.store.accept(&request).await.is_err());
        for table in ["ibisstore", "posthaste.journal", "posthaste.payload"] {
            assert_eq!(home.db.count(table, &[]).await, 0, "{table}");
        }
        home.accepted("late", Mode::Own).await;
    });
}

#[test]
fn a_row_that_is_adopted_too_late_for_the_walk_is_watched() {
    run(async {
        let home = Home::new().await;
        for (tx_id, watched) in [(two_minutes_ago(), 1), (TxId::mint(), 0)] {
            assert!(home.store.adopt(&envelope(tx_id, "1"), None, &home.queue, 2).await.unwrap());
            assert_eq!(home.db.count("posthaste.due WHERE tx_id = $1", &[&tx_id.0]).await, watched);
        }
    });
}

#[test]
fn a_row_that_one_has_claimed_is_left_alone_by_another_who_saw_it_before() {
    run(async {
        let home = Home::new().await;
        home.accepted("1", Mode::Own).await;
        home.execute("UPDATE posthaste.journal SET owner = NULL, publish_after = NULL").await;
        let seen = home.open().await;
        let other = Store::new(
            std::slice::from_ref(&home.settings),
            &home.settings.name,
            Incarnation::mint(),
            SessionTimeouts::default(),
        )
        .unwrap();
        assert_eq!(home.store.claim(&seen, MINUTE).await.unwrap().len(), 1);
        assert_eq!(other.claim(&seen, MINUTE).await.unwrap().len(), 0);
    });
}

#[test]
fn a_row_whose_message_was_deleted_does_not_keep_the_others_from_being_published() {
    run(async {
        let home = Home::new().await;
        home.accepted("gone", Mode::Own).await;
        let kept = home.accepted("kept", Mode::Own).await;
        home.execute("DELETE FROM ibisstore WHERE messageid = 'gone'").await;
        let claimed = home.store.claim(&home.open().await, MINUTE).await.unwrap();
        assert_eq!(claimed.iter().map(|message| message.envelope.tx_id).collect::<Vec<_>>(), [kept]);
    });
}

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

#[test]
fn a_setting_that_a_step_changes_reaches_neither_its_commit_nor_the_next_user_of_the_connection() {
    run(async {
        let home = Home::new().await;
        // Seen when the transaction commits, and kept.
        home.execute("CREATE TABLE public.seen (setting text)").await;
        home.execute("CREATE TABLE public.t (i int)").await;
        home.execute(
            "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$",
        )
        .await;
        home.execute(
            "CREATE CONSTRAINT TRIGGER look AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION look()",
        )
        .await;
        let transaction = home.store.begin_work().await.unwrap();
        let off = "SELECT set_config('synchronous_commit', 'off', false), set_config('statement_timeout', '0', false)";
        transaction.execute_step(off, &[]).await.unwrap();
        transaction.execute_step("INSERT INTO t VALUES (1)", &[]).await.unwrap();
        transaction.commit(&home.store).await.unwrap();
        assert_eq!(home.db.column::<String>("SELECT setting FROM seen", &[]).await, ["on"]);
        // The pool has one connection.
        let show = "INSERT INTO seen VALUES (current_setting('synchronous_commit') || ' ' || current_setting('statement_timeout'))";
        let transaction = home.store.begin_work().await.unwrap();
        transaction.execute_step(show, &[]).await.unwrap();
        transaction.commit(&home.store).await.unwrap();
        let next: String = home.db.one("SELECT setting FROM seen WHERE setting LIKE '% %'", &[]).await;
        assert_eq!(next, "on 30s");
    });
}

#[test]
fn clean_up_keeps_the_whole_history_of_what_waits_for_a_person_and_leaves_nothing_of_what_does_not() {
    run(async {
        let home = Home::new().await;
        let waiting = home.accepted("waiting", Mode::Own).await;
        assert_eq!(home.start(waiting).await, Some(1));
        let slot = SlotId::new("errors");
        let failed = home.failed(waiting, 1, "no");
        assert!(home.store.give_up(&failed, &slot, "here", GivenUpBy::Attempt).await.unwrap().is_some());
        home.accepted("done", Mode::Own).await;
        let open = home.accepted("open", Mode::Own).await;
        let done = "UPDATE posthaste.journal SET state = 'DONE', finished_at = clock_timestamp()
                    WHERE state = 'READY' AND tx_id <> $1";
        home.db.rows(done, &[&open.0]).await;
        home.execute("UPDATE ibisstore SET expirydate = clock_timestamp()").await;
        home.execute("INSERT INTO posthaste.lineage SELECT root_id, tx_id, root_id, 'OUTGOING' FROM posthaste.journal")
            .await;
        tokio::time::sleep(Duration::from_millis(5)).await;

        let at_once = Retention { journal: Duration::ZERO, ..Retention::default() };
        let removed = home.store.clean_up(at_once).await.unwrap().unwrap();
        assert_eq!((removed.log, removed.journal), (1, 1), "{removed:?}");
        let logged = "SELECT messageid || ' ' || type FROM ibisstore ORDER BY messagekey";
        assert_eq!(home.db.column::<String>(logged, &[]).await, ["waiting A", "waiting E", "open A"]);
        for (table, left) in [("journal", 2), ("lineage", 2), ("attempt", 1)] {
            assert_eq!(home.db.count(&format!("posthaste.{table}"), &[]).await, left, "{table}");
        }
        // When the person has acted, the rest goes.
        home.execute("DELETE FROM ibisstore WHERE type = 'E'").await;
        let removed = home.store.clean_up(at_once).await.unwrap().unwrap();
        assert_eq!((removed.log, removed.journal), (1, 1), "{removed:?}");
        for (table, left) in [("journal", 1), ("lineage", 1), ("attempt", 0)] {
            assert_eq!(home.db.count(&format!("posthaste.{table}"), &[]).await, left, "{table}");
        }
    });
}

#[test]
fn what_a_gone_instance_was_at_work_on_is_due_at_once() {
    run(async {
        let home = Home::new().await;
        let tx_id = home.accepted("1", Mode::Own).await;
        let instance = "INSERT INTO posthaste.instance (incarnation, name, host, pid, configuration_hash)
                        VALUES ($1, 'i', 'here', 1, '')";
        home.db.rows(instance, &[&home.store.incarnation.0]).await;
        assert_eq!(home.start(tx_id).await, Some(1));
        assert_eq!(home.store.hasten_orphans().await.unwrap(), 0);
        home.store.sign_off().await.unwrap();
        assert_eq!(home.store.hasten_orphans().await.unwrap(), 1);
        assert_eq!(home.store.due_rows(10).await.unwrap().len(), 1);
    });
}

#[test]
fn a_home_that_took_the_others_place_goes_on() {
    run(async {
        let home = Home::new().await;
        home.accepted("1", Mode::Own).await;
        home.execute("UPDATE posthaste.home SET system_identifier = '1', timeline = 7").await;
        let id: Uuid = home.db.one("SELECT id FROM posthaste.home", &[]).await;
        assert!(matches!(home.store.check_home().await.unwrap(), HomeCheck::Moved { .. }));
        let settled = settle_home(&home.settings, HomeDecision::Same, "operator").await.unwrap();
        assert_eq!((settled.home.0, settled.on_hold), (id, 0));
        assert_eq!(home.store.check_home().await.unwrap(), HomeCheck::Same(settled.home));
        assert_eq!(home.open().await.len(), 1);
        let audit = "SELECT who || ' ' || what || ' ' || (detail ->> 'decision') FROM posthaste.audit";
        assert_eq!(home.db.one::<String>(audit, &[]).await, "operator home same");
    });
}

#[test]
fn a_copy_gets_an_identity_of_its_own_and_holds_what_the_original_goes_on_with() {
    run(async {
        let home = Home::new().await;
        let open = home.accepted("open", Mode::Own).await;
        let adopted = TxId::mint();
        assert!(home.store.adopt(&envelope(adopted, "adopted"), Some("x"), &home.queue, 2).await.unwrap());
        home.accepted("done", Mode::Handover).await;
        home.execute(
            "UPDATE posthaste.journal SET state = 'DONE', finished_at = clock_timestamp() WHERE mode = 'HANDOVER'",
        )
        .await;
        home.store.postpone(&[open.0], MINUTE).await.unwrap();
        let id: Uuid = home.db.one("SELECT id FROM posthaste.home", &[]).await;
        home.execute("UPDATE posthaste.home SET system_identifier = '1'").await;

        let settled = settle_home(&home.settings, HomeDecision::Copy, "operator").await.unwrap();
        assert_eq!(settled.on_hold, 2);
        assert_ne!(settled.home.0, id);
        assert_eq!(home.store.check_home().await.unwrap(), HomeCheck::Same(settled.home));
        assert_eq!(home.open().await, []);
        assert_eq!(home.db.count("posthaste.due", &[]).await, 0);
        let held = "SELECT messageid || ' ' || slotid || ' ' || convert_from(message, 'UTF8') FROM ibisstore
                    WHERE type = 'H' AND comments LIKE '%original installation owns this message%' ORDER BY 1";
        assert_eq!(home.db.column::<String>(held, &[]).await, ["adopted rabbit/q body", "open rabbit/q body"]);
        // A client's repeat still gets the duplicate answer.
        assert_eq!(home.accept(TxId::mint(), "open", Mode::Own).await, Inserted::Conflict);
        // Said twice, it does nothing more.
        assert_eq!(settle_home(&home.settings, HomeDecision::Copy, "operator").await.unwrap().on_hold, 0);
    });
}
