//! What servers refuse is logged in their own words, also where nobody waits for the answer.

use crate::support::{Amqp, App, LONG, Options, Servers, eventually, run, same};

#[test]
fn a_statement_that_is_refused_in_the_background_is_told_with_the_server_s_reason() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.stop_adapter("writeDb").await;
        app.db
            .batch(
                "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
                 CREATE TRIGGER no_space BEFORE UPDATE ON posthaste.journal EXECUTE FUNCTION no_space()",
            )
            .await;
        assert_eq!(app.post("one", "one").await.status, 202);
        let lines = app.log_has("PostgreSQL refused a statement").await;
        assert!(lines[0].contains("WARN") && lines[0].contains("53100"), "{lines:?}");
        assert!(lines[0].contains("could not extend file") && lines[0].contains("main"), "{lines:?}");
    });
}

#[test]
fn a_queue_that_another_reads_alone_is_told_with_the_broker_s_reason() {
    run(async {
        let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
        let amqp = Amqp::connect(app.amqp_url()).await;
        amqp.declare("myQueue").await;
        let alone = amqp.consume_alone("myQueue").await;
        app.migrate();
        app.run();
        app.ready(LONG).await;
        let lines = app.log_has("a receiver does not consume").await;
        assert!(lines[0].contains("WARN") && lines[0].contains("writeDb"), "{lines:?}");
        assert!(lines[0].contains("ACCESS_REFUSED") && lines[0].contains("exclusive"), "{lines:?}");
        drop((alone, amqp));
        eventually("it consumes", LONG, async || same(app.adapter_state("writeDb").await, &"STARTED".to_owned())).await;
    });
}
