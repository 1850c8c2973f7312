//! `/readyz` tells the truth: what was lately refused, since when, and until it is over (ADR 25).

use std::sync::Arc;

use jiff::Timestamp;
use posthaste::dev::fresh_name;
use reqwest::Method;
use tokio::net::TcpStream;

use crate::stops::{AT_THE_GATE, GATE};
use crate::support::{App, LONG, Options, SOON, Servers, eventually, run, same};

/// Accepting by a pipeline that calls another adapter.
const NOTES: &str = "adapters:
  - name: noteNow
    receiver: { listener: { api: { uriPattern: /note } }, messageLog: { slotId: note-req } }
    pipeline: [ { name: call, call: { adapter: note } } ]
  - name: note
    transactionAttribute: Mandatory
    pipeline:
      - { name: insert, query: { database: main, sql: 'INSERT INTO message (message) VALUES ($1)', params: [ payload ] } }
";

/// One of its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reason {
    part: String,
    what: String,
    since: Timestamp,
}

impl App {
    async fn reasons(&self) -> Result<Vec<Reason>, String> {
        let page = self.try_readyz().await.map_err(|error| error.to_string())?.json();
        let text = |one: &serde_json::Value, key: &str| one[key].as_str().unwrap().to_owned();
        let reason = |one| Reason {
            part: text(one, "part"),
            what: text(one, "what"),
            since: text(one, "since").parse().unwrap(),
        };
        Ok(page["reasons"].as_array().unwrap().iter().map(reason).collect())
    }

    /// Why it does not do its part, once it says so in these words.
    async fn told(&self, part: &str, words: &str) -> Reason {
        eventually(&format!("/readyz tells of {words:?}"), LONG, async || {
            let reasons = self.reasons().await?;
            let found = reasons.iter().find(|one| one.part == part && one.what.contains(words));
            found.cloned().ok_or_else(|| format!("{reasons:?}"))
        })
        .await
    }

    async fn is_well(&self) {
        eventually("/readyz has nothing to tell", LONG, async || same(self.reasons().await?, &Vec::new())).await;
    }

    /// Statements that write into this table are refused so.
    async fn refuse(&self, what: &str, table: &str, sqlstate: &str) {
        self.db
            .batch(&format!(
                "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{sqlstate}'; END $$;
                 CREATE OR REPLACE TRIGGER refuse BEFORE {what} ON {table} EXECUTE FUNCTION refuse()"
            ))
            .await;
    }

    async fn allow(&self, table: &str) {
        self.db.batch(&format!("DROP TRIGGER refuse ON {table}")).await;
    }
}

#[test]
fn what_the_database_lately_refused_is_told_since_the_first_refusal_until_it_would_be_taken() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        for sqlstate in ["53100", "25006", "42501"] {
            app.refuse("INSERT", "ibisstore", sqlstate).await;
            let before = Timestamp::now();
            let refused = app.post(&format!("first-{sqlstate}"), "refused").await;
            refused.problem(503);
            assert_eq!(refused.header("x-outcome"), "none");
            let after = Timestamp::now();
            let reason = app.told("accepting", sqlstate).await;
            assert!((before..=after).contains(&reason.since), "{before} {reason:?} {after}");
            assert!(reason.what.contains("writeDbAsync") && reason.what.contains("on purpose"), "{reason:?}");
            app.not_ready(SOON).await;
            app.post(&format!("second-{sqlstate}"), "refused").await.problem(503);
            assert_eq!(app.told("accepting", sqlstate).await, reason, "it is the same trouble");

            app.allow("ibisstore").await;
            // Nobody sends anything.
            app.ready(LONG).await;
            app.is_well().await;
        }
        assert_eq!(app.traces().await, [0, 0, 0], "tries leave nothing");
        assert_eq!(app.post("after", "after").await.status, 202);
        app.processed("after", SOON).await;
    });
}

#[test]
fn what_the_database_says_of_one_message_is_no_trouble_of_others() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.is_well().await;
        for sqlstate in ["22021", "23514", "P0001"] {
            app.refuse("INSERT", "ibisstore", sqlstate).await;
            app.post(sqlstate, "refused").await.problem(503);
            assert_eq!(app.reasons().await, Ok(Vec::new()), "{sqlstate}");
        }
    });
}

#[test]
fn an_accepting_pipeline_whose_log_is_refused_is_told_until_it_would_be_taken() {
    run(async {
        let mut app = with_notes().await;
        app.refuse("INSERT", "ibisstore", "53100").await;
        app.post_to("/api/note", "one", "one").await.problem(503);
        app.told("accepting", "noteNow are refused").await;
        app.allow("ibisstore").await;
        app.ready(LONG).await;
        assert_eq!(app.db.count("message", &[]).await, 0);
        assert_eq!(app.post_to("/api/note", "one", "one").await.status, 202);
    });
}

#[test]
fn too_many_connections_are_told_while_the_heart_beats_on() {
    run(async {
        let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
        let (user, password, name) = (fresh_name("few"), fresh_name("secret"), app.db.name().to_owned());
        app.db
            .batch(&format!(
                r#"CREATE ROLE "{user}" LOGIN PASSWORD '{password}'; GRANT ALL ON DATABASE "{name}" TO "{user}";
                   GRANT ALL ON SCHEMA public TO "{user}""#
            ))
            .await;
        app.log_in_as(&user, &password, None);
        app.migrate();
        app.run();
        app.ready(LONG).await;
        app.db.batch(&format!(r#"ALTER ROLE "{user}" CONNECTION LIMIT 0"#)).await;
        app.post("one", "one").await.problem(503);
        let reason = app.told("accepting", "SQLSTATE 53300").await;
        assert!(reason.what.contains("messages of adapter writeDbAsync are refused"), "{reason:?}");
        let lines = app.log_has("PostgreSQL refused a session").await;
        assert!(lines[0].contains("53300") && lines[0].contains("main"), "{lines:?}");
        assert!(!app.log_text().contains(&password));

        app.db.batch(&format!(r#"ALTER ROLE "{user}" CONNECTION LIMIT -1"#)).await;
        app.ready(LONG).await;
        assert_eq!(app.post("one", "one").await.status, 202);
    });
}

#[test]
fn a_receiver_whose_database_is_at_fault_is_told_since_the_first_failure_until_a_message_is_committed() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.refuse("INSERT", "message", "53100").await;
        let before = Timestamp::now();
        // One alone may be to blame itself.
        for number in 0..20 {
            assert_eq!(app.post(&format!("id-{number}"), &format!("text {number}")).await.status, 202);
        }
        let first = app.told("processing", "messages of adapter writeDb fail").await;
        assert!(first.what.contains("53100") && first.since >= before, "{first:?}");
        eventually("it has tried again and again", LONG, async || {
            let tries = app.log_lines("not consuming: the database is at fault").len();
            // Also while it consumes it does not say that all is well.
            let reasons = app.reasons().await?;
            assert!(reasons.iter().any(|one| one.since == first.since && one.what.contains("fail")), "{reasons:?}");
            if tries >= 4 { Ok(()) } else { Err(format!("{tries} times")) }
        })
        .await;
        assert!(app.accepts().await.is_ok(), "what is accepted waits");
        app.allow("message").await;
        app.settled(LONG).await;
        app.is_well().await;
    });
}

#[test]
fn an_adapter_that_others_call_is_missed_while_it_is_stopped() {
    run(async {
        let app = with_notes().await;
        app.is_well().await;
        let before = Timestamp::now();
        app.stop_adapter("writeTableOtherMessage").await;
        let after = Timestamp::now();
        let reason = app.told("processing", "writeTableOtherMessage").await;
        assert_eq!(reason.what, "adapter writeTableOtherMessage, which writeDb calls, is STOPPED");
        assert!((before..=after).contains(&reason.since), "{before} {reason:?} {after}");
        assert!(app.accepts().await.is_ok(), "what is accepted waits");
        app.start_adapter("writeTableOtherMessage").await;
        assert_eq!(app.reasons().await, Ok(Vec::new()));

        app.stop_adapter("note").await;
        let reason = app.told("accepting", "adapter note, which noteNow calls, is STOPPED").await;
        assert!(reason.since >= after);
        app.not_ready(SOON).await;
        app.post_to("/api/note", "one", "one").await.problem(500);
        app.start_adapter("note").await;
        app.is_well().await;

        // Nobody calls this one.
        app.stop_adapter("writeDbAsync").await;
        assert_eq!(app.reasons().await, Ok(Vec::new()));
    });
}

/// With an adapter that calls another while messages are accepted.
async fn with_notes() -> App {
    let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
    app.write("configurations/notes/adapters.yml", NOTES);
    app.migrate();
    app.run();
    app.ready(LONG).await;
    app
}

#[test]
fn full_connections_are_told_while_nobody_makes_room() {
    run(async {
        let options = Options { api: &["maxConnections: 3"], ..Options::default() };
        let mut app = App::install(Servers::shared().await, options).await;
        app.write("configurations/notes/adapters.yml", NOTES);
        app.db.batch(GATE).await;
        app.run();
        app.ready(LONG).await;
        let before = Timestamp::now();
        // Whose message is being decided upon makes no room.
        let ids = ["slow-1", "slow-2", "slow-3"];
        let posts = futures_util::future::join_all(ids.map(|id| app.try_post_to("/api/note", id, id)));
        let full = async {
            let at_the_gate = async || same(app.db.column::<i32>(AT_THE_GATE, &[]).await.len(), &3);
            eventually("all are being decided upon", LONG, at_the_gate).await;
            let newcomer = TcpStream::connect(app.api).await.unwrap();
            let reason = app.told("accepting", "all 3 connections of api are in use").await;
            assert!(reason.since >= before, "{reason:?}");
            app.not_ready(SOON).await;
            assert_eq!(app.told("accepting", "are in use").await, reason, "since it began");
            app.open_gate().await;
            newcomer
        };
        let (answers, _newcomer) = tokio::join!(posts, full);
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|reply| reply.status == 202)), "{answers:?}");
        app.ready(SOON).await;
        app.is_well().await;
    });
}

#[test]
fn since_is_when_a_server_was_missed_first_and_not_when_somebody_asked() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        app.is_well().await;
        servers.stop_rabbit().await;
        let missed = || app.log_lines("not connected").into_iter().filter(|line| line.contains("publish")).count();
        eventually("the broker is missed", LONG, async || same(missed() > 0, &true)).await;
        let known = Timestamp::now();
        let reason = app.told("accepting", "rabbit is down").await;
        assert!(reason.since <= known, "{reason:?} after {known}");
        servers.start_rabbit().await;
        app.ready(LONG).await;
        app.is_well().await;

        servers.stop_postgres().await;
        app.log_has("the home database cannot be reached").await;
        let known = Timestamp::now();
        for part in ["accepting", "processing"] {
            let reason = app.told(part, "home database main").await;
            assert!(reason.since <= known, "{reason:?} after {known}");
        }
        servers.start_postgres().await;
        app.ready(LONG).await;
        app.is_well().await;
    });
}

#[test]
fn an_instance_that_begins_with_a_called_adapter_stopped_says_so_since_it_began() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        app.stop_adapter("writeTableOtherMessage").await;
        assert_eq!(app.stop().await, Some(0));
        let before = Timestamp::now();
        app.run();
        app.ready(LONG).await;
        let reason = app.told("processing", "which writeDb calls, is STOPPED").await;
        assert!(reason.since >= before, "{reason:?}");
        let start = app.console(Method::POST, "/api/v1/adapters/writeTableOtherMessage/start").await;
        assert_eq!(start.status, 200);
        app.is_well().await;
    });
}
