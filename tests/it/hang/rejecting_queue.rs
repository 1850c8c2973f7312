//! A queue that takes nothing for a while, under load: full, and silent.

use std::sync::Arc;

use lapin::types::AMQPValue;

use super::some_seconds;
use crate::backpressure::{full_at, process, with_queue};
use crate::support::{LONG, Servers, run};
use crate::trial::{Trial, seed};

#[test]
#[ignore = "minutes; make hang runs it"]
fn a_queue_that_is_full_and_then_does_not_confirm_costs_nothing() {
    run(async {
        let servers = Servers::own().await;
        let mut arguments = full_at(200);
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let (mut app, _amqp) = with_queue(Arc::clone(&servers), arguments).await;
        let process = process(&app);
        let trial = Trial::start("rejecting-queue", seed(), &[app.api]);
        for _ in 0..2 {
            some_seconds(2).await;
            app.stop_adapter("writeDb").await;
            app.not_ready(LONG).await;
            some_seconds(5).await;
            app.start_adapter("writeDb").await;
            app.ready(LONG).await;
            some_seconds(2).await;
            let eval = async |what: &str| servers.rabbit.lock().await.eval(what).await.unwrap();
            assert_eq!(eval(&format!("sys:suspend({process})")).await, "ok");
            app.not_ready(LONG).await;
            some_seconds(5).await;
            assert_eq!(eval(&format!("sys:resume({process})")).await, "ok");
            app.ready(LONG).await;
        }
        trial.judge(&mut app).await.accepted_at_least(50);
    });
}
