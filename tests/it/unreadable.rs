//! Messages whose properties no client of ours can read: they are set aside, and their neighbours flow (ADR 24).

mod first;
#[path = "../broker/raw.rs"]
mod raw;
mod sizes;

use lapin::BasicProperties;
use lapin::options::BasicGetOptions;
use posthaste::broker::{AmqpSettings, Broker, PublisherSettings, QueueState};
use posthaste::dev::fresh_name;
use posthaste::lifecycle::Lifecycle;
use reqwest::Method;

use crate::support::{Amqp, App, LONG, Options, SOON, Servers, eventually, run, same};

const QUEUE: &str = "myQueue";

/// A row of type H.
#[derive(Debug, PartialEq, Eq)]
struct Aside {
    message_id: String,
    body: Vec<u8>,
    comments: String,
    headers: serde_json::Value,
}

impl App {
    async fn set_aside(&self) -> Vec<Aside> {
        let sql = "SELECT messageid::text, message, comments::text, headers FROM ibisstore
                   WHERE type = 'H' AND slotid = 'write-db' ORDER BY messagekey";
        let read = |row: &tokio_postgres::Row| Aside {
            message_id: row.get(0),
            body: row.get(1),
            comments: row.get(2),
            headers: row.get(3),
        };
        self.db.rows(sql, &[]).await.iter().map(read).collect()
    }

    async fn bad(&self, flags: u16, properties: &[u8], body: &[u8]) {
        raw::publish(self.amqp_url(), QUEUE, flags, properties, body).await;
    }

    async fn good(&self, name: &str) {
        let amqp = Amqp::connect(self.amqp_url()).await;
        for number in 0..20 {
            let id = format!("{name}-{number}");
            let properties = BasicProperties::default().with_message_id(id.as_str().into()).with_delivery_mode(2);
            amqp.publish(QUEUE, properties, id.as_bytes()).await;
        }
    }
}

/// Headers of one header, which is an array in an array, and so on, so many.
fn nested(levels: usize) -> Vec<u8> {
    let long = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let value = (0..levels).fold(Vec::new(), |inner, _| [b"A".to_vec(), long(&inner)].concat());
    long(&[raw::short(b"deep"), value].concat())
}

#[test]
fn unreadable_messages_are_parked_and_their_neighbours_are_processed_once() {
    run(async {
        let mut app = App::install(Servers::shared().await, Options::default()).await;
        // All of it waits when the instance comes.
        app.good("before").await;
        app.bad(raw::CONTENT_TYPE, &raw::short(b"caf\xe9"), b"type").await;
        app.bad(raw::MESSAGE_ID, &raw::short(b"caf\xe9"), b"id").await;
        app.good("between").await;
        let both = [raw::header(b"caf\xe9", b"x"), raw::short(b"b-1")].concat();
        let large = vec![b'x'; 300_000];
        app.bad(raw::HEADERS | raw::MESSAGE_ID, &both, &large).await;
        app.good("after").await;
        app.run();
        app.ready(LONG).await;
        for name in ["before", "between", "after"] {
            for number in 0..20 {
                app.processed(&format!("{name}-{number}"), LONG).await;
            }
        }
        eventually("three are set aside", LONG, async || same(app.set_aside().await.len(), &3)).await;
        app.settled(LONG).await;

        let aside = app.set_aside().await;
        let told: Vec<&str> = aside.iter().map(|one| one.comments.as_str()).collect();
        let reason =
            |what: &str| format!("it cannot be read as others are: its {what} is not UTF-8; it was never processed");
        assert_eq!(told, [reason("content type"), reason("message id"), reason("header name")]);
        assert_eq!([&aside[0].body[..], &aside[1].body, &aside[2].body], [&b"type"[..], b"id", &large]);
        assert_eq!(aside[2].message_id, "b-1");
        assert_eq!(aside[2].headers, serde_json::json!({"caf\u{fffd}": "x"}));
        for name in ["before", "between", "after"] {
            for number in 0..20 {
                assert_eq!(app.effects(&format!("{name}-{number}")).await, [1, 1]);
            }
        }
        eventually("the receiver is at work", SOON, async || {
            same(app.adapter_state("writeDb").await, &"STARTED".to_owned())
        })
        .await;
        assert_eq!(app.metric("posthaste_parked_total").await, 3.0);
        let trace = app.get("/api/v1/messages/b-1").await;
        assert_eq!(trace["messages"][0]["store"][0]["type"], "H", "{trace}");
        let proved = app.command(&["prove"]);
        assert!(proved.status.success(), "{proved:?}");

        // What was set aside is the receiver's again when somebody says so.
        let id = "SELECT messagekey FROM ibisstore WHERE type = 'H' AND message = 'type'";
        let key: i64 = app.db.one(id, &[]).await;
        let resent = app.console(Method::POST, &format!("/api/v1/stores/write-db/messages/{key}/resend")).await;
        assert_eq!(resent.status, 200, "{resent:?}");
        app.processed("type", SOON).await;
    });
}

#[test]
fn tables_in_tables_without_end_are_parked_and_end_no_process() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.good("before").await;
        for levels in [64, 65, 1_000, 5_000] {
            let id = format!("deep-{levels}");
            let properties = [nested(levels), raw::short(id.as_bytes())].concat();
            app.bad(raw::HEADERS | raw::MESSAGE_ID, &properties, id.as_bytes()).await;
        }
        app.good("after").await;
        for number in 0..20 {
            app.processed(&format!("before-{number}"), LONG).await;
            app.processed(&format!("after-{number}"), LONG).await;
        }
        app.processed("deep-64", LONG).await;
        eventually("three are set aside", LONG, async || same(app.set_aside().await.len(), &3)).await;
        app.settled(LONG).await;
        let aside = app.set_aside().await;
        let found: Vec<(&str, &[u8], &str)> =
            aside.iter().map(|one| (one.message_id.as_str(), &one.body[..], one.comments.as_str())).collect();
        let why =
            "it cannot be read as others are: its headers are tables in tables without end; it was never processed";
        let wanted = ["deep-65", "deep-1000", "deep-5000"].map(|id| (id, id.as_bytes(), why));
        assert_eq!(found, wanted);
    });
}

#[test]
fn one_that_comes_again_is_known_by_its_id_and_without_an_id_each_is_kept() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let with_id = [raw::header(b"caf\xe9", b"x"), raw::short(b"again")].concat();
        for _ in 0..2 {
            app.bad(raw::HEADERS | raw::MESSAGE_ID, &with_id, b"with id").await;
            app.bad(raw::HEADERS, &raw::header(b"caf\xe9", b"x"), b"without").await;
        }
        app.good("after").await;
        app.processed("after-19", LONG).await;
        app.settled(LONG).await;
        let aside = app.set_aside().await;
        let bodies: Vec<&[u8]> = aside.iter().map(|one| &one.body[..]).collect();
        assert_eq!(bodies.iter().filter(|body| **body == b"with id").count(), 1, "{aside:?}");
        assert_eq!(bodies.iter().filter(|body| **body == b"without").count(), 2, "{aside:?}");
    });
}

#[test]
fn while_nothing_can_be_parked_it_stays_in_the_queue() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.db.batch("ALTER TABLE ibisstore ADD CONSTRAINT no_h CHECK (type <> 'H')").await;
        app.bad(raw::CONTENT_TYPE, &raw::short(b"caf\xe9"), b"stays").await;
        eventually("the adapter says why", LONG, async || {
            let adapters = app.get("/api/v1/adapters").await;
            let receiver = adapters["items"].as_array().unwrap().iter().find(|one| one["name"] == "writeDb").unwrap();
            let reason = receiver["reason"].as_str().unwrap_or_default();
            let told =
                receiver["state"] == "ERROR" && reason.contains("could not be set aside") && reason.contains(QUEUE);
            if told { Ok(()) } else { Err(adapters.to_string()) }
        })
        .await;
        app.db.batch("ALTER TABLE ibisstore DROP CONSTRAINT no_h").await;
        eventually("it is set aside", LONG, async || same(app.set_aside().await.len(), &1)).await;
        app.good("after").await;
        app.processed("after-19", LONG).await;
    });
}

/// A new one's url.
async fn vhost() -> String {
    let servers = Servers::shared().await;
    servers.rabbit.lock().await.create_vhost(&fresh_name("aside")).await.unwrap()
}

/// Connected to this url.
async fn at_broker(url: &str) -> (Broker, Lifecycle) {
    let settings = AmqpSettings {
        name: "rabbit".to_owned(),
        url: url.to_owned().into(),
        username: None,
        password: None,
        management_url: None,
        create_destination: true,
        queues: Vec::new(),
    };
    let lifecycle = Lifecycle::default();
    let broker = Broker::start(&settings, PublisherSettings::default(), &lifecycle).unwrap();
    assert!(broker.connected(LONG).await);
    (broker, lifecycle)
}

#[test]
fn what_can_be_read_is_given_back_in_its_order() {
    run(async {
        let url = vhost().await;
        let (broker, _lifecycle) = at_broker(&url).await;
        broker.ensure_queue("q").await.unwrap();
        for id in [&b"one"[..], b"two", b"caf\xe9", b"three"] {
            raw::publish(&url, "q", raw::MESSAGE_ID, &raw::short(id), id).await;
        }
        let mut aside = broker.look_for_unreadable("q", 10).await.unwrap();
        let one = aside.next(|_bytes| async {}).await.unwrap().unwrap();
        assert_eq!(
            (&one.message.body[..], one.message.what.as_str()),
            (&b"caf\xe9"[..], "its message id is not UTF-8")
        );
        aside.ack(one).await.unwrap();
        assert!(aside.next(|_bytes| async {}).await.unwrap().is_none());
        aside.close().await;

        let waiting = async |ready| {
            let all = QueueState { ready, consumers: 0 };
            eventually("they are back", SOON, async || same(broker.queue_state("q").await.unwrap(), &all)).await;
        };
        waiting(3).await;
        let amqp = lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await.unwrap();
        let channel = amqp.create_channel().await.unwrap();
        for wanted in ["one", "two", "three"] {
            let got = channel.basic_get("q".into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
            assert_eq!(got.delivery.data, wanted.as_bytes());
        }

        // No more are looked at than are asked for.
        for id in [&b"four"[..], b"caf\xe9"] {
            raw::publish(&url, "q", raw::MESSAGE_ID, &raw::short(id), id).await;
        }
        let mut aside = broker.look_for_unreadable("q", 1).await.unwrap();
        assert!(aside.next(|_bytes| async {}).await.unwrap().is_none());
        aside.close().await;
        waiting(2).await;
        assert!(broker.look_for_unreadable("none", 2).await.unwrap().next(|_bytes| async {}).await.is_err());
        broker.close().await;
    });
}
