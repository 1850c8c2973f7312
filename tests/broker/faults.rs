//! What a RabbitMQ of our own does to us: alarms, kill -9, a standstill.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use posthaste::broker::{LinkStatus, NotSent, PublishError, PublisherSettings, QueueState};
use posthaste::dev::{Options, PrivateRabbit};

use super::bench::{BOUND, HOME, message, next, one_lane, publish_until, publishing, settings, start, stop, until};
use super::relay::Relay;

async fn private() -> PrivateRabbit {
    PrivateRabbit::start(&Options::default()).await.unwrap()
}

fn at(rabbit: &PrivateRabbit) -> posthaste::broker::AmqpSettings {
    let mut settings = settings("replaced");
    settings.url = rabbit.url("/").into();
    settings
}

async fn watermark(rabbit: &PrivateRabbit, fraction: &str) {
    let said = rabbit.eval(&format!("vm_memory_monitor:set_vm_memory_high_watermark({fraction})")).await.unwrap();
    assert_eq!(said, "ok");
}

/// The states of the broker's connections.
async fn states(rabbit: &PrivateRabbit) -> String {
    rabbit.eval("rabbit_networking:connection_info_all([state])").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_blocks_publishing_only_and_ends_without_a_reconnect() {
    let rabbit = private().await;
    let broker = start(&at(&rabbit));
    assert!(broker.0.connected(BOUND).await);
    broker.0.ensure_queue("q").await.unwrap();
    let publisher = broker.0.publisher();
    let _confirmed = publisher.publish(message("q"), BOUND).await.unwrap();
    let mut session = broker.0.consume("q", 10, HOME).await.unwrap();
    let delivery = next(&mut session).await.unwrap();

    watermark(&rabbit, "0.0000001").await;
    let first = publisher.publish(message("q"), Duration::from_secs(2)).await;
    assert!(matches!(first, Err(PublishError::Unknown(_))), "{first:?}");
    assert!(matches!(publisher.status(), LinkStatus::Blocked { .. }), "{:?}", publisher.status());
    assert!(!publisher.is_ready());
    let began = Instant::now();
    let second = publisher.publish(message("q"), BOUND).await;
    assert!(matches!(second, Err(PublishError::NotSent(NotSent::Blocked(_)))), "{second:?}");
    assert!(began.elapsed() < Duration::from_millis(100));
    delivery.token.ack().await.unwrap();
    assert_eq!(broker.0.queue_state("q").await.unwrap(), QueueState { ready: 0, consumers: 1 });

    tokio::time::sleep(Duration::from_secs(6)).await; // past the bound of the first group's confirm
    assert!(matches!(publisher.status(), LinkStatus::Blocked { .. }), "{:?}", publisher.status());
    watermark(&rabbit, "0.6").await;
    until("publishing goes on", async || publisher.is_ready()).await;
    next(&mut session).await.unwrap().token.ack().await.unwrap(); // the first one, late: it was rightly unknown
    let _confirmed = publisher.publish(message("q"), BOUND).await.unwrap();
    next(&mut session).await.unwrap().token.ack().await.unwrap();
    session.close().await;
    stop(broker).await;
    rabbit.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_that_comes_while_a_channel_is_opened_costs_no_connection() {
    let rabbit = private().await;
    let relay = Relay::start(&format!("127.0.0.1:{}", rabbit.port())).await;
    let mut settings = at(&rabbit);
    let direct = format!(":{}/", rabbit.port());
    settings.url = rabbit.url("/").replace(&direct, &format!(":{}/", relay.address.port())).into();
    let lanes = PublisherSettings { lanes: 2, group_messages: 1, ..PublisherSettings::default() };
    let broker = publishing(&settings, lanes).await;
    broker.0.ensure_queue("q").await.unwrap();
    let publisher = broker.0.publisher();
    let _confirmed = publisher.publish(message("q"), BOUND).await.unwrap();
    // One of the two lanes has its channel, and publishes; the other opens it. Neither hears that the broker is blocked.
    watermark(&rabbit, "0.0000001").await;
    relay.stall_answers();
    let both = join_all((0..2).map(async |_| publisher.publish(message("q"), BOUND).await));
    let heard = async {
        until("the broker reads no more", async || states(&rabbit).await.contains("blocked")).await;
        relay.carry();
    };
    let (told, ()) = tokio::join!(both, heard);
    let unknown = told.iter().filter(|told| matches!(told, Err(PublishError::Unknown(_)))).count();
    let blocked = |told: &&_| matches!(told, Err(PublishError::NotSent(NotSent::Blocked(_))));
    assert_eq!([unknown, told.iter().filter(blocked).count()], [1, 1], "{told:?}");

    tokio::time::sleep(Duration::from_secs(6)).await; // past the bound of a call
    assert!(matches!(publisher.status(), LinkStatus::Blocked { .. }), "{:?}", publisher.status());
    watermark(&rabbit, "0.6").await;
    until("publishing goes on", async || publisher.is_ready()).await;
    let again = join_all((0..2).map(async |_| publisher.publish(message("q"), BOUND).await)).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    stop(broker).await;
    rabbit.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_before_a_kill_is_there_after_it() {
    let mut rabbit = private().await;
    let broker = start(&at(&rabbit));
    assert!(broker.0.connected(BOUND).await);
    broker.0.ensure_queue("q").await.unwrap();
    // 3.10.8 loses confirmed messages of a quorum queue declared within about a second before kill -9 (protocol §8).
    tokio::time::sleep(Duration::from_secs(2)).await;
    let publisher = broker.0.publisher().clone();
    let confirmed = publish_until(&publisher, "q", async || rabbit.kill9().await.unwrap()).await;
    rabbit.start_again().await.unwrap();
    assert!(broker.0.connected(Duration::from_secs(60)).await);
    let all_back = async || broker.0.queue_state("q").await.is_ok_and(|q| q.ready >= confirmed);
    until("the confirmed ones are back", all_back).await;
    let _confirmed = publisher.publish(message("q"), BOUND).await.unwrap();
    stop(broker).await;
    rabbit.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stands_still_is_given_up_and_found_again() {
    let mut rabbit = private().await;
    let broker = one_lane(&at(&rabbit)).await;
    broker.0.ensure_queue("q").await.unwrap();
    let _confirmed = broker.0.publisher().publish(message("q"), BOUND).await.unwrap();
    rabbit.pause().await.unwrap();
    let began = Instant::now();
    let outcome = broker.0.publisher().publish(message("q"), BOUND).await;
    assert!(matches!(outcome, Err(PublishError::Unknown(_))), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    until("it is given up", async || matches!(broker.0.publish_status(), LinkStatus::Down { .. })).await;
    rabbit.resume().unwrap();
    until("it publishes again", async || broker.0.publisher().publish(message("q"), BOUND).await.is_ok()).await;
    stop(broker).await;
    rabbit.shutdown().await.unwrap();
}
