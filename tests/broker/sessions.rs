//! Sessions of consumers: how they end, and what becomes of what was delivered.

use posthaste::broker::{AckError, LinkStatus, QueueState, SessionEnd, Source};

use crate::bench::{BOUND, HOME, Queue, SHARED, connected, message, next, stop, through, until};
use crate::raw;
use crate::relay::Relay;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unsettled_delivery_comes_again_marked_and_its_old_token_is_dead() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    let _confirmed = broker.0.publisher().publish(message(&queue.name), BOUND).await.unwrap();
    let mut session = broker.0.consume(&queue.name, 10, HOME).await.unwrap();
    let first = next(&mut session).await.unwrap();
    session.close().await;
    assert!(matches!(first.token.ack().await, Err(AckError::ChannelGone)));
    let mut session = broker.0.consume(&queue.name, 10, HOME).await.unwrap();
    let again = next(&mut session).await.unwrap();
    assert!(again.incoming.redelivered);
    assert_eq!(again.incoming.source, first.incoming.source);
    again.token.requeue().await.unwrap();
    let third = next(&mut session).await.unwrap();
    third.token.ack().await.unwrap();
    session.close().await;
    let empty = QueueState { ready: 0, consumers: 0 };
    until("the queue is empty", async || broker.0.queue_state(&queue.name).await.unwrap() == empty).await;
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_ends_the_session_and_its_tokens() {
    let (queue, relay) = (Queue::declared(SHARED, "quorum").await, Relay::start(SHARED).await);
    let broker = through(relay.address).await;
    let _confirmed = broker.0.publisher().publish(message(&queue.name), BOUND).await.unwrap();
    let mut session = broker.0.consume(&queue.name, 10, HOME).await.unwrap();
    let first = next(&mut session).await.unwrap();
    relay.cut();
    assert!(matches!(next(&mut session).await, Err(SessionEnd::ConnectionLost { .. })));
    assert!(matches!(first.token.ack().await, Err(AckError::ChannelGone)));
    session.close().await;
    relay.carry();
    assert!(broker.0.connected(BOUND).await);
    let mut session = broker.0.consume(&queue.name, 10, HOME).await.unwrap();
    assert!(next(&mut session).await.unwrap().incoming.redelivered);
    session.close().await;
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_the_queue_ends_the_session_as_cancelled() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    let mut session = broker.0.consume(&queue.name, 10, HOME).await.unwrap();
    queue.delete().await;
    assert_eq!(next(&mut session).await.unwrap_err(), SessionEnd::Cancelled);
    session.close().await;
    stop(broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_session_takes_nothing_more_but_settles_what_it_has() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    let publisher = broker.0.publisher();
    let _confirmed = publisher.publish(message(&queue.name), BOUND).await.unwrap();
    let mut session = broker.0.consume(&queue.name, 10, HOME).await.unwrap();
    let delivery = next(&mut session).await.unwrap();
    session.cancel().await;
    let _confirmed = publisher.publish(message(&queue.name), BOUND).await.unwrap();
    assert_eq!(next(&mut session).await.unwrap_err(), SessionEnd::Closed);
    delivery.token.ack().await.unwrap();
    session.close().await;
    let one = QueueState { ready: 1, consumers: 0 };
    until("only the second is left", async || broker.0.queue_state(&queue.name).await.unwrap() == one).await;
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_read_stops_its_own_queue_only() {
    let (queue, poisoned) = (Queue::declared(SHARED, "quorum").await, Queue::declared(SHARED, "quorum").await);
    let broker = connected(SHARED).await;
    let guest = format!("amqp://guest:guest@{SHARED}/%2f");
    raw::publish(&guest, &queue.name, raw::MESSAGE_ID, &raw::short(b"readable"), b"hi").await;
    raw::publish(&guest, &poisoned.name, raw::HEADERS, &raw::header(b"caf\xe9", b"x"), b"hi").await;
    raw::publish(&guest, &poisoned.name, raw::CONTENT_TYPE, &raw::short(b"caf\xe9"), b"hi").await;
    let mut first = broker.0.consume(&poisoned.name, 10, HOME).await.unwrap();
    let lost = next(&mut first).await.unwrap_err();
    assert!(matches!(lost, SessionEnd::ConnectionLost { .. }), "it may have been any queue's message: {lost:?}");
    assert!(broker.0.connected(BOUND).await);

    let mut good = broker.0.consume(&queue.name, 10, HOME).await.unwrap();
    let delivery = next(&mut good).await.unwrap();
    let mut bad = broker.0.consume(&poisoned.name, 10, HOME).await.unwrap();
    assert_eq!(next(&mut bad).await.unwrap_err(), SessionEnd::Unreadable);
    assert_eq!(delivery.incoming.source, Source::Foreign { message_id: Some("readable".to_owned()) });
    delivery.token.ack().await.unwrap();
    assert_eq!(broker.0.consume_status(), LinkStatus::Up);
    good.close().await;
    bad.close().await;
    stop(broker).await;
    queue.gone().await;
    poisoned.gone().await;
}
