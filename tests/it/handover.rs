//! A message for a queue of others that could not be published waits in the error store, and a resend publishes it.

use reqwest::Method;

use crate::bytes::{OTHERS, started};
use crate::support::{LONG, SOON, eventually, run};

/// A row whose ten publishes have failed, as the relay leaves it.
const TIRED: &str = "
WITH body AS (
    INSERT INTO posthaste.payload (tx_id, message_id, correlation_id, message)
    VALUES ('01900000-0000-7000-8000-000000000001', 'tired', 'tired', 'at last'::bytea)),
job AS (
    INSERT INTO posthaste.journal (tx_id, root_id, sha256, mode, destination, max_attempts, publishes)
    VALUES ('01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000001', sha256('at last'), 'HANDOVER',
            'rabbit/others', 10, 10))
INSERT INTO posthaste.due (tx_id, at) VALUES ('01900000-0000-7000-8000-000000000001', clock_timestamp())";

const STORED: &str = "FROM ibisstore WHERE type = 'E' AND slotid = 'rabbit/others' AND messageid = 'tired'";

#[test]
fn a_handover_that_ten_publishes_could_not_deliver_waits_in_its_own_slot_and_a_resend_delivers_it() {
    run(async {
        let (app, amqp) = started().await;
        app.db.rows(TIRED, &[]).await;
        let kept = format!("SELECT comments {STORED}");
        let comments: String = eventually("it is in the error store", LONG, async || {
            app.db.column::<String>(&kept, &[]).await.pop().ok_or_else(|| "no row".to_owned())
        })
        .await;
        assert!(comments.contains("cannot be published"), "{comments}");

        let key: i64 = app.db.one(&format!("SELECT messagekey {STORED}"), &[]).await;
        let path = format!("/api/v1/stores/rabbit%2Fothers/messages/{key}/resend");
        let reply = app.console(Method::POST, &path).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"outcome":"succeeded"}"#));

        let taken = amqp.take(OTHERS).await;
        assert_eq!(taken.body, b"at last");
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
