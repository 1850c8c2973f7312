//! Servers and processes that hang and wake instead of dying, under load (protocol §§4, 5: IN8, IN9, DQ5, DQ6).

mod backlog;
mod clock;
mod pause;
mod poison;
mod redeploy;
mod rejecting_queue;
pub mod restored_copy;
mod standby;

use std::sync::Arc;
use std::time::Duration;

use crate::support::{App, LONG, SOON, Servers, eventually, run, same};
use crate::trial::{Trial, seed};

async fn some_seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[test]
#[ignore = "a minute each; make hang runs them"]
fn a_broker_that_hangs_and_wakes_costs_nothing() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        let trial = Trial::start("hanging-broker", seed(), &[app.api]);
        for _ in 0..2 {
            some_seconds(2).await;
            servers.rabbit.lock().await.pause().await.unwrap();
            some_seconds(12).await;
            servers.rabbit.lock().await.resume().unwrap();
            app.ready(LONG).await;
        }
        trial.judge(&mut app).await.accepted_at_least(50);
    });
}

#[test]
#[ignore = "a minute each; make hang runs them"]
fn a_database_that_hangs_and_wakes_costs_nothing() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        let trial = Trial::start("hanging-database", seed(), &[app.api]);
        for _ in 0..2 {
            some_seconds(2).await;
            servers.postgres.lock().await.pause().await.unwrap();
            some_seconds(8).await;
            servers.postgres.lock().await.resume().unwrap();
            app.ready(LONG).await;
        }
        trial.judge(&mut app).await.accepted_at_least(50);
    });
}

#[test]
#[ignore = "a minute each; make hang runs them"]
fn a_broker_that_blocks_its_publishers_for_want_of_memory_costs_nothing() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        let trial = Trial::start("alarm", seed(), &[app.api]);
        some_seconds(2).await;
        let alarm = "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []})";
        servers.rabbit.lock().await.eval(alarm).await.unwrap();
        app.not_ready(SOON).await;
        some_seconds(8).await;
        let clear = "rabbit_alarm:clear_alarm({resource_limit, memory, node()})";
        servers.rabbit.lock().await.eval(clear).await.unwrap();
        app.ready(LONG).await;
        trial.judge(&mut app).await.accepted_at_least(50);
    });
}

#[test]
#[ignore = "a minute each; make hang runs them"]
fn an_instance_that_was_frozen_beyond_its_lease_does_no_harm_when_it_wakes() {
    run(async {
        let mut first = App::start(Servers::shared().await).await;
        let mut second = first.sibling();
        second.run();
        second.ready(LONG).await;
        let trial = Trial::start("frozen", seed(), &[first.api, second.api]);
        some_seconds(2).await;
        for fenced in 1..=2 {
            first.freeze().await;
            some_seconds(6).await;
            eventually("the other has fenced it", LONG, async || {
                same(second.db.count("posthaste.instance WHERE state = 'FENCED'", &[]).await, &fenced)
            })
            .await;
            first.thaw();
            // Another instance has taken over its work; it notices and ends, and a new start is a new instance.
            assert_eq!(first.ended(SOON).await, Some(70));
            first.run();
            first.ready(LONG).await;
            some_seconds(2).await;
        }
        assert_eq!(first.stop().await, Some(0));
        trial.judge(&mut second).await.accepted_at_least(50);
    });
}

#[test]
#[ignore = "a minute each; make hang runs them"]
fn of_two_instances_one_may_be_killed_at_any_time() {
    run(async {
        let mut first = App::start(Servers::shared().await).await;
        let mut second = first.sibling();
        second.run();
        second.ready(LONG).await;
        let trial = Trial::start("two-instances", seed(), &[first.api, second.api]);
        for _ in 0..6 {
            some_seconds(1).await;
            for app in [&mut first, &mut second] {
                app.kill9().await;
                app.run();
                app.ready(LONG).await;
            }
        }
        assert_eq!(first.stop().await, Some(0));
        trial.judge(&mut second).await.accepted_at_least(50);
    });
}
