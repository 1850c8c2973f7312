//! A message comes in: accepted once, repeats recognised, bad requests refused without a trace (protocol §4).

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;

use crate::support::{App, SOON, Servers, eventually, run, same};

impl App {
    /// How often a text stands in `message` and in `"otherMessage"`.
    pub async fn effects(&self, text: &str) -> [i64; 2] {
        let in_message = self.db.count("message WHERE message = $1::text", &[&text]).await;
        [in_message, self.db.count(r#""otherMessage" WHERE message = $1::text"#, &[&text]).await]
    }

    /// Waits until a text stands in both tables once.
    pub async fn processed(&self, text: &str, bound: Duration) {
        let what = format!("{text} stands in both tables");
        eventually(&what, bound, async || same(self.effects(text).await, &[1, 1])).await;
    }

    /// Rows that a request can leave behind: message log and stores, journal, conflicts.
    pub async fn traces(&self) -> [i64; 3] {
        let stored = self.db.count("ibisstore", &[]).await;
        [stored, self.db.count("posthaste.journal", &[]).await, self.db.count("posthaste.conflict", &[]).await]
    }
}

#[test]
fn an_accepted_message_is_logged_and_stands_in_both_tables_once() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let reply = app.post("1000", "My first message").await;
        assert_eq!(reply.status, 202, "{reply:?}");
        assert_eq!(reply.header("location"), "/api/messages/write-db-req/1000");
        assert!(reply.header("content-type").starts_with("application/json"), "{reply:?}");
        let receipt = reply.json();
        assert_eq!((&receipt["messageId"], &receipt["correlationId"]), (&"1000".into(), &"1000".into()), "{receipt}");

        app.processed("My first message", SOON).await;
        app.settled(SOON).await;
        assert_eq!(app.effects("My first message").await, [1, 1]);
        let rows = app
            .db
            .rows(
                "SELECT type::text, slotid::text, messageid::text, correlationid::text, message,
                    abs(extract(epoch FROM expirydate - messagedate - interval '30 days'))::float8,
                    abs(extract(epoch FROM clock_timestamp() - messagedate))::float8
                 FROM ibisstore",
                &[],
            )
            .await;
        assert_eq!(rows.len(), 1);
        let texts: Vec<String> = (0..4).map(|column| rows[0].get(column)).collect();
        assert_eq!(texts, ["A", "write-db-req", "1000", "1000"]);
        assert_eq!(rows[0].get::<_, Vec<u8>>(4), b"My first message");
        assert!(rows[0].get::<_, f64>(5) < 60.0, "it expires in 30 days");
        assert!(rows[0].get::<_, f64>(6) < 600.0, "its date is now");
    });
}

#[test]
fn messages_are_processed_within_a_second() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let mut took = Vec::new();
        for number in 0..9 {
            let started = Instant::now();
            assert_eq!(app.post(&format!("quick-{number}"), &format!("quick {number}")).await.status, 202);
            app.processed(&format!("quick {number}"), SOON).await;
            took.push(started.elapsed());
        }
        took.sort();
        assert!(took[4] < Duration::from_secs(1), "half of them took longer: {took:?}");
    });
}

#[test]
fn a_repeated_id_gets_304_without_body_and_changes_nothing() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        assert_eq!(app.post("1000", "My first message").await.status, 202);
        app.processed("My first message", SOON).await;
        app.settled(SOON).await;
        let before = app.traces().await;
        let repeat = app.post("1000", "My first message").await;
        assert_eq!((repeat.status, repeat.body.as_str()), (304, ""), "{repeat:?}");
        app.settled(SOON).await;
        assert_eq!(app.traces().await, before);
        assert_eq!(app.effects("My first message").await, [1, 1]);
    });
}

#[test]
fn of_64_clients_that_post_one_new_id_at_once_one_is_accepted_ten_times_over() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        for round in 0..10 {
            let (id, body) = (format!("storm-{round}"), format!("storm {round}"));
            let replies = join_all((0..64).map(|_| app.post(&id, &body))).await;
            let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
            statuses.sort_unstable();
            assert_eq!(statuses[0], 202, "round {round}: {statuses:?}");
            assert_eq!(statuses[1..], [304; 63], "round {round}");
        }
        app.settled(SOON).await;
        for round in 0..10 {
            assert_eq!(app.effects(&format!("storm {round}")).await, [1, 1], "round {round}");
        }
        assert_eq!(app.db.count("ibisstore WHERE type = 'A'", &[]).await, 10);
        assert_eq!(app.db.count("ibisstore", &[]).await, 10);
    });
}

#[test]
fn the_same_id_with_another_body_is_answered_as_a_repeat_and_recorded_as_a_conflict() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        assert_eq!(app.post("twin", "one").await.status, 202);
        assert_eq!(app.post("twin", "another").await.status, 304);
        app.settled(SOON).await;
        assert_eq!((app.effects("one").await, app.effects("another").await), ([1, 1], [0, 0]));
        let conflicts: Vec<String> = app.db.column("SELECT dedup_key::text FROM posthaste.conflict", &[]).await;
        assert_eq!(conflicts, ["twin"]);
    });
}

#[test]
fn a_message_without_an_id_is_given_one_and_a_correlation_id_of_its_own_is_kept() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let receipt = app.post_with(&[], "no id").await;
        assert_eq!(receipt.status, 202, "{receipt:?}");
        let minted = receipt.json()["messageId"].as_str().unwrap().to_owned();
        assert!(!minted.is_empty());
        assert!(receipt.header("location").ends_with(&minted), "{receipt:?}");

        let receipt = app.post_with(&[("Message-Id", "m-1"), ("Correlation-Id", "c-1")], "both ids").await.json();
        assert_eq!((&receipt["messageId"], &receipt["correlationId"]), (&"m-1".into(), &"c-1".into()));
        let kept = "SELECT correlationid::text FROM ibisstore WHERE messageid = 'm-1'";
        assert_eq!(app.db.one::<String>(kept, &[]).await, "c-1");
        app.processed("no id", SOON).await;
        app.processed("both ids", SOON).await;
    });
}

#[test]
fn the_longest_possible_id_is_accepted_and_recognised() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let id = "~".repeat(255);
        assert_eq!(app.post_with(&[("Message-Id", &id), ("Correlation-Id", &id)], "long id").await.status, 202);
        app.processed("long id", SOON).await;
        assert_eq!(app.post(&id, "long id").await.status, 304);
    });
}

#[test]
fn ids_that_amqp_cannot_carry_get_400_and_leave_nothing() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let long = "x".repeat(256);
        for header in ["Message-Id", "Correlation-Id"] {
            for id in [long.as_str(), "two words", "tab\there", ""] {
                let reply = app.post_with(&[(header, id)], "bad id").await;
                reply.problem(400);
            }
        }
        app.settled(SOON).await;
        assert_eq!(app.traces().await, [0, 0, 0]);
    });
}

#[test]
fn unknown_paths_get_404_and_other_methods_405_and_leave_nothing() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        for path in ["/", "/api", "/api/", "/api/nothing", "/write", "/api/write/more", "/api/write/"] {
            app.api(Method::POST, path).await.problem(404);
        }
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
            let reply = app.api(method.clone(), "/api/write").await;
            reply.problem(405);
            assert!(reply.header("allow").contains("POST"), "{method}: {reply:?}");
        }
        assert_eq!(app.traces().await, [0, 0, 0]);
    });
}

#[test]
fn the_receipts_location_tells_what_became_of_the_message() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let location = app.post("where", "tell me").await.header("location").to_owned();
        let probe = async || {
            let reply = app.api(Method::GET, &location).await;
            let state = if reply.status == 200 { reply.json()["state"].clone() } else { reply.status.into() };
            same(state, &"processed".into())
        };
        eventually("the location says processed", SOON, probe).await;
        app.api(Method::GET, "/api/messages/write-db-req/nobody").await.problem(404);
        app.api(Method::GET, "/api/messages/nothing/where").await.problem(404);
    });
}
