//! A body is bytes and stays so, and what a pipeline writes it writes whole (F1, F4, protocol §4).

use lapin::types::AMQPValue;
use reqwest::Method;

use crate::support::{Amqp, App, LONG, Options, SOON, Servers, client, eventually, run, same};

/// A queue that nobody of ours consumes.
pub const OTHERS: &str = "others";

const TABLES: &str = "
CREATE TABLE blob (id text PRIMARY KEY, tenant text, body bytea NOT NULL, correlation text);
CREATE TABLE note (id text PRIMARY KEY, body text NOT NULL);
CREATE TABLE once (id text PRIMARY KEY, body bytea NOT NULL UNIQUE);
";

const ADAPTERS: &str = r#"
adapters:
  - name: handOver
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /others, headerParams: [X-Tenant, X-Absent] } }
      messageLog: { slotId: others-req }
    pipeline:
      - { name: send, amqpSender: { connection: rabbit, destinationName: others } }
  - name: blobAsync
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /blob, headerParams: [X-Tenant] } }
      messageLog: { slotId: blob-req }
    pipeline:
      - { name: send, amqpSender: { connection: rabbit, destinationName: blobs } }
  - name: blob
    receiver:
      listener: { amqp: { connection: rabbit, destinationName: blobs } }
      numThreads: 2
      errorStorage: { slotId: blob }
    pipeline:
      - name: insert
        query:
          database: main
          sql: 'INSERT INTO blob (id, tenant, body, correlation) VALUES ($1, $2, $3, $4)'
          params: [messageId, header.X-Tenant, payload, correlationId]
  - name: noteAsync
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /note } }
      messageLog: { slotId: note-req }
    pipeline:
      - { name: send, amqpSender: { connection: rabbit, destinationName: notes } }
  - name: note
    receiver:
      maxRetries: 3
      retryPermanentErrors: false
      listener: { amqp: { connection: rabbit, destinationName: notes } }
      numThreads: 2
      errorStorage: { slotId: note }
    pipeline:
      - { name: insert, query: { database: main, sql: 'INSERT INTO note (id, body) VALUES ($1, $2)', params: [messageId, payload] } }
  - name: onceAndSend
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /once } }
      messageLog: { slotId: once-req }
    pipeline:
      - { name: send, amqpSender: { connection: rabbit, destinationName: others } }
      - { name: keep, query: { database: main, sql: 'INSERT INTO once (id, body) VALUES ($1, $2)', params: [messageId, payload] } }
  - name: cutOff
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /cut-off } }
      messageLog: { slotId: cut-off-req }
    pipeline:
      - { name: cut, query: { database: main, sql: 'SELECT pg_terminate_backend(pg_backend_pid()) WHERE $1::text IS NOT NULL', params: [messageId] } }
"#;

pub fn configured(app: &App) {
    app.write("configurations/bytes/adapters.yml", ADAPTERS);
    app.write("configurations/bytes/migrations/main/V1__tables.sql", TABLES);
}

pub async fn started() -> (App, Amqp) {
    let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
    configured(&app);
    app.migrate();
    app.run();
    app.ready(LONG).await;
    let amqp = Amqp::connect(app.amqp_url()).await;
    (app, amqp)
}

impl App {
    pub async fn send(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> client::Reply {
        let mut request = client::request(&self.http, Method::POST, self.api, path).body(body.to_vec());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        client::send(request).await
    }
}

/// Every byte, NUL characters, nothing at all, and as much as fits.
fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let every: Vec<u8> = (0..=255).collect();
    let large = every.iter().copied().cycle().take((1 << 20) - 1).collect();
    vec![("every", every), ("nul", vec![0; 5]), ("empty", Vec::new()), ("large", large)]
}

#[test]
fn every_body_reaches_a_queue_of_others_byte_for_byte() {
    run(async {
        let (app, amqp) = started().await;
        for (id, body) in bodies() {
            let headers = [("Message-Id", id), ("Content-Type", "application/octet-stream")];
            let reply = app.send("/api/others", &headers, &body).await;
            assert_eq!(reply.status, 202, "{id}: {reply:?}");
            let taken = amqp.take(OTHERS).await;
            assert!(taken.body == body, "{id}: {} bytes in, {} out", body.len(), taken.body.len());
        }
    });
}

#[test]
fn every_body_reaches_a_bytea_column_byte_for_byte() {
    run(async {
        let (app, _amqp) = started().await;
        for (id, body) in bodies() {
            let reply = app.send("/api/blob", &[("Message-Id", id)], &body).await;
            assert_eq!(reply.status, 202, "{id}: {reply:?}");
            let what = format!("{id} is stored");
            let stored = eventually(&what, SOON, async || {
                let found: Vec<Vec<u8>> = app.db.column("SELECT body FROM blob WHERE id = $1", &[&id]).await;
                found.into_iter().next().ok_or_else(|| "no row".to_owned())
            });
            let stored = stored.await;
            assert!(stored == body, "{id}: {} bytes in, {} out", body.len(), stored.len());
            let logged: Vec<u8> = app.db.one("SELECT message FROM ibisstore WHERE messageid = $1", &[&id]).await;
            assert!(logged == body, "{id} in the message log");
        }
    });
}

#[test]
fn content_type_and_chosen_headers_travel_along_and_others_do_not() {
    run(async {
        let (app, amqp) = started().await;
        let headers = [
            ("Message-Id", "headers"),
            ("Correlation-Id", "belongs-to"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("X-Tenant", "Zürich"),
            ("X-Other", "stays behind"),
        ];
        assert_eq!(app.send("/api/others", &headers, b"x").await.status, 202);
        let taken = amqp.take(OTHERS).await;
        let properties = &taken.properties;
        assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "text/plain; charset=utf-8");
        assert_eq!(properties.correlation_id().as_ref().unwrap().as_str(), "belongs-to");
        let table = properties.headers().as_ref().unwrap().inner();
        let tenant = AMQPValue::LongString("Zürich".into());
        assert_eq!(table.get("x-tenant"), Some(&tenant), "{table:?}");
        assert!(!table.contains_key("x-other") && !table.contains_key("x-absent"), "{table:?}");

        assert_eq!(app.send("/api/blob", &headers, b"x").await.status, 202);
        assert_eq!(app.send("/api/blob", &[("Message-Id", "without")], b"y").await.status, 202);
        let wanted = vec![
            ("headers".to_owned(), Some("Zürich".to_owned()), "belongs-to".to_owned()),
            ("without".to_owned(), None, "without".to_owned()),
        ];
        eventually("both stand in the table, with and without the header", SOON, async || {
            let rows = app.db.rows("SELECT id, tenant, correlation FROM blob ORDER BY id", &[]).await;
            same(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect(), &wanted)
        })
        .await;
    });
}

#[test]
fn bytes_that_no_text_can_hold_are_a_permanent_error_with_one_attempt() {
    run(async {
        let (app, _amqp) = started().await;
        for (id, body, said) in [("latin1", &b"caf\xe9"[..], "UTF-8"), ("nul", &b"a\0b"[..], "NUL")] {
            assert_eq!(app.send("/api/note", &[("Message-Id", id)], body).await.status, 202);
            let what = format!("{id} is in the error store");
            let row = eventually(&what, SOON, async || {
                let rows = app.error_rows().await;
                rows.into_iter().find(|row| row.message_id == id).ok_or_else(|| "it is not".to_owned())
            });
            let row = row.await;
            assert_eq!((row.slot.as_str(), row.body.as_slice()), ("note", body));
            let comment = &row.comments;
            assert!(comment.contains(said) && comment.contains("insert of note"), "{comment}");
            let attempts = app.attempts(id).await;
            assert_eq!(attempts.len(), 1, "{attempts:?}");
        }
        app.settled(SOON).await;
        assert_eq!(app.db.count("note", &[]).await, 0);
    });
}

#[test]
fn an_inbound_pipeline_of_several_steps_is_one_transaction() {
    run(async {
        let (app, amqp) = started().await;
        let reply = app.send("/api/once", &[("Message-Id", "1")], b"same").await;
        assert_eq!(reply.status, 202, "{reply:?}");
        assert_eq!(amqp.take(OTHERS).await.body, b"same");
        assert_eq!(app.send("/api/once", &[("Message-Id", "1")], b"same").await.status, 304);
        let before = app.traces().await;

        // The second step refuses it; the first has written a journal row by then.
        let refused = app.send("/api/once", &[("Message-Id", "2")], b"same").await;
        let problem = refused.problem(422);
        assert_eq!(refused.header("x-outcome"), "none", "{refused:?}");
        let named = format!("{} {}", problem["step"], problem["detail"]);
        assert!(named.contains("keep") && named.contains("onceAndSend"), "{problem}");
        assert_eq!(app.traces().await, before);
        assert!(amqp.stays_empty(OTHERS).await);
        assert_eq!(app.db.count("posthaste.payload WHERE message_id = '2'", &[]).await, 0);

        let other = app.send("/api/once", &[("Message-Id", "2")], b"another").await;
        assert_eq!(other.status, 202, "the id was not used up: {other:?}");
        assert_eq!(amqp.take(OTHERS).await.body, b"another");
        let rows: Vec<String> = app.db.column("SELECT id FROM once ORDER BY id", &[]).await;
        assert_eq!(rows, ["1", "2"]);
    });
}

#[test]
fn a_connection_lost_inside_an_inbound_pipeline_is_a_refusal_that_may_be_repeated() {
    run(async {
        let (app, _amqp) = started().await;
        let before = app.traces().await;
        let refused = app.send("/api/cut-off", &[("Message-Id", "c")], b"c").await;
        let problem = refused.problem(503);
        assert_eq!(refused.header("x-outcome"), "none", "{refused:?}");
        assert!(problem["detail"].as_str().unwrap().contains("cutOff > cut"), "{problem}");
        assert_eq!(app.traces().await, before);
        assert_eq!(app.send("/api/once", &[("Message-Id", "c")], b"c").await.status, 202, "the pool is whole");
    });
}

#[test]
fn repeats_at_once_on_a_pipeline_of_several_steps_take_effect_once() {
    run(async {
        let (app, amqp) = started().await;
        let replies =
            futures_util::future::join_all((0..16).map(|_| app.send("/api/once", &[("Message-Id", "r")], b"r"))).await;
        let accepted = replies.iter().filter(|reply| reply.status == 202).count();
        assert_eq!(accepted, 1, "{replies:?}");
        assert!(replies.iter().all(|reply| matches!(reply.status, 202 | 304)), "{replies:?}");
        assert_eq!(amqp.take(OTHERS).await.body, b"r");
        assert!(amqp.stays_empty(OTHERS).await);
        assert_eq!(app.db.count("once", &[]).await, 1);
    });
}
