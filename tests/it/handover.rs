//! A message for a queue of others that the broker does not take waits in the error store, and a resend publishes it.

use std::sync::Arc;

use reqwest::Method;

use crate::bytes::{OTHERS, configured};
use crate::support::{Amqp, App, LONG, Options, SOON, Servers, eventually, run};

fn tired(queue: &str) -> String {
    TIRED.replace("rabbit/others", &format!("rabbit/{queue}"))
}

/// A row of which the broker has not taken nine publishes, as the relay leaves it.
const TIRED: &str = "
WITH body AS (
    INSERT INTO posthaste.payload (tx_id, message_id, correlation_id, message)
    VALUES ('01900000-0000-7000-8000-000000000001', 'tired', 'tired', convert_to(repeat('x', 100001), 'UTF8'))),
job AS (
    INSERT INTO posthaste.journal (tx_id, root_id, sha256, mode, destination, max_attempts, publishes)
    VALUES ('01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000001',
            sha256(convert_to(repeat('x', 100001), 'UTF8')), 'HANDOVER', 'rabbit/others', 10, 9))
INSERT INTO posthaste.due (tx_id, at) VALUES ('01900000-0000-7000-8000-000000000001', clock_timestamp())";

#[test]
fn a_handover_that_the_broker_does_not_take_waits_in_its_own_slot_and_a_resend_delivers_it() {
    waits_in_its_slot(OTHERS, "rabbit/others");
}

#[test]
fn so_does_one_to_a_queue_whose_name_is_longer_than_a_slot_s() {
    let queue = "orders.outgoing.to.the.archive.".repeat(8);
    let slot = posthaste::model::Destination::queue("rabbit", &queue).error_slot();
    waits_in_its_slot(&queue, slot.as_str());
}

fn waits_in_its_slot(queue: &str, slot: &str) {
    let stored = format!("FROM ibisstore WHERE type = 'E' AND slotid = '{slot}' AND messageid = 'tired'");
    run(async {
        let servers = Servers::own().await;
        let largest = async |bytes: u32| {
            let set = format!("application:set_env(rabbit, max_message_size, {bytes})");
            assert_eq!(servers.rabbit.lock().await.eval(&set).await.unwrap(), "ok");
        };
        largest(100_000).await;
        let mut app = App::lay_out(Arc::clone(&servers), Options::default()).await;
        configured(&app);
        let file = "configurations/bytes/adapters.yml";
        let adapters = std::fs::read_to_string(app.folder().join(file)).unwrap();
        app.write(file, &adapters.replace("destinationName: others }", &format!("destinationName: {queue} }}")));
        app.migrate();
        app.run();
        app.ready(LONG).await;
        let amqp = Amqp::connect(app.amqp_url()).await;
        app.db.rows(&tired(queue), &[]).await;
        let kept = format!("SELECT comments {stored}");
        let comments: String = eventually("it is in the error store", LONG, async || {
            app.db.column::<String>(&kept, &[]).await.pop().ok_or_else(|| "no row".to_owned())
        })
        .await;
        assert!(comments.contains("cannot be published") && comments.contains("message size 100001"), "{comments}");

        // A channel keeps the bound that it began with.
        largest(200_000).await;
        assert_eq!(app.stop().await, Some(0));
        app.run();
        app.ready(LONG).await;

        let key: i64 = app.db.one(&format!("SELECT messagekey {stored}"), &[]).await;
        let path = format!("/api/v1/stores/{}/messages/{key}/resend", slot.replace('/', "%2F"));
        let reply = app.console(Method::POST, &path).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"outcome":"succeeded"}"#));

        let taken = amqp.take(queue).await;
        assert_eq!(taken.body, [b'x'; 100_001]);
        let left: Vec<String> = app.db.column(&kept, &[]).await;
        assert!(left.is_empty(), "{left:?}");
        let open = "SELECT count(*) FROM posthaste.journal WHERE state IN ('READY', 'PUBLISHED')";
        eventually("its row is settled", SOON, async || match app.db.one::<i64>(open, &[]).await {
            0 => Ok(()),
            open => Err(format!("{open} open rows")),
        })
        .await;
        assert_eq!(app.console(Method::POST, &path).await.status, 404);
    });
}
