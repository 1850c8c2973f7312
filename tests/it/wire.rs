//! What programs of others may rely on, with a client that shares no code with us: Python's pika, and the samples of
//! docs/queue-contract.md exactly as they stand there (F4, protocol §3).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Amqp, App, LONG, Options, SOON, Servers, eventually, run, same};

const OTHERS: &str = "others";

const HAND_OVER: &str = "
adapters:
  - name: handOver
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /others, headerParams: [X-Tenant] } }
      messageLog: { slotId: others-req }
    pipeline:
      - { name: send, amqpSender: { connection: rabbit, destinationName: others } }
";

/// Takes one message and prints everything that a consumer can see of it.
const LOOK: &str = r#"
import json, sys, pika
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
method, properties, body = channel.basic_get(sys.argv[2], auto_ack=True)
names = ["message_id", "correlation_id", "content_type", "delivery_mode", "headers"]
print(json.dumps({**{name: getattr(properties, name) for name in names}, "body": body.hex()}))
connection.close()
"#;

/// A Python that has pika, requests and httpx.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let made = Command::new(repository().join("scripts/venv")).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
    })
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn pika(arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(python());
    let output = command.args(arguments).kill_on_drop(true).output();
    tokio::time::timeout(LONG, output).await.expect("Python ends").unwrap()
}

/// Runs a sample of the documentation; it must succeed. Answers what it printed.
async fn sample(name: &str, arguments: &[&str]) -> String {
    let file = repository().join("docs/samples").join(name);
    let output = pika(&[&[file.to_str().unwrap()], arguments].concat()).await;
    assert!(output.status.success(), "{name}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl App {
    async fn hand_over(&self, id: &str, body: &'static str) {
        let request = self.http.post(format!("http://{}/api/others", self.api)).header("Message-Id", id);
        let request = request.header("Correlation-Id", "order-7").header("X-Tenant", "acme");
        let reply = request.header("Content-Type", "application/json").body(body).send().await.unwrap();
        assert_eq!(reply.status(), 202);
    }
}

async fn started() -> App {
    let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
    app.write("configurations/others/adapters.yml", HAND_OVER);
    app.migrate();
    app.run();
    app.ready(LONG).await;
    app
}

#[test]
fn pika_sees_a_message_for_others_as_the_contract_says() {
    run(async {
        let app = started().await;
        app.hand_over("business-1", "{\"a\": 1}").await;
        let probe = async || {
            let depth = crate::support::depth(app.amqp_url(), OTHERS).await?;
            same(depth, &1)
        };
        eventually("it lies in the queue", SOON, probe).await;
        let seen = pika(&["-c", LOOK, app.amqp_url(), OTHERS]).await;
        assert!(seen.status.success(), "{seen:?}");
        let seen: Value = serde_json::from_slice(&seen.stdout).unwrap();

        let tx_id: uuid::Uuid = app.db.one("SELECT tx_id FROM posthaste.journal", &[]).await;
        let root_id: uuid::Uuid = app.db.one("SELECT root_id FROM ibisstore WHERE messageid = 'business-1'", &[]).await;
        assert_eq!(seen["message_id"], tx_id.to_string(), "{seen}");
        assert_eq!((&seen["correlation_id"], &seen["content_type"]), (&"order-7".into(), &"application/json".into()));
        assert_eq!((&seen["delivery_mode"], &seen["body"]), (&2.into(), &"7b2261223a20317d".into()));
        let headers = seen["headers"].as_object().unwrap();
        assert_eq!((&headers["x-message-id"], &headers["x-attempts"]), (&"business-1".into(), &0.into()));
        assert_eq!((&headers["x-tenant"], &headers["x-root-id"]), (&"acme".into(), &root_id.to_string().into()));
        let age: f64 = app
            .db
            .one(
                "SELECT extract(epoch FROM clock_timestamp())::float8 - $1::float8 / 1e6",
                &[&headers["x-published-at"].as_f64().unwrap()],
            )
            .await;
        assert!((0.0..60.0).contains(&age), "published {age} s ago, in microseconds: {seen}");
        assert!(!headers.contains_key("x-posthaste-home"), "{seen}");
        // RabbitMQ adds its own to what lies in a quorum queue.
        let ours = headers.keys().filter(|name| *name != "x-delivery-count").count();
        assert_eq!(ours, 5, "{seen}");
    });
}

#[test]
fn a_message_for_others_is_done_when_the_broker_has_it() {
    run(async {
        let app = started().await;
        app.hand_over("done", "x").await;
        let state = "SELECT state FROM posthaste.journal";
        eventually("its journal row is settled", SOON, async || {
            same(app.db.column::<String>(state, &[]).await, &vec!["DONE".to_owned()])
        })
        .await;
        let status = app.api(reqwest::Method::GET, "/api/messages/others-req/done").await;
        assert_eq!(status.json()["state"], "enqueued", "{status:?}");
    });
}

#[test]
fn the_consuming_sample_takes_each_message_once_also_when_it_comes_again() {
    run(async {
        let app = started().await;
        app.hand_over("c-1", "first").await;
        app.hand_over("c-2", "second").await;
        let amqp = Amqp::connect(app.amqp_url()).await;
        // Comes twice: as after a lost confirm.
        let first = amqp.take(OTHERS).await;
        for _ in 0..2 {
            amqp.publish(OTHERS, first.properties.clone(), &first.body).await;
        }
        let database = app.folder().join("consumer.db");
        let arguments = [app.amqp_url(), OTHERS, database.to_str().unwrap(), "2"];
        let said = sample("consume_once.py", &arguments).await;
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["done c-1", "done c-2", "repeat c-1"]);
        assert_eq!(crate::support::depth(app.amqp_url(), OTHERS).await, Ok(0));
    });
}

#[test]
fn what_the_publishing_sample_sends_is_processed_once_also_when_it_is_sent_again() {
    run(async {
        let app = started().await;
        for _ in 0..2 {
            sample("publish.py", &[app.amqp_url(), "myQueue", "p-1", "from Python: é"]).await;
        }
        sample("publish.py", &[app.amqp_url(), "myQueue", "p-2", "after it"]).await;
        for body in ["from Python: é", "after it"] {
            app.processed(body, SOON).await;
        }
        app.settled(SOON).await;
        assert_eq!(app.effects("from Python: é").await, [1, 1]);
        let trace = app.get("/api/v1/messages/p-1").await;
        assert_eq!(trace["state"], "processed", "{trace}");
    });
}

#[test]
fn a_sample_without_an_id_or_an_argument_changes_nothing() {
    run(async {
        let app = started().await;
        let file = |name: &str| repository().join("docs/samples").join(name).display().to_string();
        let (publish, consume) = (file("publish.py"), file("consume_once.py"));
        for wrong in [&["", "body"][..], &["p-1"], &["p-1", "body", "more"]] {
            let output = pika(&[&[publish.as_str(), app.amqp_url(), OTHERS], wrong].concat()).await;
            assert!(!output.status.success(), "{wrong:?}: {output:?}");
        }
        assert_eq!(crate::support::depth(app.amqp_url(), OTHERS).await, Ok(0));

        let amqp = Amqp::connect(app.amqp_url()).await;
        amqp.publish(OTHERS, lapin::BasicProperties::default(), b"not from Posthaste").await;
        let database = app.folder().join("consumer.db");
        let output = pika(&[&consume, app.amqp_url(), OTHERS, database.to_str().unwrap(), "2"]).await;
        assert!(!output.status.success(), "{output:?}");
        eventually("it is on the queue again", SOON, async || {
            same(crate::support::depth(app.amqp_url(), OTHERS).await?, &1)
        })
        .await;
        assert!(!pika(&[&consume, app.amqp_url()]).await.status.success());
    });
}

#[test]
fn the_environment_of_the_samples_is_made_once() {
    run(async {
        let python = python();
        let began = std::time::Instant::now();
        let again = Command::new(repository().join("scripts/venv")).output().unwrap();
        assert_eq!(String::from_utf8(again.stdout).unwrap().trim(), python.to_str().unwrap());
        assert!(began.elapsed() < Duration::from_secs(10), "nothing is installed again: {:?}", began.elapsed());
    });
}
