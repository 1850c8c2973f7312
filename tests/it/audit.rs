//! The audit of the journal: what nobody would find it finds, and tells (I9).

use crate::support::{App, LONG, Options, Servers, eventually, purge, run, same};

#[test]
fn an_open_message_that_nobody_looks_for_is_found_by_the_audit_processed_and_told() {
    run(async {
        let mut app = App::install(Servers::shared().await, Options::default()).await;
        app.run();
        app.ready(LONG).await;
        app.stop_adapter("writeDb").await;
        assert_eq!(app.post("forgotten", "forgotten").await.status, 202);
        let published = "posthaste.journal WHERE state = 'PUBLISHED'";
        eventually("it is marked", LONG, async || same(app.db.count(published, &[]).await, &1)).await;
        assert_eq!(app.stop().await, Some(0));
        // A hand in the tables, and the broker loses the message.
        assert_eq!(app.db.count("posthaste.unsettled", &[]).await, 1);
        app.db.rows("DELETE FROM posthaste.unsettled", &[]).await;
        purge(app.amqp_url(), "myQueue").await.unwrap();

        app.run();
        app.ready(LONG).await;
        app.start_adapter("writeDb").await;
        app.processed("forgotten", LONG).await;
        assert_eq!(app.metric("posthaste_unwatched_found_total").await, 1.0);
        let told = app.log_has("open journal rows that nobody looked for").await;
        assert!(told.len() == 1 && told[0].contains("ERROR") && told[0].contains("count=1"), "{told:?}");
        app.settled(LONG).await;
        app.everything_is_accounted_for();
        assert_eq!(app.stop().await, Some(0));
    });
}
