//! Messages that others put on our queues, and messages that only look like ours (I5, protocol §5).

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::retry::STOPPED;
use crate::support::{Amqp, App, LONG, Options, SOON, Servers, client, eventually, run};

const QUEUE: &str = "myQueue";

async fn started() -> (App, Amqp) {
    let app = App::start(Servers::shared().await).await;
    let amqp = Amqp::connect(app.amqp_url()).await;
    (app, amqp)
}

fn with_id(id: &str) -> BasicProperties {
    BasicProperties::default().with_message_id(id.into())
}

/// What a message of this installation carries, as somebody who saw one could write it.
struct Forged<'a> {
    home: Uuid,
    tx_id: Uuid,
    message_id: &'a str,
}

impl Forged<'_> {
    fn properties(&self) -> BasicProperties {
        let mut headers = FieldTable::default();
        let text = |text: &str| AMQPValue::LongString(text.into());
        headers.insert("x-posthaste-home".into(), text(&self.home.to_string()));
        headers.insert("x-message-id".into(), text(self.message_id));
        headers.insert("x-attempts".into(), AMQPValue::LongInt(0));
        with_id(&self.tx_id.to_string()).with_headers(headers)
    }
}

/// A row of type H.
#[derive(Debug)]
struct Parked {
    key: i64,
    slot: String,
    body: Vec<u8>,
    comments: String,
}

impl App {
    async fn home_id(&self) -> Uuid {
        self.db.one("SELECT id FROM posthaste.home", &[]).await
    }

    /// Waits until a row of type H has this message id.
    async fn parked(&self, message_id: &str) -> Parked {
        let sql = "SELECT messagekey, slotid::text, message, coalesce(comments, '')::text FROM ibisstore
                   WHERE type = 'H' AND messageid = $1";
        let what = format!("{message_id} is parked");
        eventually(&what, SOON, async || {
            let rows = self.db.rows(sql, &[&message_id]).await;
            let [row] = rows.as_slice() else { return Err(format!("{} rows", rows.len())) };
            Ok(Parked { key: row.get(0), slot: row.get(1), body: row.get(2), comments: row.get(3) })
        })
        .await
    }

    /// The sum of a figure over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.console(Method::GET, "/metrics").await.body;
        let lines = page.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    async fn resend_with(&self, slot: &str, key: i64, body: serde_json::Value) -> client::Reply {
        let path = format!("/api/v1/stores/{slot}/messages/{key}/resend");
        let request = client::request(&self.http, Method::POST, self.console, &path);
        client::send(request.json(&body)).await
    }
}

#[test]
fn a_foreign_message_is_processed_once_and_its_repeat_is_dropped() {
    run(async {
        let (app, amqp) = started().await;
        for _ in 0..3 {
            amqp.publish(QUEUE, with_id("f-1"), b"from elsewhere").await;
        }
        amqp.publish(QUEUE, with_id("f-2"), b"after them").await;
        app.processed("after them", SOON).await;
        app.settled(SOON).await;
        assert_eq!(app.effects("from elsewhere").await, [1, 1]);
        assert_eq!(app.metric("posthaste_adopted_total").await, 2.0);
        assert_eq!(app.metric("posthaste_adopted_without_id_total").await, 0.0);
        let trace = app.get("/api/v1/messages/f-1").await;
        assert_eq!(trace["state"], "processed", "{trace}");
    });
}

#[test]
fn a_foreign_message_without_an_id_is_processed_and_counted() {
    run(async {
        let (app, amqp) = started().await;
        for _ in 0..2 {
            amqp.publish(QUEUE, BasicProperties::default(), b"who am I").await;
        }
        eventually("both are processed", SOON, async || match app.effects("who am I").await {
            [2, 2] => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        app.settled(SOON).await;
        assert_eq!(app.effects("who am I").await, [2, 2]);
        assert_eq!(app.metric("posthaste_adopted_without_id_total").await, 2.0);
    });
}

#[test]
fn foreign_poison_is_retried_kept_and_can_be_resent() {
    run(async {
        let (app, amqp) = started().await;
        app.stop_adapter(STOPPED).await;
        amqp.publish(QUEUE, with_id("poison"), b"foreign poison").await;
        let row = app.in_error("poison").await;
        assert_eq!((row.slot.as_str(), row.body.as_slice()), ("write-db", &b"foreign poison"[..]));
        assert!(row.comments.contains(STOPPED), "{}", row.comments);
        let attempts = "SELECT n FROM posthaste.attempt WHERE tx_id =
            (SELECT tx_id FROM ibisstore WHERE messagekey = $1) ORDER BY n";
        let attempts: Vec<i32> = app.db.column(attempts, &[&row.key]).await;
        assert_eq!(attempts, [1, 2, 3, 4, 5, 6]);
        assert_eq!(app.effects("foreign poison").await, [0, 0]);
        // Its sender tries again: it is still the same message.
        amqp.publish(QUEUE, with_id("poison"), b"foreign poison").await;

        app.start_adapter(STOPPED).await;
        let reply = app.resend_with("write-db", row.key, json!({})).await;
        assert_eq!((reply.status, &reply.json()["outcome"]), (200, &"succeeded".into()), "{reply:?}");
        app.settled(SOON).await;
        assert_eq!(app.effects("foreign poison").await, [1, 1]);
        assert_eq!(app.error_rows().await, []);
    });
}

#[test]
fn a_message_under_a_known_tx_id_with_another_body_is_parked_and_never_processed() {
    run(async {
        let (app, amqp) = started().await;
        assert_eq!(app.post("genuine", "the genuine one").await.status, 202);
        app.processed("the genuine one", SOON).await;
        app.settled(SOON).await;
        let tx_id: Uuid = app.db.one("SELECT tx_id FROM ibisstore WHERE messageid = 'genuine'", &[]).await;
        let forged = Forged { home: app.home_id().await, tx_id, message_id: "forged" };
        for _ in 0..2 {
            amqp.publish(QUEUE, forged.properties(), b"the forged one").await;
        }
        let parked = app.parked("forged").await;
        assert_eq!((parked.slot.as_str(), parked.body.as_slice()), ("write-db", &b"the forged one"[..]));
        assert!(parked.comments.contains("body"), "{}", parked.comments);
        // The genuine body once more is a redelivery: dropped.
        amqp.publish(QUEUE, Forged { message_id: "genuine", ..forged }.properties(), b"the genuine one").await;
        app.settled(SOON).await;
        assert_eq!(app.effects("the forged one").await, [0, 0]);
        assert_eq!(app.effects("the genuine one").await, [1, 1]);
        assert_eq!(app.db.count("ibisstore WHERE type = 'H'", &[]).await, 1);
        assert_eq!(app.metric("posthaste_parked_total").await, 1.0);
    });
}

#[test]
fn a_message_under_an_open_tx_id_with_another_body_harms_neither() {
    run(async {
        let (app, amqp) = started().await;
        app.stop_adapter("writeDb").await;
        assert_eq!(app.post("open", "still open").await.status, 202);
        let tx_id: Uuid = app.db.one("SELECT tx_id FROM ibisstore WHERE messageid = 'open'", &[]).await;
        let forged = Forged { home: app.home_id().await, tx_id, message_id: "forged" };
        amqp.publish(QUEUE, forged.properties(), b"not this").await;
        app.start_adapter("writeDb").await;
        app.processed("still open", SOON).await;
        app.parked("forged").await;
        app.settled(SOON).await;
        assert_eq!((app.effects("still open").await, app.effects("not this").await), ([1, 1], [0, 0]));
    });
}

#[test]
fn a_message_without_its_journal_row_is_parked_and_old_ones_are_resent_only_when_confirmed() {
    run(async {
        let (app, amqp) = started().await;
        let home = app.home_id().await;
        for (id, body) in [("old", &b"an old one"[..]), ("young", b"a young one")] {
            let forged = Forged { home, tx_id: Uuid::now_v7(), message_id: id };
            amqp.publish(QUEUE, forged.properties(), body).await;
        }
        let (old, young) = (app.parked("old").await, app.parked("young").await);
        assert!(old.comments.contains("expired, probably done"), "{}", old.comments);
        app.settled(SOON).await;
        assert_eq!(app.effects("an old one").await, [0, 0]);

        let aged = "UPDATE ibisstore SET messagedate = messagedate - interval '8 days' WHERE messagekey = $1";
        app.db.rows(aged, &[&old.key]).await;
        let refused = app.resend_with("write-db", old.key, json!({})).await;
        let problem = refused.problem(409);
        assert!(problem["reason"].as_str().unwrap().contains("confirm"), "{problem}");
        assert_eq!(app.parked("old").await.key, old.key);

        let confirmed = app.resend_with("write-db", old.key, json!({"confirmed": true})).await;
        assert_eq!((confirmed.status, &confirmed.json()["outcome"]), (200, &"succeeded".into()), "{confirmed:?}");
        let reply = app.resend_with("write-db", young.key, json!({})).await;
        assert_eq!((reply.status, &reply.json()["outcome"]), (200, &"succeeded".into()), "{reply:?}");
        app.settled(SOON).await;
        assert_eq!((app.effects("an old one").await, app.effects("a young one").await), ([1, 1], [1, 1]));
        assert_eq!(app.db.count("ibisstore WHERE type = 'H'", &[]).await, 0);
    });
}

#[test]
fn a_message_of_ours_on_another_of_our_queues_is_parked_there() {
    const SECOND: &str = r"
adapters:
  - name: second
    receiver:
      listener: { amqp: { connection: rabbit, destinationName: second } }
      numThreads: 2
      errorStorage: { slotId: second }
    pipeline:
      - { name: insert, query: { database: main, sql: 'INSERT INTO message (message) VALUES ($1)', params: [payload] } }
";
    run(async {
        let mut app = App::install(Servers::shared().await, Options::default()).await;
        app.write("configurations/second/adapters.yml", SECOND);
        app.migrate();
        app.run();
        app.ready(LONG).await;
        let amqp = Amqp::connect(app.amqp_url()).await;
        app.stop_adapter("writeDb").await;
        assert_eq!(app.post("lost", "lost its way").await.status, 202);
        // Somebody moves it by hand, exactly as it lies there.
        let moved = amqp.take(QUEUE).await;
        amqp.publish("second", moved.properties.clone(), &moved.body).await;
        let parked = app.parked("lost").await;
        assert_eq!(parked.slot, "second");
        assert!(parked.comments.contains("second") && parked.comments.contains("myQueue"), "{}", parked.comments);
        assert_eq!(app.effects("lost its way").await, [0, 0]);

        // The journal brings the accepted message to where it belongs.
        app.start_adapter("writeDb").await;
        app.processed("lost its way", LONG).await;
        app.settled(SOON).await;
        assert_eq!(app.effects("lost its way").await, [1, 1]);
    });
}

#[test]
fn headers_that_only_look_like_ours_are_adopted_like_any_other() {
    run(async {
        let (app, amqp) = started().await;
        let other_home = Forged { home: Uuid::now_v7(), tx_id: Uuid::now_v7(), message_id: "elsewhere" };
        amqp.publish(QUEUE, other_home.properties(), b"another home").await;
        let home = app.home_id().await;
        let no_id = Forged { home, tx_id: Uuid::nil(), message_id: "odd" }.properties();
        amqp.publish(QUEUE, no_id.with_message_id("not a uuid".into()), b"no uuid").await;
        for body in ["another home", "no uuid"] {
            app.processed(body, SOON).await;
        }
        app.settled(SOON).await;
        assert_eq!(app.db.count("ibisstore WHERE type = 'H'", &[]).await, 0);
        let trace = app.get("/api/v1/messages/elsewhere").await;
        assert_eq!(trace["state"], "processed", "{trace}");
    });
}
