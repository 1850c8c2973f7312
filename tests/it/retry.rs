//! What fails is tried again, whole, and in the end kept with its reason (protocol §5, F6, F7, F9).

use reqwest::Method;

use crate::support::{App, Options, SOON, Servers, eventually, run, same};

pub const STOPPED: &str = "writeTableOtherMessage";

/// The attempts of a message in order: n, outcome, step, error.
const ATTEMPTS: &str = "SELECT a.n, a.outcome, coalesce(a.step, ''), coalesce(a.error, '')
    FROM posthaste.attempt a
    WHERE a.tx_id IN (SELECT tx_id FROM posthaste.journal WHERE root_id =
        (SELECT root_id FROM ibisstore WHERE messageid = $1 AND type = 'A'))
    ORDER BY a.started_at, a.n";

#[derive(Debug, PartialEq)]
pub struct Attempt {
    pub n: i32,
    pub outcome: String,
    pub step: String,
    pub error: String,
}

/// A row of type E.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorRow {
    pub key: i64,
    pub slot: String,
    pub message_id: String,
    pub correlation_id: String,
    pub body: Vec<u8>,
    pub comments: String,
}

impl App {
    pub async fn attempts(&self, message_id: &str) -> Vec<Attempt> {
        let rows = self.db.rows(ATTEMPTS, &[&message_id]).await;
        let read = |row: &tokio_postgres::Row| Attempt {
            n: row.get(0),
            outcome: row.get(1),
            step: row.get(2),
            error: row.get(3),
        };
        rows.iter().map(read).collect()
    }

    pub async fn error_rows(&self) -> Vec<ErrorRow> {
        let sql =
            "SELECT messagekey, slotid::text, messageid::text, correlationid::text, message, coalesce(comments, '')
            FROM ibisstore WHERE type = 'E' ORDER BY messagekey";
        let rows = self.db.rows(sql, &[]).await;
        let read = |row: &tokio_postgres::Row| ErrorRow {
            key: row.get(0),
            slot: row.get(1),
            message_id: row.get(2),
            correlation_id: row.get(3),
            body: row.get(4),
            comments: row.get(5),
        };
        rows.iter().map(read).collect()
    }

    /// Waits until the one row of type E is that of this message, and everything else is settled.
    pub async fn in_error(&self, message_id: &str) -> ErrorRow {
        let what = format!("{message_id} is in the error store");
        let row = eventually(&what, SOON, async || match self.error_rows().await.as_slice() {
            [row] if row.message_id == message_id => Ok(row.clone()),
            other => Err(format!("{other:?}")),
        })
        .await;
        self.settled(SOON).await;
        row
    }

    pub async fn stop_adapter(&self, adapter: &str) {
        let reply = self.console(Method::POST, &format!("/api/v1/adapters/{adapter}/stop")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    pub async fn start_adapter(&self, adapter: &str) {
        let reply = self.console(Method::POST, &format!("/api/v1/adapters/{adapter}/start")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

#[test]
fn a_stopped_adapter_is_stopped_everywhere_it_is_shown_and_after_a_restart() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        assert_eq!(app.adapter_state(STOPPED).await, "STARTED");
        app.stop_adapter(STOPPED).await;
        assert_eq!(app.adapter_state(STOPPED).await, "STOPPED");
        assert_eq!(app.adapter_state("writeTableMessage").await, "STARTED");

        let listed = app.command(&["adapter", "list", "--output", "json"]);
        assert!(listed.status.success(), "{listed:?}");
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        let shown = listed.to_string();
        let adapters = if listed.is_array() { &listed } else { &listed["items"] };
        let entry = adapters.as_array().unwrap().iter().find(|entry| entry["name"] == STOPPED);
        assert_eq!(entry.unwrap()["state"], "STOPPED", "{shown}");

        assert_eq!(app.stop().await, Some(0));
        app.run();
        app.ready(SOON).await;
        let probe = async || same(app.adapter_state(STOPPED).await, &"STOPPED".to_owned());
        eventually("the stop outlives the process", SOON, probe).await;
        app.start_adapter(STOPPED).await;
        assert_eq!(app.adapter_state(STOPPED).await, "STARTED");
    });
}

#[test]
fn an_unknown_adapter_cannot_be_stopped() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.console(Method::POST, "/api/v1/adapters/nobody/stop").await.problem(404);
    });
}

#[test]
fn a_stopped_sub_adapter_costs_six_attempts_each_rolled_back_whole_and_then_an_error_row() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.stop_adapter(STOPPED).await;
        assert_eq!(app.post("1001", "My second message").await.status, 202);
        let row = app.in_error("1001").await;
        assert_eq!((row.slot.as_str(), row.correlation_id.as_str()), ("write-db", "1001"));
        assert_eq!(row.body, b"My second message");
        assert!(row.comments.contains(STOPPED), "it names the pipe: {}", row.comments);
        assert!(row.comments.to_lowercase().contains("stopped"), "it names the reason: {}", row.comments);
        assert_eq!(app.effects("My second message").await, [0, 0]);

        let attempts = app.attempts("1001").await;
        assert_eq!(attempts.iter().map(|attempt| attempt.n).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        for attempt in &attempts {
            assert_eq!(attempt.outcome, "FAILED", "{attempt:?}");
            assert!(attempt.step.contains(STOPPED), "{attempt:?}");
            assert!(attempt.error.to_lowercase().contains("stopped"), "{attempt:?}");
        }
        // The write to the first table took part in each attempt, and each was undone: the identity has moved on.
        let drawn: i64 = app.db.one("SELECT last_value FROM message_id_seq", &[]).await;
        assert_eq!(drawn, 6);
        assert_eq!(app.db.count("ibisstore WHERE type = 'A' AND messageid = '1001'", &[]).await, 1);
    });
}

#[test]
fn the_trace_and_the_error_store_tell_the_same_story_through_the_api() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.stop_adapter(STOPPED).await;
        app.post("1001", "My second message").await;
        let row = app.in_error("1001").await;

        let listed = app.errors().await;
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert_eq!(listed[0]["key"].to_string().trim_matches('"'), row.key.to_string());
        assert_eq!((&listed[0]["type"], &listed[0]["slotId"]), (&"E".into(), &"write-db".into()));
        assert_eq!((&listed[0]["messageId"], &listed[0]["correlationId"]), (&"1001".into(), &"1001".into()));
        assert_eq!(listed[0]["comments"], row.comments.as_str());
        assert_eq!(listed[0]["attempts"], 6);

        let trace = app.get("/api/v1/messages/1001").await;
        assert_eq!((&trace["messageId"], &trace["state"]), (&"1001".into(), &"error".into()), "{trace}");
        let [message] = trace["messages"].as_array().unwrap().as_slice() else { panic!("{trace}") };
        assert!(message["rootId"].is_string(), "{trace}");
        let attempts = message["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 6, "{trace}");
        for (attempt, n) in attempts.iter().zip(1..) {
            assert_eq!((&attempt["n"], &attempt["outcome"]), (&n.into(), &"FAILED".into()), "{attempt}");
            assert!(attempt["step"].as_str().unwrap().contains(STOPPED), "{attempt}");
            assert!(attempt["error"].as_str().unwrap().to_lowercase().contains("stopped"), "{attempt}");
            assert!(attempt["startedAt"].is_string() && attempt["finishedAt"].is_string(), "{attempt}");
        }
        let stored = message["store"].as_array().unwrap().iter().map(|row| row["type"].as_str().unwrap());
        assert_eq!(stored.collect::<Vec<_>>(), ["A", "E"], "{trace}");
    });
}

#[test]
fn a_body_that_does_not_fit_is_retried_and_kept_with_the_databases_own_words() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let body = "x".repeat(31);
        assert_eq!(app.post("1002", &body).await.status, 202);
        let row = app.in_error("1002").await;
        assert!(row.comments.contains("value too long for type character varying(30)"), "{}", row.comments);
        assert_eq!(row.body, body.as_bytes());
        assert_eq!(app.attempts("1002").await.len(), 6);
        assert_eq!(app.effects(&body).await, [0, 0]);
        assert_eq!(app.post("1002", &body).await.status, 304);
    });
}

#[test]
fn a_poison_message_does_not_hold_up_its_neighbours() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let poison = "x".repeat(31);
        for number in 0..10 {
            assert_eq!(app.post(&format!("poison-{number}"), &poison).await.status, 202);
            assert_eq!(app.post(&format!("good-{number}"), &format!("good {number}")).await.status, 202);
        }
        for number in 0..10 {
            app.processed(&format!("good {number}"), SOON).await;
        }
        app.settled(SOON).await;
        assert_eq!(app.error_rows().await.len(), 10);
    });
}

#[test]
fn an_adapter_that_is_started_in_time_lets_a_later_attempt_succeed() {
    run(async {
        let options = Options { retry_delays: Some("[500ms, 2s]"), ..Options::default() };
        let app = App::start_with(Servers::shared().await, options).await;
        app.stop_adapter(STOPPED).await;
        assert_eq!(app.post("later", "later").await.status, 202);
        let failed = async || if app.attempts("later").await.is_empty() { Err("none".to_owned()) } else { Ok(()) };
        eventually("a first attempt has failed", SOON, failed).await;
        app.start_adapter(STOPPED).await;
        app.processed("later", SOON).await;
        app.settled(SOON).await;
        assert_eq!(app.error_rows().await, []);
        assert!(app.attempts("later").await.len() < 6);
    });
}
