//! Starting: servers that allow too few prepared transactions are refused, with what to change; a database that is down
//! is waited for by what needs it alone.

use super::{ledgers, other_server};
use crate::support::{App, LONG, Options, SOON, Servers, eventually, run};

#[test]
fn a_start_is_refused_when_a_server_allows_too_few_prepared_transactions() {
    run(async {
        let other = other_server().await;
        let mut app = App::install(Servers::shared().await, Options { beside: Some(other.clone()), ..ledgers() }).await;
        for (limit, said) in [(0, "allows 0 prepared transactions"), (15, "allows 15 prepared transactions")] {
            restart_with(&other, limit).await;
            app.run();
            assert_eq!(app.ended(LONG).await, Some(78), "{}", app.log_text());
            let log = app.log_text();
            let port = other.lock().await.port();
            for part in
                [said, &format!("127.0.0.1:{port}"), "ledgerA and ledgerB", "set max_prepared_transactions = 16"]
            {
                assert!(log.contains(part), "no {part:?} in {log}");
            }
        }
        restart_with(&other, 16).await;
        app.run();
        app.ready(LONG).await;
        assert_eq!(app.transfer("t-1", "alice", "bob", 25).await.status, 202);
        app.transferred("t-1", SOON).await;
    });
}

async fn restart_with(server: &tokio::sync::Mutex<posthaste::dev::PrivatePostgres>, limit: u32) {
    let mut server = server.lock().await;
    server.sql(&format!("ALTER SYSTEM SET max_prepared_transactions = {limit}")).await.unwrap();
    server.stop().await.unwrap();
    server.start_again().await.unwrap();
}

#[test]
fn who_writes_to_the_home_alone_starts_without_prepared_transactions() {
    run(async {
        let servers = Servers::own().await;
        restart_with(&servers.postgres, 0).await;
        let mut app = App::install(servers, Options::default()).await;
        app.run();
        app.ready(LONG).await;
        assert_eq!(app.post("1000", "home alone").await.status, 202);
        app.processed("home alone", SOON).await;
    });
}

#[test]
fn a_ledger_in_which_nothing_can_be_prepared_now_is_kept_out_until_it_can_and_is_left_clean() {
    run(async {
        let other = other_server().await;
        restart_with(&other, 16).await;
        let mut app = App::install(Servers::shared().await, Options { beside: Some(other.clone()), ..ledgers() }).await;
        let a = app.database("ledgerA");
        for number in 0..16 {
            a.batch(&format!("BEGIN; PREPARE TRANSACTION 'somebody-{number}'")).await;
        }
        app.run();
        app.ready(LONG).await;
        app.says_of_itself("maximum number of prepared transactions reached").await;
        assert_eq!(app.transfer("t-1", "alice", "bob", 25).await.status, 202);
        for number in 0..15 {
            a.batch(&format!("ROLLBACK PREPARED 'somebody-{number}'")).await;
        }
        app.transferred("t-1", LONG).await;
        let counted: i64 = app.db.one("SELECT max(attempts)::bigint FROM posthaste.journal", &[]).await;
        assert_eq!(counted, 1, "waiting is no attempt");
        assert_eq!(a.column::<String>("SELECT gid FROM pg_prepared_xacts", &[]).await, ["somebody-15"]);
    });
}

impl App {
    /// Nobody gets into one of its databases any more, and who is in it is thrown out. Answers its name.
    async fn shut(&self, entry: &str) -> String {
        let name: String = self.database(entry).one("SELECT current_database()::text", &[]).await;
        self.db.rows(&format!(r#"ALTER DATABASE "{name}" ALLOW_CONNECTIONS false"#), &[]).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        self.db.rows(end, &[&name]).await;
        name
    }

    async fn open(&self, name: &str) {
        self.db.rows(&format!(r#"ALTER DATABASE "{name}" ALLOW_CONNECTIONS true"#), &[]).await;
    }

    async fn says_of_itself(&self, what: &str) {
        let said = async || {
            let body = self.try_readyz().await.map_err(|error| error.to_string())?.body;
            if body.contains(what) { Ok(()) } else { Err(body) }
        };
        eventually(&format!("/readyz says {what:?}"), LONG, said).await;
    }
}

#[test]
fn an_instance_that_starts_while_a_ledger_is_down_serves_and_recovers_the_rest_and_takes_it_up_when_it_comes() {
    run(async {
        let mut app = App::with_notes(ledgers()).await;
        assert_eq!(app.stop().await, Some(0));
        let home: String = app.db.one("SELECT id::text FROM posthaste.home", &[]).await;
        let nobody = "00000000-0000-7000-8000-00000000dead";
        let gid = format!("posthaste:{home}:{nobody}:{nobody}:0.{nobody}");
        let a = app.database("ledgerA");
        a.batch(&format!("BEGIN; INSERT INTO account VALUES ('dora', 0); PREPARE TRANSACTION '{gid}'")).await;
        let ledger = app.shut("ledgerB").await;

        app.run();
        app.ready(LONG).await;
        app.post_note("/api/home", "n-1").await;
        app.noted("n-1", SOON).await;
        eventually("what was prepared in ledger A is rolled back", LONG, async || {
            match a.count("pg_prepared_xacts WHERE gid = $1", &[&gid]).await {
                0 => Ok(()),
                _ => Err("still prepared".to_owned()),
            }
        })
        .await;
        assert_eq!(a.count("account WHERE name = 'dora'", &[]).await, 0);
        assert_eq!(app.transfer("t-1", "alice", "bob", 25).await.status, 202);
        app.says_of_itself("waiting for database ledgerB").await;
        app.post_note("/api/home", "n-2").await;
        app.noted("n-2", SOON).await;

        app.open(&ledger).await;
        app.transferred("t-1", LONG).await;
        app.settled(LONG).await;
        let counted: i64 = app.db.one("SELECT max(attempts)::bigint FROM posthaste.journal", &[]).await;
        assert_eq!(counted, 1, "waiting is no attempt");
        app.nothing_in_doubt(SOON).await;
    });
}

#[test]
fn a_ledger_that_comes_up_without_its_tables_is_kept_out_until_it_is_migrated() {
    run(async {
        let mut app = App::with_notes(ledgers()).await;
        assert_eq!(app.stop().await, Some(0));
        let b = app.database("ledgerB");
        let record: String =
            b.one("SELECT tablename::text FROM pg_tables WHERE tablename LIKE 'schema_history_%'", &[]).await;
        b.rows(&format!(r#"ALTER TABLE posthaste."{record}" RENAME TO hidden"#), &[]).await;
        let ledger = app.shut("ledgerB").await;
        app.run();
        app.ready(LONG).await;
        assert_eq!(app.transfer("t-1", "alice", "bob", 25).await.status, 202);
        app.open(&ledger).await;
        app.says_of_itself("run `posthaste migrate`").await;
        app.post_note("/api/home", "n-1").await;
        app.noted("n-1", SOON).await;
        assert_eq!(app.moved("t-1").await, [0, 0, 0]);
        b.rows(&format!(r#"ALTER TABLE posthaste.hidden RENAME TO "{record}""#), &[]).await;
        app.transferred("t-1", LONG).await;
        app.nothing_in_doubt(SOON).await;
    });
}

#[test]
fn an_instance_that_starts_while_a_ledger_answers_nothing_serves_the_rest_and_stops_in_time() {
    run(async {
        let other = other_server().await;
        let mut app = App::with_notes(Options { beside: Some(other.clone()), ..ledgers() }).await;
        assert_eq!(app.stop().await, Some(0));
        // It takes connections, and says nothing.
        other.lock().await.pause().await.unwrap();
        app.run();
        app.ready(LONG).await;
        app.post_note("/api/home", "n-1").await;
        app.noted("n-1", SOON).await;
        app.says_of_itself("no answer within 5s").await;
        let asked = std::time::Instant::now();
        assert_eq!(app.stop().await, Some(0));
        assert!(asked.elapsed() < SOON, "it took {:?} to stop", asked.elapsed());
        other.lock().await.resume().unwrap();
        app.run();
        assert_eq!(
            eventually("a transfer is accepted", LONG, async || {
                app.accepts().await?;
                Ok(app.transfer("t-1", "alice", "bob", 25).await.status)
            })
            .await,
            202
        );
        app.transferred("t-1", LONG).await;
    });
}
