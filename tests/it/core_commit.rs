//! What is sent together with COMMIT and PREPARE TRANSACTION, and to whom, on real servers (protocol §5, §6).

use std::time::Duration;

use posthaste::dev::{self, PrivatePostgres, fresh_name};
use posthaste::model::{HomeId, Incarnation, TxId};
use posthaste::store::migrate::migrate;
use posthaste::store::{BranchTransaction, PostgresSettings, SessionTimeouts, StepCall, Store, StoreError, Target};
use posthaste::txn::ports::{Decided, Decision, HomeTransaction, Participant, Prepared};
use posthaste::txn::protocol::Outcome;
use posthaste::txn::{Gid, Gtrid};
use uuid::Uuid;

use crate::support::{Database, SOON, Servers, eventually, run};

/// A home and a database beside it, without any process.
struct Pair {
    store: Store,
    home: Database,
    other: Database,
}

impl Pair {
    async fn new() -> Self {
        let servers = Servers::shared().await;
        let server = servers.postgres.lock().await;
        let home = server.create_database(&fresh_name("core")).await.unwrap();
        let other = server.create_database(&fresh_name("core")).await.unwrap();
        drop(server);
        migrate(&entry("main", &home), true, &[], &mut Vec::new()).await.unwrap();
        let store = store(&home, &other);
        store.databases.admit("other").await.unwrap();
        let [home, other] = [home, other].map(|url| Database::new(url.parse().unwrap()));
        for database in [&home, &other] {
            database.rows("CREATE TABLE public.effect (word text)", &[]).await;
        }
        Self { store, home, other }
    }

    /// Enters this incarnation into the home in this state.
    async fn is(&self, state: &str) {
        let row = "INSERT INTO posthaste.instance (incarnation, name, host, pid, configuration_hash, state)
                   VALUES ($1, '', '', 0, '', $2)";
        self.home.rows("DELETE FROM posthaste.instance", &[]).await;
        self.home.rows(row, &[&self.store.incarnation.0, &state]).await;
    }

    fn decision(&self) -> Decision {
        Decision {
            gtrid: Gtrid::mint(),
            incarnation: self.store.incarnation,
            outcome: Outcome::Commit,
            tx_id: TxId(Uuid::new_v4()),
            others: Vec::new(),
            branches: Vec::new(),
        }
    }

    async fn effects(&self) -> [i64; 2] {
        [self.home.count("effect", &[]).await, self.other.count("effect", &[]).await]
    }
}

fn entry(name: &str, url: &str) -> PostgresSettings {
    let (name, url) = (name.to_owned(), url.to_owned().into());
    PostgresSettings { name, url, username: None, password: None, role: None, pool_max_size: 1, branches: 8 }
}

fn store(home: &str, other: &str) -> Store {
    let entries = [entry("main", home), entry("other", other)];
    Store::new(&entries, "main", Incarnation::mint(), SessionTimeouts::default()).unwrap()
}

async fn branch(store: &Store) -> Result<BranchTransaction, StoreError> {
    match store.databases.target("other").unwrap() {
        Target::Branch(database) => database.begin().await,
        Target::Home => panic!("it is the home"),
    }
}

fn gid(store: &Store, tx_id: TxId) -> Gid {
    Gid { home: HomeId(Uuid::new_v4()), incarnation: store.incarnation, gtrid: Gtrid::mint(), branch: 0, tx_id }
}

const INSERT: &str = "INSERT INTO effect VALUES ('done')";

#[test]
fn a_broken_transaction_is_neither_committed_nor_prepared_and_its_connection_is_used_again() {
    run(async {
        let pair = Pair::new().await;
        for _again in 0..2 {
            let transaction = pair.store.begin_work().await.unwrap();
            transaction.execute_step(INSERT, &[]).await.unwrap();
            transaction.execute_step("SELECT 1 / 0", &[]).await.unwrap_err();
            let error = transaction.commit(&pair.store).await.unwrap_err();
            assert!(error.to_string().contains("rolled back") && error.to_string().contains("25P02"), "{error}");

            let mut branch = branch(&pair.store).await.unwrap();
            branch.execute_step(INSERT, &[]).await.unwrap();
            branch.execute_step("SELECT 1 / 0", &[]).await.unwrap_err();
            match branch.prepare(&gid(&pair.store, TxId(Uuid::new_v4()))).await {
                Prepared::Refused(error) => assert_eq!(error.sqlstate(), Some("25P02"), "{error}"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pair.effects().await, [0, 0]);
        assert_eq!(pair.other.count("pg_prepared_xacts WHERE database = current_database()", &[]).await, 0);
    });
}

#[test]
fn a_decision_of_an_incarnation_that_is_not_live_commits_nothing() {
    run(async {
        let pair = Pair::new().await;
        for state in [None, Some("FENCED"), Some("LIVE")] {
            if let Some(state) = state {
                pair.is(state).await;
            }
            let transaction = pair.store.begin_work().await.unwrap();
            transaction.execute_step(INSERT, &[]).await.unwrap();
            let decided = transaction.on_its_way(&pair.store).decide(&pair.decision()).await;
            let expected = i64::from(state == Some("LIVE"));
            match decided {
                Decided::Yes => assert_eq!(expected, 1),
                Decided::No(StoreError::Unreachable(reason)) => {
                    assert_eq!(expected, 0);
                    assert!(reason.contains("another instance has taken over"), "{reason}");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(pair.home.count("effect", &[]).await, expected, "{state:?}");
            assert_eq!(pair.home.count("posthaste.decision", &[]).await, expected, "{state:?}");
        }
    });
}

#[test]
fn a_role_that_a_step_has_taken_on_does_not_keep_the_decision_out() {
    run(async {
        let pair = Pair::new().await;
        pair.is("LIVE").await;
        let transaction = pair.store.begin_work().await.unwrap();
        transaction.execute_step(INSERT, &[]).await.unwrap();
        transaction.execute_step("SELECT set_config('role', 'pg_monitor', false)", &[]).await.unwrap();
        match transaction.on_its_way(&pair.store).decide(&pair.decision()).await {
            Decided::Yes => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(pair.home.count("effect", &[]).await, 1);
        assert_eq!(pair.home.count("posthaste.decision", &[]).await, 1);
        // The next one on this connection is itself again.
        let transaction = pair.store.begin_work().await.unwrap();
        transaction.execute_step(INSERT, &[]).await.unwrap();
        transaction.commit(&pair.store).await.unwrap();
    });
}

#[test]
fn a_branch_says_what_it_has_written_after_each_step() {
    run(async {
        let pair = Pair::new().await;
        let mut branch = branch(&pair.store).await.unwrap();
        branch.execute_step("SELECT 1", &[]).await.unwrap();
        assert_eq!(branch.wrote().await.unwrap(), None);
        branch.execute_step(INSERT, &[]).await.unwrap();
        let mark = branch.wrote().await.unwrap().unwrap();
        branch.execute_step("SELECT 1", &[]).await.unwrap();
        assert_eq!(branch.wrote().await.unwrap(), Some(mark));
        branch.end().await;
        assert_eq!(pair.other.count("effect", &[]).await, 1);
        let status: String = pair.other.one("SELECT pg_xact_status($1::text::xid8)", &[&mark.xid.to_string()]).await;
        assert_eq!(status, "committed");
    });
}

#[test]
fn many_calls_in_a_branch_are_done_in_order_and_the_first_that_fails_is_named() {
    run(async {
        let pair = Pair::new().await;
        let calls = |texts: &[&'static str]| -> Vec<StepCall<'static>> {
            texts.iter().map(|sql| StepCall::Query { sql, params: Vec::new(), rows: None }).collect()
        };
        let mut one = branch(&pair.store).await.unwrap();
        let texts = [INSERT, "INSERT INTO effect SELECT word || 'er' FROM effect", INSERT];
        one.execute_all(&calls(&texts).iter().collect::<Vec<_>>()).await.unwrap();
        assert!(one.wrote().await.unwrap().is_some(), "asked behind them all");
        one.end().await;
        assert_eq!(pair.other.count("effect", &[]).await, 3);
        assert_eq!(pair.other.count("effect WHERE word LIKE '%er'", &[]).await, 1);

        let mut two = branch(&pair.store).await.unwrap();
        let texts = [INSERT, "SELECT 1 / 0", INSERT];
        let failed = two.execute_all(&calls(&texts).iter().collect::<Vec<_>>()).await.unwrap_err();
        assert_eq!((failed.at, failed.error.sqlstate()), (1, Some("22012")));
        two.roll_back().await;
        assert_eq!(pair.other.count("effect", &[]).await, 3);
    });
}

#[test]
fn a_server_that_takes_the_place_of_the_admitted_one_gets_no_branch() {
    run(async {
        let mut one = PrivatePostgres::start(&dev::Options::default()).await.unwrap();
        let another = PrivatePostgres::start(&dev::Options::default()).await.unwrap();
        for server in [&one, &another] {
            server.sql("CREATE ROLE mover LOGIN PASSWORD 'mover'").await.unwrap();
            server.sql("CREATE DATABASE moved OWNER mover").await.unwrap();
        }
        // The second is asked once the first is gone.
        let url = format!("postgres://mover:mover@127.0.0.1:{},127.0.0.1:{}/moved", one.port(), another.port());
        let store = store("postgres://127.0.0.1/nobody-asks-the-home", &url);
        store.databases.admit("other").await.unwrap();
        let mut first = branch(&store).await.unwrap();
        first.execute_step("SELECT 1", &[]).await.unwrap();
        first.end().await;
        one.stop().await.unwrap();
        eventually("the other server is told from the first", SOON, async || match branch(&store).await {
            Ok(_branch) => Err("a branch".to_owned()),
            Err(StoreError::Unreachable(reason)) if reason.contains("is another one now") => Ok(()),
            Err(error) => Err(error.to_string()),
        })
        .await;
        one.start_again().await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), branch(&store)).await.unwrap().unwrap();
    });
}
