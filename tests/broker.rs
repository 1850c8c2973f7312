//! What `broker` promises, on a real RabbitMQ.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests fail loudly too")]

#[path = "broker/acks.rs"]
mod acks;
#[path = "broker/bench.rs"]
mod bench;
#[path = "broker/faults.rs"]
mod faults;
#[path = "broker/raw.rs"]
mod raw;
#[path = "broker/relay.rs"]
mod relay;
#[path = "broker/sessions.rs"]
mod sessions;
#[path = "broker/sizes.rs"]
mod sizes;

use std::time::{Duration, Instant};

use bench::{
    BOUND, HOME, Queue, SHARED, connected, message, next, one_lane, one_lane_with, publish_until, settings, start,
    stop, through, until,
};
use futures_util::future::join_all;
use posthaste::broker::{
    CallError, Ensured, LinkStatus, NotSent, PublishError, QueueState, ServerVersion, Source, TopologyError,
};
use relay::Relay;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_message_arrives_with_everything_that_travels() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    let sent = message(&queue.name);
    let _confirmed = broker.0.publisher().publish(sent.clone(), BOUND).await.unwrap();
    let mut session = broker.0.consume(&queue.name, 10, HOME).await.unwrap();
    let delivery = next(&mut session).await.unwrap();
    let (got, envelope) = (&delivery.incoming, &sent.envelope);
    let source = Source::Own {
        tx_id: envelope.tx_id,
        root_id: Some(envelope.root_id),
        attempts: 2,
        published_at: Some(sent.published_at),
    };
    assert_eq!(got.source, source);
    assert_eq!(got.message_id.as_ref(), Some(&envelope.message_id));
    assert_eq!(got.correlation_id.as_ref(), Some(&envelope.correlation_id));
    assert_eq!((&got.content_type, &got.headers), (&envelope.content_type, &envelope.headers));
    assert_eq!(got.body, envelope.body);
    assert!(!got.redelivered);
    delivery.token.ack().await.unwrap();
    session.close().await;
    let empty = QueueState { ready: 0, consumers: 0 };
    until("the queue is empty", async || broker.0.queue_state(&queue.name).await.unwrap() == empty).await;
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_message_is_persistent_and_named_by_its_tx_id() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    let sent = message(&queue.name);
    let _confirmed = broker.0.publisher().publish(sent.clone(), BOUND).await.unwrap();
    let got = queue.channel.basic_get(queue.name.as_str().into(), Default::default()).await.unwrap().unwrap();
    assert_eq!(*got.properties.delivery_mode(), Some(2));
    assert_eq!(got.properties.message_id().as_ref().unwrap().as_str(), sent.envelope.tx_id.to_string());
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_unroutable_ones_of_many_pipelined_messages_are_returned() {
    let (queue, broker) = (Queue::declared(SHARED, "classic").await, connected(SHARED).await);
    let nowhere = format!("{}-nowhere", queue.name);
    for _ in 0..30 {
        let publishes = (0..200).map(|i| {
            let lost = i % 2 == 0;
            let (publisher, to) = (broker.0.publisher(), if lost { &nowhere } else { &queue.name });
            async move { (lost, publisher.publish(message(to), BOUND).await) }
        });
        for (lost, outcome) in join_all(publishes).await {
            match outcome {
                Ok(_) => assert!(!lost, "an unroutable message was confirmed"),
                Err(PublishError::Returned { reason }) => assert!(lost && reason.contains("NO_ROUTE"), "{reason}"),
                Err(error) => panic!("{error}"),
            }
        }
    }
    let state = broker.0.queue_state(&queue.name).await.unwrap();
    assert_eq!(state.ready, 3000);
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_published_together_are_answered_each_for_itself_and_in_their_order() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    let nowhere = format!("{}-nowhere", queue.name);
    for kinds in ["", "u", "uu", "c", "cuc", "ucrcu", "rurcc"] {
        let one = |kind| match kind {
            'c' => message(&queue.name),
            'r' => message(&nowhere),
            _ => message(""),
        };
        let answers = broker.0.publisher().publish_all(kinds.chars().map(one).collect(), BOUND).await.all().await;
        let read = |answer: &Result<_, PublishError>| match answer {
            Ok(_) => 'c',
            Err(PublishError::Returned { .. }) => 'r',
            Err(PublishError::NotSent(NotSent::Unfit(_))) => 'u',
            Err(error) => panic!("{error}"),
        };
        assert_eq!(answers.iter().map(read).collect::<String>(), kinds);
    }
    assert_eq!(broker.0.queue_state(&queue.name).await.unwrap().ready, 7);
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_comes_back_is_never_confirmed_wherever_it_stands_among_many() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    let nowhere = format!("{}-nowhere", queue.name);
    for round in 0..200 {
        let lost = 99 - (round * 7) % 100;
        let messages = (0..100).map(|at| message(if at == lost { &nowhere } else { &queue.name })).collect();
        let answers = broker.0.publisher().publish_all(messages, BOUND).await.all().await;
        for (at, answer) in answers.iter().enumerate() {
            let came_back = matches!(answer, Err(PublishError::Returned { .. }));
            assert!(came_back == (at == lost) && (came_back || answer.is_ok()), "{round}: {at} of {lost}: {answer:?}");
        }
        assert_eq!(answers.len(), 100);
    }
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_is_told_and_takes_no_room_while_others_of_its_group_are_still_open() {
    let (queue, relay) = (Queue::declared(SHARED, "quorum").await, Relay::start(SHARED).await);
    // Ten small ones and the large one take 211 KiB of it.
    let broker = one_lane_with(&settings(&relay.address.to_string()), 212 * 1024).await;
    let _confirmed = broker.0.publisher().publish(message(&queue.name), BOUND).await.unwrap();
    let mut large = message(&queue.name);
    large.envelope.body = vec![b'x'; 200 * 1024].into();
    let group = (0..10).map(|_| message(&queue.name)).chain([large]).collect();
    let beside = connected(SHARED).await;
    relay.stall_after(64 * 1024);
    let mut publishing = broker.0.publisher().publish_all(group, BOUND).await;
    let mut places = Vec::new();
    while places.len() < 10 {
        let some = publishing.some().await;
        assert!(some.iter().all(|(_, answer)| answer.is_ok()), "{some:?}");
        places.extend(some.iter().map(|(at, _)| *at));
    }
    assert_eq!(places, (0..10).collect::<Vec<_>>());
    let mut ten_times = message(&queue.name);
    ten_times.envelope.body = vec![b'x'; 8 * 1024].into();
    let next = broker.0.publisher().publish(ten_times, Duration::from_millis(300)).await;
    assert!(matches!(next, Err(PublishError::NotSent(NotSent::Expired))), "{next:?}");
    assert_eq!(beside.0.queue_state(&queue.name).await.unwrap().ready, 11);
    relay.carry();
    assert!(matches!(publishing.some().await.as_slice(), [(10, Ok(_))]));
    assert!(publishing.some().await.is_empty());
    stop(beside).await;
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_confirms_nothing_that_is_not_in_the_queue_and_comes_back() {
    let (queue, relay) = (Queue::declared(SHARED, "quorum").await, Relay::start(SHARED).await);
    let broker = through(relay.address).await;
    let confirmed = publish_until(broker.0.publisher(), &queue.name, async || relay.cut()).await;
    assert!(matches!(broker.0.publish_status(), LinkStatus::Down { .. }));
    assert!(!broker.0.publisher().is_ready());
    relay.carry();
    assert!(broker.0.connected(BOUND).await);
    let state = broker.0.queue_state(&queue.name).await.unwrap();
    assert!(state.ready >= confirmed, "{confirmed} confirmed, {} in the queue", state.ready);
    let _confirmed = broker.0.publisher().publish(message(&queue.name), BOUND).await.unwrap();
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_connection_is_unknown_within_the_bound_and_given_up() {
    let (queue, relay) = (Queue::declared(SHARED, "quorum").await, Relay::start(SHARED).await);
    let broker = one_lane(&settings(&relay.address.to_string())).await;
    let _confirmed = broker.0.publisher().publish(message(&queue.name), BOUND).await.unwrap();
    relay.stall();
    let began = Instant::now();
    let bound = Duration::from_secs(5);
    let outcomes = join_all((0..50).map(|_| broker.0.publisher().publish(message(&queue.name), bound))).await;
    assert!(began.elapsed() < bound + Duration::from_secs(1), "{:?}", began.elapsed());
    let unknown = outcomes.iter().filter(|outcome| matches!(outcome, Err(PublishError::Unknown(_)))).count();
    let waited = outcomes.iter().filter(|o| matches!(o, Err(PublishError::NotSent(NotSent::Expired)))).count();
    assert!(unknown > 0 && unknown + waited == 50, "{outcomes:?}");
    until("the connection is given up", async || matches!(broker.0.publish_status(), LinkStatus::Down { .. })).await;
    let refused = broker.0.publisher().publish(message(&queue.name), BOUND).await;
    assert!(matches!(refused, Err(PublishError::NotSent(NotSent::Down(_)))), "{refused:?}");
    relay.carry();
    assert!(broker.0.connected(BOUND).await);
    let _confirmed = broker.0.publisher().publish(message(&queue.name), BOUND).await.unwrap();
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_into_a_stalled_connection_do_not_pile_up_in_memory() {
    let (queue, relay) = (Queue::declared(SHARED, "quorum").await, Relay::start(SHARED).await);
    let broker = through(relay.address).await;
    relay.stall();
    let large = || {
        let mut message = message(&queue.name);
        message.envelope.body = vec![b'x'; 1024 * 1024].into();
        message
    };
    let outcomes = join_all((0..80).map(|_| broker.0.publisher().publish(large(), Duration::from_secs(2)))).await;
    let full = outcomes.iter().filter(|o| matches!(o, Err(PublishError::NotSent(NotSent::Full)))).count();
    assert!((48..=50).contains(&full), "{full} of 80 MiB were refused; 32 MiB may be under way");
    assert!(outcomes.iter().all(Result::is_err));
    relay.carry();
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_whose_caller_went_away_is_published_all_the_same() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    let publish = broker.0.publisher().publish(message(&queue.name), BOUND);
    let impatient = tokio::time::timeout(Duration::ZERO, publish).await;
    assert!(impatient.is_err(), "it was confirmed at once");
    until("it is in the queue", async || broker.0.queue_state(&queue.name).await.unwrap().ready == 1).await;
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_confirms_what_waits_and_takes_nothing_more() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    let publisher = broker.0.publisher().clone();
    let waiting = join_all((0..500).map(|_| publisher.publish(message(&queue.name), BOUND)));
    let close = async {
        tokio::task::yield_now().await;
        stop(broker).await;
    };
    let (outcomes, ()) = tokio::join!(waiting, close);
    for outcome in outcomes {
        assert!(matches!(outcome, Ok(_) | Err(PublishError::NotSent(NotSent::Closed))), "{outcome:?}");
    }
    let late = publisher.publish(message(&queue.name), BOUND).await;
    assert!(matches!(late, Err(PublishError::NotSent(NotSent::Closed))), "{late:?}");
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_queue_is_made_or_named_as_missing() {
    let queue = Queue::named(SHARED).await;
    let mut forbidden = settings(SHARED);
    forbidden.create_destination = false;
    let broker = start(&forbidden);
    assert!(broker.0.connected(BOUND).await);
    let error = broker.0.ensure_queue(&queue.name).await.unwrap_err();
    assert!(matches!(error, TopologyError::Missing { .. }));
    assert_eq!(
        error.to_string(),
        format!("queue {} does not exist on rabbit; make it there, or set createDestination: true", queue.name)
    );
    let consumed = broker.0.consume(&queue.name, 10, HOME).await;
    assert!(matches!(consumed.err(), Some(CallError::NoQueue(name)) if name == queue.name));
    stop(broker).await;
    let broker = connected(SHARED).await;
    assert_eq!(broker.0.ensure_queue(&queue.name).await.unwrap(), Ensured::Declared);
    assert_eq!(broker.0.ensure_queue(&queue.name).await.unwrap(), Ensured::Existed);
    assert!(broker.0.server_version().await.unwrap() >= ServerVersion(3, 8, 0));
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_classic_queue_is_left_as_it_is_and_used() {
    let (queue, broker) = (Queue::declared(SHARED, "classic").await, connected(SHARED).await);
    assert_eq!(broker.0.ensure_queue(&queue.name).await.unwrap(), Ensured::Existed);
    let _confirmed = broker.0.publisher().publish(message(&queue.name), BOUND).await.unwrap();
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_without_the_password() {
    let mut wrong = settings(SHARED);
    wrong.password = Some("not-the-password".into());
    let broker = start(&wrong);
    let told = async || match broker.0.publish_status() {
        LinkStatus::Down { reason, .. } => {
            assert!(!reason.contains("not-the-password"), "{reason}");
            reason.contains("ACCESS_REFUSED")
        }
        LinkStatus::Up | LinkStatus::Blocked { .. } => panic!("it let us in"),
    };
    until("the refusal is told", told).await;
    let refused = broker.0.publisher().publish(message("anywhere"), BOUND).await;
    assert!(matches!(refused, Err(PublishError::NotSent(NotSent::Down(_)))), "{refused:?}");
    stop(broker).await;
}
