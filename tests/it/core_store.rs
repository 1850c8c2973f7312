//! The statements of the core on a real home database, one claim each (protocol §3 to §5).

mod ahead;
mod attempts;
mod copies;
mod found;
mod homes;
mod small_plans;

use std::time::Duration;

use posthaste::dev::fresh_name;
use posthaste::model::{Destination, Envelope, Incarnation, JournalState, MessageId, Mode, SlotId, TxId};
use posthaste::store::migrate::migrate;
use posthaste::store::{
    AcceptRequest, FailedAttempt, GivenUpBy, Inserted, LogEntry, Mark, OpenRow, Outgoing, PostgresSettings, Retention,
    SessionTimeouts, Start, StartRequest, Store,
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
        let home = Self::at(&url);
        migrate(&home.settings, true, &[], &mut Vec::new()).await.unwrap();
        home
    }

    /// The one that stands there.
    fn at(url: &str) -> Self {
        let settings = PostgresSettings {
            name: "main".to_owned(),
            url: url.to_owned().into(),
            username: None,
            password: None,
            role: None,
            pool_max_size: 1,
            branches: 0,
        };
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

    /// What a sweeper finds, in `unsettled` or in `due`; the time to look is come.
    async fn open(&self) -> Vec<OpenRow> {
        let mut open = self.store.look_through(Uuid::nil(), 100).await.unwrap().rows;
        self.execute("UPDATE posthaste.due SET at = clock_timestamp()").await;
        open.extend(
            self.store
                .due_rows(100)
                .await
                .unwrap()
                .into_iter()
                .filter(|row| open.iter().all(|one| one.tx_id != row.tx_id))
                .collect::<Vec<_>>(),
        );
        open
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
        match self.store.start(&self.wanted(tx_id, &sha256, true)).await.unwrap() {
            Start::Begun { n, .. } => Some(n),
            Start::NotNow => None,
            Start::Alone => panic!("it is alone"),
        }
    }

    fn wanted<'a>(&'a self, tx_id: TxId, sha256: &'a [u8], alone: bool) -> StartRequest<'a> {
        let (destination, adapter, watch) = (&self.queue, "a", MINUTE);
        StartRequest { tx_id, destination, sha256, adapter, watch, max_attempts: 2, alone }
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

#[test]
fn an_open_row_that_stands_in_due_stays_there_when_it_is_marked() {
    run(async {
        let home = Home::new().await;
        let (own, handover) = (home.accepted("own", Mode::Own).await, home.accepted("other", Mode::Handover).await);
        home.store.postpone(&[own.0, handover.0], Duration::ZERO).await.unwrap();
        let mark = |tx_id, mode| Mark { tx_id, attempts: 0, mode, published_at: 1_000_000 };
        let marks = [mark(own, Mode::Own), mark(handover, Mode::Handover)];
        assert_eq!(home.store.mark(&marks, MINUTE).await.unwrap(), 2);
        // Its entry may be gone for the row in `due`: without it the loss of the queue would go unnoticed (I1, IN7).
        let due = "SELECT tx_id FROM posthaste.due WHERE at > clock_timestamp() + interval '30 seconds'";
        assert_eq!(home.db.column::<Uuid>(due, &[]).await, [own.0]);
        assert_eq!(home.db.count("posthaste.due", &[]).await, 1);
        let open = home.open().await;
        assert_eq!((open.len(), open[0].tx_id, open[0].state), (1, own, JournalState::Published));
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
