//! Transactions over several databases, from outside (protocol §6): `examples/two-databases`, and adapters of our own.

mod alone;
mod by_hand;
mod kills;
mod outage;
mod roles;
mod shared;
mod start;
mod steps;

use std::sync::Arc;
use std::time::Instant;

use posthaste::dev::{self, PrivatePostgres};
use tokio::sync::Mutex;

use crate::support::{App, Application, LONG, Options, SOON, Servers, eventually, run, same};

/// What a decision says of a branch that is prepared here under the gid `$1`.
const BRANCHES: &str = "SELECT jsonb_build_array(jsonb_build_object('gid', gid, 'xid', transaction::text::bigint,
        'place', (pg_control_system()).system_identifier::text || '/' || current_database(), 'timeline',
        ('x' || lpad(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 16, '0'))::bit(64)::bigint))
    FROM pg_prepared_xacts WHERE gid = $1";

/// A PostgreSQL for the ledgers alone, to stop and to kill.
async fn other_server() -> Arc<Mutex<PrivatePostgres>> {
    Arc::new(Mutex::new(PrivatePostgres::start(&dev::Options::default()).await.unwrap()))
}

fn ledgers() -> Options {
    Options { application: Application::TwoDatabases, ..Options::default() }
}

impl App {
    /// `two-databases` on the shared servers, running.
    async fn with_ledgers() -> Self {
        Self::start_with(Servers::shared().await, ledgers()).await
    }

    /// Waits until a transfer stands in the history and in both ledgers, once.
    async fn transferred(&self, id: &str, bound: std::time::Duration) {
        let what = format!("{id} stands everywhere");
        eventually(&what, bound, async || same(self.moved(id).await, &[1, 1, 1])).await;
    }
}

#[test]
fn a_transfer_is_committed_in_all_three_databases_once_and_leaves_nothing_in_doubt() {
    run(async {
        let mut app = App::with_ledgers().await;
        assert_eq!(app.transfer("t-1", "alice", "bob", 25).await.status, 202);
        app.transferred("t-1", SOON).await;
        assert_eq!(app.transfer("t-1", "alice", "bob", 25).await.status, 304);
        app.settled(SOON).await;
        assert_eq!(app.moved("t-1").await, [1, 1, 1]);
        assert_eq!(app.money().await, [1_999_975, 25]);
        app.nothing_in_doubt(SOON).await;
        assert_eq!(app.books().await, Vec::<String>::new());
        let asked = Instant::now();
        assert_eq!(app.stop().await, Some(0));
        assert!(asked.elapsed() < SOON, "nothing was left to do, and it took {:?}", asked.elapsed());
        assert!(!app.log_text().contains("recovered a prepared transaction"), "nothing was left to the janitor");
    });
}

#[test]
fn a_step_that_fails_in_the_second_database_undoes_the_first_and_the_home_and_can_be_resent() {
    run(async {
        let app = App::with_ledgers().await;
        assert_eq!(app.transfer("t-1", "alice", "carol", 25).await.status, 202);
        let row = app.in_error("t-1").await;
        assert!(row.comments.contains("step book of transfer > giveToB"), "{}", row.comments);
        assert!(row.comments.contains("booking_account_fkey"), "{}", row.comments);
        assert_eq!((app.moved("t-1").await, app.money().await), ([0, 0, 0], [2_000_000, 0]));
        app.nothing_in_doubt(SOON).await;

        app.database("ledgerB").rows("INSERT INTO account VALUES ('carol', 0)", &[]).await;
        let resent = app.command(&["store", "resend", "transfer", "--message-id", "t-1"]);
        assert!(resent.status.success(), "{resent:?}");
        assert_eq!((app.moved("t-1").await, app.money().await), ([1, 1, 1], [1_999_975, 25]));
        assert_eq!(app.error_rows().await, []);
        app.nothing_in_doubt(SOON).await;
    });
}

#[test]
fn an_account_without_the_money_and_a_transfer_of_nothing_move_nothing() {
    run(async {
        let app = App::with_ledgers().await;
        for (id, amount) in [("poor", 1_000_001), ("nothing", 0), ("robbery", -5)] {
            assert_eq!(app.transfer(id, "alice", "bob", amount).await.status, 202);
        }
        assert_eq!(app.post("prose", "twenty-five, please").await.status, 202);
        eventually("all four are in the error store", SOON, async || same(app.error_rows().await.len(), &4)).await;
        app.settled(SOON).await;
        for id in ["poor", "nothing", "robbery", "prose"] {
            assert_eq!(app.moved(id).await, [0, 0, 0], "{id}");
        }
        assert_eq!(app.money().await, [2_000_000, 0]);
        app.nothing_in_doubt(SOON).await;
    });
}

#[test]
fn a_deferred_constraint_that_fails_at_prepare_undoes_what_the_other_database_has_prepared() {
    run(async {
        let app = App::with_ledgers().await;
        let deferred = "ALTER TABLE booking ALTER CONSTRAINT booking_account_fkey DEFERRABLE INITIALLY DEFERRED";
        app.database("ledgerB").rows(deferred, &[]).await;
        assert_eq!(app.transfer("t-1", "alice", "carol", 25).await.status, 202);
        let row = app.in_error("t-1").await;
        assert!(row.comments.contains("step commit of transfer"), "{}", row.comments);
        assert!(row.comments.contains("booking_account_fkey"), "{}", row.comments);
        assert_eq!((app.moved("t-1").await, app.money().await), ([0, 0, 0], [2_000_000, 0]));
        app.nothing_in_doubt(SOON).await;
        assert_eq!(app.transfer("t-2", "alice", "bob", 25).await.status, 202);
        app.transferred("t-2", SOON).await;
    });
}

#[test]
fn many_transfers_at_once_keep_the_books() {
    run(async {
        let app = App::with_ledgers().await;
        let posts = (0..200).map(|number| {
            let (app, from, to) = (&app, ["alice", "anna"][number % 2], ["bob", "ben", "carol"][number % 3]);
            async move { app.transfer(&format!("many-{number}"), from, to, 1).await.status }
        });
        let statuses = futures_util::future::join_all(posts).await;
        assert_eq!(statuses, vec![202; 200]);
        app.settled(LONG).await;
        let lost = (0..200).filter(|number| number % 3 == 2).count();
        assert_eq!(app.error_rows().await.len(), lost);
        assert_eq!(app.db.count("history", &[]).await, i64::try_from(200 - lost).unwrap());
        assert_eq!(app.books().await, Vec::<String>::new());
        app.nothing_in_doubt(SOON).await;
    });
}

#[test]
fn the_checker_of_the_books_finds_each_kind_of_fault() {
    run(async {
        let app = App::with_ledgers().await;
        assert_eq!(app.transfer("t-1", "alice", "bob", 25).await.status, 202);
        app.transferred("t-1", SOON).await;
        let (a, b) = (app.database("ledgerA"), app.database("ledgerB"));
        for (place, spoil, mend) in [
            (
                &a,
                "UPDATE account SET balance = balance + 1 WHERE name = 'anna'",
                "UPDATE account SET balance = balance - 1 WHERE name = 'anna'",
            ),
            (&b, "DELETE FROM booking", "INSERT INTO booking VALUES ('t-1', 'bob', 25)"),
            (&a, "DELETE FROM booking", "INSERT INTO booking VALUES ('t-1', 'alice', -25)"),
            (&a, "UPDATE booking SET amount = -24", "UPDATE booking SET amount = -25"),
            (&app.db, "DELETE FROM history", "INSERT INTO history VALUES ('t-1', 'alice', 'bob', 25)"),
            (
                &app.db,
                "INSERT INTO history VALUES ('t-2', 'alice', 'bob', 1)",
                "DELETE FROM history WHERE transfer = 't-2'",
            ),
        ] {
            place.rows(spoil, &[]).await;
            assert_ne!(app.books().await, Vec::<String>::new(), "{spoil}");
            place.rows(mend, &[]).await;
            assert_eq!(app.books().await, Vec::<String>::new(), "{mend}");
        }
    });
}

#[test]
fn a_graceful_stop_amid_transfers_leaves_nothing_prepared_and_no_decision() {
    run(async {
        let mut app = App::with_ledgers().await;
        for number in 0..20 {
            assert_eq!(app.transfer(&format!("stop-{number}"), "alice", "bob", 1).await.status, 202);
        }
        assert_eq!(app.stop().await, Some(0));
        assert_eq!(app.prepared().await, Vec::<String>::new());
        assert_eq!(app.db.count("posthaste.decision", &[]).await, 0);
        assert_eq!(app.books().await, Vec::<String>::new());
        app.run();
        app.ready(LONG).await;
        app.settled(LONG).await;
        assert_eq!(app.money().await, [1_999_980, 20]);
        app.nothing_in_doubt(SOON).await;
    });
}
