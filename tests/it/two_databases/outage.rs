//! One of several databases is down: what needs it waits, everything else goes on (protocol §§5, 6: DQ6, MD6).

use std::time::Duration;

use super::{ledgers, other_server};
use crate::support::{App, LONG, Options, SOON, eventually, run, same};

impl App {
    /// How often an attempt was rolled back so far.
    fn tries(&self) -> usize {
        self.log_text().matches("rolled back").count()
    }
}

#[test]
fn while_a_ledger_is_down_transfers_wait_uncounted_and_everything_else_goes_on() {
    run(async {
        let other = other_server().await;
        let app = App::with_notes(Options { beside: Some(other.clone()), ..ledgers() }).await;
        other.lock().await.stop().await.unwrap();
        for number in 0..20 {
            assert_eq!(app.transfer(&format!("t-{number}"), "alice", "bob", 5).await.status, 202);
        }
        app.post_note("/api/home", "n-1").await;
        app.noted("n-1", SOON).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        // At most what was in hand when the ledger went: eight threads, once.
        assert!((1..=16).contains(&app.tries()), "{} tries in 8 s", app.tries());
        let counted = "posthaste.journal WHERE destination = 'rabbit/transfers' AND attempts > 0";
        assert_eq!(app.db.count(counted, &[]).await, 0);
        assert_eq!((app.db.count("history", &[]).await, app.error_rows().await), (0, vec![]));
        app.post_note("/api/home", "n-2").await;
        app.noted("n-2", SOON).await;

        other.lock().await.start_again().await.unwrap();
        for number in 0..20 {
            app.transferred(&format!("t-{number}"), LONG).await;
        }
        app.settled(LONG).await;
        assert_eq!(app.books().await, Vec::<String>::new());
        app.nothing_in_doubt(SOON).await;
    });
}

#[test]
fn an_accepting_pipeline_whose_second_database_is_down_answers_503_none_and_accepts_when_it_is_back() {
    run(async {
        let other = other_server().await;
        let app = App::with_notes(Options { beside: Some(other.clone()), ..ledgers() }).await;
        other.lock().await.stop().await.unwrap();
        let refused = app.post_to("/api/open", "carol", "").await;
        refused.problem(503);
        assert_eq!(refused.header("x-outcome"), "none");
        let left = app.db.count("ibisstore WHERE messageid = 'carol'", &[]).await;
        assert_eq!((left, app.db.count("note", &[]).await), (0, 0));
        other.lock().await.start_again().await.unwrap();
        assert_eq!(app.post_to("/api/open", "carol", "").await.status, 202);
        assert_eq!(app.database("ledgerA").count("account WHERE name = 'carol'", &[]).await, 1);
        app.noted("carol", SOON).await;
        app.nothing_in_doubt(SOON).await;
    });
}

#[test]
fn a_home_that_was_away_serves_its_own_again_while_a_ledger_is_still_down() {
    run(async {
        let other = other_server().await;
        let mut app = App::with_notes(Options { beside: Some(other.clone()), ..ledgers() }).await;
        // Whoever takes a note is at work when the home goes.
        app.db.rows("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN NEW; END $$", &[]).await;
        app.db.rows("CREATE TRIGGER slow BEFORE INSERT ON note FOR EACH ROW EXECUTE FUNCTION slow()", &[]).await;
        app.post_note("/api/home", "n-1").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        other.lock().await.stop().await.unwrap();
        app.servers.kill9_postgres().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        app.servers.start_postgres().await;
        app.ready(LONG).await;
        app.noted("n-1", LONG).await;
        app.post_note("/api/home", "n-2").await;
        app.noted("n-2", LONG).await;
    });
}

#[test]
fn a_ledger_that_goes_between_decision_and_commit_gets_its_part_when_it_is_back() {
    run(async {
        let other = other_server().await;
        let app = App::with_notes(Options { beside: Some(other.clone()), ..ledgers() }).await;
        // As a coordinator leaves it that dies after its decision: decided at home, prepared there.
        let home: String = app.db.one("SELECT id::text FROM posthaste.home", &[]).await;
        let dead = "00000000-0000-7000-8000-00000000dead";
        let gid = |branch: u8, gtrid: &str| format!("posthaste:{home}:{dead}:{gtrid}:{branch}.{gtrid}");
        let (decided, undecided) = ("00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002");
        let a = app.database("ledgerA");
        // The janitor shall not see it before the server is down.
        app.freeze().await;
        for (gtrid, account) in [(decided, "kept"), (undecided, "undone")] {
            let prepare =
                format!("BEGIN; INSERT INTO account VALUES ('{account}', 0); PREPARE TRANSACTION '{}'", gid(0, gtrid));
            a.batch(&prepare).await;
        }
        let branches: serde_json::Value = a.one(super::BRANCHES, &[&gid(0, decided)]).await;
        app.db
            .rows(
                &format!(
                    "INSERT INTO posthaste.decision (gtrid, incarnation, outcome, tx_id, branches)
                     VALUES ('{decided}', '{dead}', 'COMMIT', '{decided}', '{branches}')"
                ),
                &[],
            )
            .await;
        other.lock().await.stop().await.unwrap();
        app.thaw();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let forced = ["txn", "resolve", &gid(0, decided), "commit", "--reason", "impatience", "--force"];
        assert_eq!(app.command(&forced).status.code(), Some(75), "a server that is away has lost nothing");
        assert_eq!(app.db.count("posthaste.decision", &[]).await, 1, "kept while a branch may need it");
        other.lock().await.start_again().await.unwrap();
        app.nothing_in_doubt(LONG).await;
        let accounts: Vec<String> = a.column("SELECT name FROM account WHERE name IN ('kept', 'undone')", &[]).await;
        same(accounts, &vec!["kept".to_owned()]).unwrap();
    });
}

#[test]
fn an_adapter_is_stopped_also_while_its_database_is_down() {
    run(async {
        let other = other_server().await;
        let app = App::with_notes(Options { beside: Some(other.clone()), ..ledgers() }).await;
        other.lock().await.stop().await.unwrap();
        assert_eq!(app.transfer("t-1", "alice", "bob", 5).await.status, 202);
        let waits =
            async || if app.adapter_state("transfer").await == "STARTED" { Err("STARTED".to_owned()) } else { Ok(()) };
        eventually("its receiver waits for the database", LONG, waits).await;
        let stopped = app.command(&["adapter", "stop", "transfer"]);
        assert!(stopped.status.success(), "{stopped:?}");
        other.lock().await.start_again().await.unwrap();
        assert!(app.command(&["adapter", "start", "transfer"]).status.success());
        app.transferred("t-1", LONG).await;
    });
}

#[test]
fn nothing_is_accepted_or_processed_once_the_home_is_another_server_than_before() {
    run(async {
        let app = App::with_notes(ledgers()).await;
        // As a fail-over shows itself, between two heart-beats and without an error.
        app.db.rows("UPDATE posthaste.home SET timeline = timeline + 1", &[]).await;
        let moved = async || {
            let refused = app.post_to("/api/home", "n-1", "").await;
            same((refused.status, refused.header("x-outcome").to_owned()), &(503, "none".to_owned()))
        };
        eventually("it is refused", SOON, moved).await;
        assert!(app.console(reqwest::Method::GET, "/readyz").await.body.contains("migrate --home same"));
        app.db.rows("UPDATE posthaste.home SET timeline = timeline - 1", &[]).await;
        let back = async || same(app.post_to("/api/home", "n-2", "").await.status, &202);
        eventually("it goes on", LONG, back).await;
        app.noted("n-2", LONG).await;
    });
}
