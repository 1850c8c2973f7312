//! What is larger than one frame, or fills one.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use posthaste::broker::{MAX_HEADER_BYTES, PublishError, Source};
use posthaste::model::Headers;

use crate::bench::{BOUND, HOME, Queue, SHARED, connected, message, next, stop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_headers_as_may_travel_go_out_come_back_and_arrive_with_a_body_of_many_frames() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    // A name of one byte, and six that each header costs.
    let headers = Headers::from([("a".to_owned(), "x".repeat(MAX_HEADER_BYTES - 7))]);
    let body = vec![b'x'; 300 * 1024];
    let mut sent = message("nobody-has-declared-it");
    sent.envelope.headers = headers.clone();
    sent.envelope.body = body.clone().into();
    let returned = broker.0.publisher().publish(sent.clone(), BOUND).await;
    assert!(matches!(returned, Err(PublishError::Returned { .. })), "{returned:?}");
    sent.queue.clone_from(&queue.name);
    let _confirmed = broker.0.publisher().publish(sent, BOUND).await.unwrap();
    let mut session = broker.0.consume(&queue.name, 10, HOME).await.unwrap();
    let got = next(&mut session).await.unwrap();
    assert!(got.incoming.headers == headers && got.incoming.body == body);
    got.token.ack().await.unwrap();
    session.close().await;
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_headers_fill_nearly_a_whole_frame_of_the_brokers_is_delivered() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    let mut table = FieldTable::default();
    // RabbitMQ's frames have 128 KiB by default.
    table.insert("theirs".into(), AMQPValue::LongString("x".repeat(120 * 1024).into()));
    let properties = BasicProperties::default().with_headers(table).with_message_id("theirs".into());
    let name = queue.name.as_str();
    let publish = queue.channel.basic_publish("".into(), name.into(), Default::default(), b"hi", properties);
    publish.await.unwrap().await.unwrap();
    let mut session = broker.0.consume(&queue.name, 10, HOME).await.unwrap();
    let got = next(&mut session).await.unwrap();
    assert_eq!(got.incoming.source, Source::Foreign { message_id: Some("theirs".to_owned()) });
    assert_eq!(got.incoming.body, b"hi".as_slice());
    got.token.ack().await.unwrap();
    session.close().await;
    stop(broker).await;
    queue.gone().await;
}
