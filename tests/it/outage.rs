//! A server is gone, stopped or killed: nothing is promised that is not kept, and all is done once when it is back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{App, LONG, Options, Reply, SOON, Servers, eventually, run, same};

/// Asserts a refusal that left nothing behind, as far as the answer goes.
#[track_caller]
fn refused_with_nothing_done(reply: &Reply) {
    reply.problem(503);
    assert_eq!(reply.header("x-outcome"), "none", "{reply:?}");
    assert!(!reply.header("retry-after").is_empty(), "{reply:?}");
}

#[test]
fn without_rabbitmq_a_message_is_refused_and_accepted_when_it_is_back() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        servers.stop_rabbit().await;
        let ready = app.not_ready(SOON).await;
        assert!(ready.body.contains("rabbit"), "it names what is missing: {ready:?}");
        refused_with_nothing_done(&app.post("1003", "without a broker").await);
        assert_eq!(app.traces().await, [0, 0, 0]);
        assert_eq!(app.effects("without a broker").await, [0, 0]);

        servers.start_rabbit().await;
        app.ready(LONG).await;
        assert_eq!(app.post("1003", "without a broker").await.status, 202);
        app.processed("without a broker", SOON).await;
        app.settled(SOON).await;
        assert_eq!(app.effects("without a broker").await, [1, 1]);
    });
}

#[test]
fn without_rabbitmq_a_repeat_of_an_accepted_message_still_gets_304() {
    run(async {
        let servers = Servers::own().await;
        let app = App::start(Arc::clone(&servers)).await;
        assert_eq!(app.post("before", "before").await.status, 202);
        app.processed("before", SOON).await;
        servers.kill9_rabbit().await;
        app.not_ready(SOON).await;
        assert_eq!(app.post("before", "before").await.status, 304);
    });
}

#[test]
fn without_postgresql_a_message_is_refused_and_processed_once_when_it_is_back() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        servers.stop_postgres().await;
        let reply = app.post("1004", "without a database").await;
        reply.problem(503);
        let outcome = reply.header("x-outcome").to_owned();
        assert!(matches!(outcome.as_str(), "none" | "unknown"), "{reply:?}");

        servers.start_postgres().await;
        app.ready(LONG).await;
        let again = app.post("1004", "without a database").await.status;
        assert!(again == 202 || (again == 304 && outcome == "unknown"), "{again} after {outcome}");
        app.processed("without a database", SOON).await;
        assert_eq!(app.post("1004", "without a database").await.status, 304);
        app.settled(SOON).await;
        assert_eq!(app.effects("without a database").await, [1, 1]);
    });
}

#[test]
fn a_broker_killed_with_messages_on_their_way_costs_none_of_them() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        // The queue must be older than a moment before its broker may be killed (protocol §8).
        assert_eq!(app.post("first", "first").await.status, 202);
        app.processed("first", SOON).await;
        tokio::time::sleep(Duration::from_secs(2)).await;

        app.stop_adapter("writeDb").await;
        let mut bodies = Vec::new();
        for number in 0..20 {
            let (id, body) = (format!("way-{number}"), format!("on its way {number}"));
            assert_eq!(app.post(&id, &body).await.status, 202);
            bodies.push(body);
        }
        servers.kill9_rabbit().await;
        servers.start_rabbit().await;
        app.ready(LONG).await;
        app.start_adapter("writeDb").await;
        app.settled(LONG).await;
        for body in &bodies {
            assert_eq!(app.effects(body).await, [1, 1], "{body}");
        }
    });
}

#[test]
fn a_process_that_starts_before_its_servers_refuses_says_why_and_then_serves() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::install(Arc::clone(&servers), Options::default()).await;
        servers.stop_rabbit().await;
        servers.stop_postgres().await;
        app.run();
        let ready = app.not_ready(SOON).await;
        assert!(ready.body.contains("database"), "it names what is missing: {ready:?}");
        refused_with_nothing_done(&app.post("early", "early").await);

        servers.start_postgres().await;
        eventually("/readyz names what is still missing", SOON, async || {
            let ready = app.not_ready(SOON).await.body;
            if ready.contains("rabbit") && !ready.contains("database") { Ok(()) } else { Err(ready) }
        })
        .await;
        refused_with_nothing_done(&app.post("early", "early").await);

        servers.start_rabbit().await;
        app.ready(LONG).await;
        assert_eq!(app.post("early", "early").await.status, 202);
        app.processed("early", SOON).await;
    });
}

/// As a full disk does it for one table: the rest of the database goes on.
const NO_SPACE: &str = "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$";

#[test]
fn a_database_without_space_is_not_blamed_on_the_messages() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.db.rows(NO_SPACE, &[]).await;
        app.db.rows("CREATE TRIGGER no_space BEFORE INSERT ON message EXECUTE FUNCTION no_space()", &[]).await;
        for number in 0..20 {
            assert_eq!(app.post(&format!("space-{number}"), &format!("space {number}")).await.status, 202);
        }
        eventually("a message was started more often than it may fail", LONG, async || {
            let tried: i32 = app.db.one("SELECT max(attempts) FROM posthaste.journal", &[]).await;
            if tried > 6 { Ok(()) } else { Err(format!("{tried} starts")) }
        })
        .await;
        assert_eq!(app.error_rows().await, []);
        let sessions = app.log_text().matches("not consuming").count();
        assert!(sessions < 20, "it has patience with the database: {sessions} sessions");

        app.db.rows("DROP TRIGGER no_space ON message", &[]).await;
        app.settled(LONG).await;
        for number in 0..20 {
            assert_eq!(app.effects(&format!("space {number}")).await, [1, 1]);
        }
    });
}

#[test]
fn a_process_killed_right_after_the_202_finishes_the_message_when_it_is_back() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        for round in 0..5 {
            let body = format!("round {round}");
            assert_eq!(app.post(&body.replace(' ', "-"), &body).await.status, 202);
            app.kill9().await;
            app.run();
            app.ready(LONG).await;
        }
        app.settled(LONG).await;
        for round in 0..5 {
            assert_eq!(app.effects(&format!("round {round}")).await, [1, 1]);
        }
        assert_eq!(app.error_rows().await, []);
    });
}

#[test]
fn a_graceful_stop_answers_what_is_in_hand_and_ends_with_0() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        for number in 0..20 {
            assert_eq!(app.post(&format!("stop-{number}"), &format!("stop {number}")).await.status, 202);
        }
        let asked = Instant::now();
        assert_eq!(app.stop().await, Some(0));
        assert!(asked.elapsed() < SOON, "nothing was left to do, and it took {:?}", asked.elapsed());
        eventually("no session of it is left", SOON, async || {
            let sessions =
                "pg_stat_activity WHERE application_name LIKE 'posthaste:%' AND datname = current_database()";
            same(app.db.count(sessions, &[]).await, &0)
        })
        .await;
        app.run();
        app.ready(LONG).await;
        app.settled(LONG).await;
        for number in 0..20 {
            assert_eq!(app.effects(&format!("stop {number}")).await, [1, 1]);
        }
    });
}
