//! What the process says of itself: enough to find a message, and never a secret, a payload or a header's value (F14).

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use reqwest::Method;
use serde_json::Value;

use crate::retry::STOPPED;
use crate::support::{Amqp, App, LONG, Options, Reply, SOON, Servers, client, eventually, run};

/// Words that stand in payloads and headers alone.
const PAYLOADS: [&str; 5] =
    ["payload-one-zebra", "payload-two-gnu-which-is-too-long", "payload-three-ibex", "payload-four-okapi", "42-walrus"];
const HEADER: &str = "header-value-quagga";

/// `amount` is a number: a text for it is quoted by PostgreSQL's own error message.
const TYPED: &str = "
adapters:
  - name: typedAsync
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /typed, headerParams: [X-Secret] } }
      messageLog: { slotId: typed-req }
    pipeline:
      - { name: send, amqpSender: { connection: rabbit, destinationName: typed } }
  - name: typed
    receiver:
      numThreads: 2
      maxRetries: 1
      listener: { amqp: { connection: rabbit, destinationName: typed } }
      errorStorage: { slotId: typed }
    pipeline:
      - { name: insert, query: { database: main, sql: 'INSERT INTO typed (amount, header) VALUES ($1, $2)', params: [payload, header.X-Secret] } }
  - name: typedAtOnce
    receiver:
      listener: { api: { uriPattern: /typed-at-once, headerParams: [X-Secret] } }
    pipeline:
      - { name: insert, query: { database: main, sql: 'INSERT INTO typed (amount, header) VALUES ($1, $2)', params: [payload, header.X-Secret] } }
";

/// Everything that was answered on the public address, and on the other one where no message is shown.
#[derive(Default)]
struct Answers(Vec<String>);

impl Answers {
    fn keep(&mut self, reply: Reply) -> Reply {
        self.0.push(format!("{:?} {}", reply.headers, reply.body));
        reply
    }
}

impl App {
    async fn typed(&self, path: &str, id: &str, body: &str) -> Reply {
        let request = client::request(&self.http, Method::POST, self.api, path).header("Message-Id", id);
        client::send(request.header("X-Secret", HEADER).body(body.to_owned())).await
    }
}

/// The password in a url.
fn password(url: &str) -> String {
    url::Url::parse(url).unwrap().password().unwrap().to_owned()
}

/// An installation whose database password stands in a file alone, and that password.
async fn installed(servers: &Arc<Servers>) -> (App, String) {
    let app = App::lay_out(Arc::clone(servers), Options::default()).await;
    let url = app.db_url();
    let secret = password(&url);
    app.write("secret/password", &format!("{secret}\n"));
    let (scheme, rest) = url.split_once("://").unwrap();
    let (login, place) = rest.rsplit_once('@').unwrap();
    let user = login.split(':').next().unwrap();
    let file = app.folder().join("secret/password");
    let apart = format!("url: {scheme}://{place}\n    username: {user}\n    password: ${{file:{}}}", file.display());
    app.edit_resources(&format!("url: {url}"), &apart);
    app.write("configurations/typed/adapters.yml", TYPED);
    app.write("configurations/typed/migrations/main/V1__typed.sql", "CREATE TABLE typed (amount int, header text);");
    app.migrate();
    (app, secret)
}

/// Acceptance, repeats, a conflict, bad requests, failures, retries, resends, foreign messages, both servers away.
async fn exercise(app: &mut App, servers: &Servers) -> Answers {
    let mut answers = Answers::default();
    let amqp = Amqp::connect(app.amqp_url()).await;
    answers.keep(app.post("log-1", PAYLOADS[0]).await);
    answers.keep(app.post("log-1", PAYLOADS[0]).await);
    answers.keep(app.post("log-1", PAYLOADS[3]).await);
    answers.keep(app.post("bad id", PAYLOADS[0]).await);
    answers.keep(app.post("log-2", PAYLOADS[1]).await);
    answers.keep(app.api(Method::GET, "/api/messages/write-db-req/log-1").await);
    answers.keep(app.typed("/api/typed", "log-3", PAYLOADS[4]).await);
    let refused = answers.keep(app.typed("/api/typed-at-once", "log-4", PAYLOADS[4]).await);
    assert_eq!(refused.status, 422, "{refused:?}");
    app.stop_adapter(STOPPED).await;
    amqp.publish("myQueue", lapin::BasicProperties::default(), PAYLOADS[2].as_bytes()).await;
    let errors = async || {
        let found: Vec<i64> = app.db.column("SELECT messagekey FROM ibisstore WHERE type = 'E'", &[]).await;
        if found.len() == 3 { Ok(found) } else { Err(format!("{found:?}")) }
    };
    for key in eventually("three are in the error store", SOON, errors).await {
        for slot in ["write-db", "typed"] {
            answers.keep(app.console(Method::POST, &format!("/api/v1/stores/{slot}/messages/{key}/resend")).await);
        }
    }
    app.start_adapter(STOPPED).await;
    for path in ["/readyz", "/metrics", "/api/v1/adapters", "/api/v1/stores", "/api/v1/stores/write-db/messages"] {
        answers.keep(app.console(Method::GET, path).await);
    }
    servers.stop_rabbit().await;
    answers.keep(app.not_ready(SOON).await);
    answers.keep(app.post("log-5", PAYLOADS[0]).await);
    servers.start_rabbit().await;
    app.ready(LONG).await;
    servers.stop_postgres().await;
    answers.keep(app.post("log-6", PAYLOADS[0]).await);
    answers.keep(app.console(Method::GET, "/api/v1/stores").await);
    answers.keep(app.console(Method::GET, "/readyz").await);
    servers.start_postgres().await;
    app.ready(LONG).await;
    answers.keep(app.post("log-7", PAYLOADS[0]).await);
    app.settled(LONG).await;
    answers
}

#[test]
fn no_secret_no_payload_and_no_header_value_is_logged_or_answered() {
    run(async {
        let servers = Servers::own().await;
        let (mut app, file_secret) = installed(&servers).await;
        let mut answers = Answers::default();
        for (number, format) in ["text", "json"].into_iter().enumerate() {
            if number > 0 {
                app.db.rows("TRUNCATE ibisstore, posthaste.journal, posthaste.due, posthaste.payload", &[]).await;
            }
            app.run_with(&["--log", "debug", "--log-format", format]);
            app.ready(LONG).await;
            answers.0.extend(exercise(&mut app, &servers).await.0);
            assert_eq!(app.stop().await, Some(0));
        }
        let log = app.log_text();
        assert!(log.contains("log-2") && log.contains("retry"), "the exercise was logged");
        let amqp_password = password(app.amqp_url());
        let mut secrets = vec![amqp_password.as_str(), &file_secret, HEADER];
        secrets.extend(PAYLOADS);
        for secret in secrets {
            for line in log.lines() {
                assert!(!line.contains(secret), "{secret} in the log: {line}");
            }
            for answer in &answers.0 {
                assert!(!answer.contains(secret), "{secret} in an answer: {answer}");
            }
        }
        let resources = fs::read_to_string(app.folder().join("resources.yml")).unwrap();
        assert!(resources.contains(&amqp_password), "the search looks for the right word");
    });
}

#[test]
fn every_line_is_json_and_every_attempt_a_span_with_its_ids() {
    run(async {
        let mut app = App::install(Servers::shared().await, Options::default()).await;
        app.run_with(&["--log", "debug", "--log-format", "json"]);
        app.ready(LONG).await;
        app.stop_adapter(STOPPED).await;
        assert_eq!(app.post("spans", "spans").await.status, 202);
        let row = app.in_error("spans").await;
        app.start_adapter(STOPPED).await;
        let path = format!("/api/v1/stores/write-db/messages/{}/resend", row.key);
        assert_eq!(app.console(Method::POST, &path).await.status, 200);
        assert_eq!(app.stop().await, Some(0));

        let log = app.log_text();
        let lines = log.lines().filter(|line| !line.starts_with("listening "));
        let lines: Vec<Value> =
            lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
        let attempts: Vec<&Value> =
            lines.iter().map(|line| &line["span"]).filter(|span| span["name"] == "attempt").collect();
        assert!(
            attempts.iter().all(|span| span["message.id"] == "spans" && span["adapter"] == "writeDb"),
            "{attempts:?}"
        );
        let told: BTreeSet<(String, i64)> = attempts
            .iter()
            .map(|span| (span["tx.id"].as_str().unwrap().to_owned(), span["attempt.n"].as_i64().unwrap()))
            .collect();
        let rows = app.db.rows("SELECT tx_id::text, n FROM posthaste.attempt", &[]).await;
        let recorded: BTreeSet<(String, i64)> =
            rows.iter().map(|row| (row.get(0), i64::from(row.get::<_, i32>(1)))).collect();
        assert_eq!(told, recorded, "six attempts and one resend");
        assert_eq!(told.len(), 7);
        let outcomes = lines.iter().filter(|line| line["fields"]["txn.outcome"].is_string()).count();
        assert_eq!(outcomes, 7, "each says how it ended");
    });
}

#[test]
fn the_version_tells_the_schema_that_it_needs() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        let output = app.command(&["--version"]);
        let said = String::from_utf8(output.stdout).unwrap();
        let schema: i32 = app.db.one("SELECT max(version) FROM posthaste.schema_history", &[]).await;
        assert!(output.status.success());
        assert_eq!(said.trim(), format!("posthaste {} (schema {schema})", env!("CARGO_PKG_VERSION")));
    });
}

#[test]
fn mistakes_in_the_files_are_told_without_their_secrets() {
    run(async {
        let servers = Servers::shared().await;
        let (app, file_secret) = installed(&servers).await;
        let amqp = app.amqp_url().to_owned();
        let password = password(&amqp);
        app.edit_resources(&amqp, &amqp.replace("amqp://", "amqp5://"));
        let file = app.folder().join("secret/password");
        app.edit_resources("lease: 2s", &format!("lease: ${{file:{}}}", file.display()));
        for command in ["check", "migrate", "run"] {
            let output = app.command(&[command]);
            assert_eq!(output.status.code(), Some(78), "{output:?}");
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(said.contains("resources.yml"), "{said}");
            assert!(!said.contains(&password) && !said.contains(&file_secret), "{command}: {said}");
        }
    });
}
