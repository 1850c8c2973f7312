//! A consumer that gives way to another on its channel, so that more or less is sent in advance.

mod interrupted;
mod together;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use lapin::BasicProperties;
use posthaste::broker::{AckToken, AmqpSettings, Broker, ConsumerSession, Delivery, Held, PublisherSettings};
use posthaste::lifecycle::Lifecycle;
use posthaste::model::HomeId;
use uuid::Uuid;

use crate::support::{Amqp, SOON, Servers, TcpRelay, depth, eventually, run, same};

const QUEUE: &str = "advance";
const HOME: HomeId = HomeId(Uuid::from_u128(7));

/// A queue with so many messages of so many bytes, each with its number as its id.
struct Bench {
    url: String,
    broker: Broker,
    _lifecycle: Lifecycle,
}

impl Bench {
    async fn of(messages: usize, bytes: usize) -> Self {
        Self::reached(messages, bytes, None).await
    }

    /// The same, reached through a relay.
    async fn behind_a_relay(messages: usize, bytes: usize) -> (Self, TcpRelay) {
        let port = Servers::shared().await.rabbit.lock().await.port();
        let relay = TcpRelay::start(([127, 0, 0, 1], port).into()).await;
        (Self::reached(messages, bytes, Some(relay.addr())).await, relay)
    }

    async fn reached(messages: usize, bytes: usize, at: Option<SocketAddr>) -> Self {
        let servers = Servers::shared().await;
        let rabbit = servers.rabbit.lock().await;
        let url = rabbit.create_vhost(&posthaste::dev::fresh_name("it")).await.unwrap();
        let port = rabbit.port();
        drop(rabbit);
        let reached = match at {
            Some(address) => url.replace(&format!("127.0.0.1:{port}"), &address.to_string()),
            None => url.clone(),
        };
        let settings = AmqpSettings {
            name: "rabbit".to_owned(),
            url: reached.into(),
            username: None,
            password: None,
            management_url: None,
            create_destination: true,
            queues: Vec::new(),
        };
        let lifecycle = Lifecycle::default();
        let broker = Broker::start(&settings, PublisherSettings::default(), &lifecycle).unwrap();
        assert!(broker.connected(SOON).await);
        broker.ensure_queue(QUEUE).await.unwrap();
        let bench = Self { url, broker, _lifecycle: lifecycle };
        bench.add(0..messages, bytes).await;
        bench
    }

    async fn add(&self, numbers: std::ops::Range<usize>, bytes: usize) {
        let amqp = Amqp::connect(&self.url).await;
        for number in numbers {
            let properties = BasicProperties::default().with_message_id(number.to_string().into());
            amqp.publish(QUEUE, properties, &vec![b'x'; bytes]).await;
        }
    }

    async fn consume(&self, prefetch: u16) -> ConsumerSession {
        self.broker.consume(QUEUE, prefetch, HOME).await.unwrap()
    }

    async fn ready(&self, wanted: u64) {
        eventually("so many are ready", SOON, async || same(depth(&self.url, QUEUE).await?, &wanted)).await;
    }
}

async fn next(session: &mut ConsumerSession) -> Delivery {
    tokio::time::timeout(SOON, session.next()).await.expect("a delivery in time").unwrap()
}

/// Takes so many and settles them at once; answers how many are marked as redelivered. None comes twice.
async fn take(session: &mut ConsumerSession, count: usize, seen: &mut BTreeSet<String>) -> usize {
    let mut redelivered = 0;
    for _ in 0..count {
        let delivery = next(session).await;
        redelivered += usize::from(delivery.incoming.redelivered);
        let id = delivery.incoming.message_id.as_ref().unwrap().to_string();
        assert!(seen.insert(id), "{:?}", delivery.incoming);
        delivery.token.ack().await.unwrap();
    }
    redelivered
}

/// Reads what is there until the next consumer waits for less to be held.
async fn emptying(session: &mut ConsumerSession) {
    let look = async || {
        let _never_ends = session.take_in().now_or_never();
        same(session.waits_for_less(), &true)
    };
    eventually("there is no consumer", SOON, look).await;
}

/// Reads what is there as long as nothing else is to be done.
async fn idle(session: &mut ConsumerSession, what: impl Future<Output = ()>) {
    tokio::select! {
        () = session.take_in() => {}
        () = what => {}
    }
}

#[test]
fn a_consumer_gives_way_to_a_larger_and_a_smaller_one_amid_its_work_and_each_message_comes_once() {
    run(async {
        const MANY: usize = 600;
        let bench = Bench::of(MANY, 10).await;
        let mut session = bench.consume(4).await;
        let mut seen = BTreeSet::new();
        let mut redelivered = take(&mut session, 10, &mut seen).await;
        session.consume_anew(64, usize::MAX);
        assert!(!session.is_steady());
        redelivered += take(&mut session, 200, &mut seen).await;
        assert!(session.is_steady());
        session.consume_anew(2, usize::MAX);
        redelivered += take(&mut session, 200, &mut seen).await;
        session.consume_anew(100, usize::MAX);
        redelivered += take(&mut session, MANY - 410, &mut seen).await;
        assert_eq!(seen.len(), MANY);
        // Not more than what the consumers that were cancelled could be sent.
        assert!(redelivered <= 4 + 64 + 2, "{redelivered}");
        session.close().await;
    });
}

#[test]
fn as_many_are_sent_in_advance_as_were_asked_for_last_and_nothing_comes_again_when_all_of_it_is_held() {
    run(async {
        let bench = Bench::of(50, 10).await;
        let mut session = bench.consume(1).await;
        let first = next(&mut session).await;
        bench.ready(49).await;
        session.consume_anew(20, usize::MAX);
        // The one that is held counts for the consumer before.
        idle(&mut session, bench.ready(29)).await;
        first.token.ack().await.unwrap();
        let held: Vec<AckToken> = drain(&mut session, 20).await;
        session.consume_anew(3, usize::MAX);
        idle(&mut session, bench.ready(26)).await;
        AckToken::ack_all(held).await.unwrap();
        bench.ready(26).await;
        session.close().await;
    });
}

async fn drain(session: &mut ConsumerSession, count: usize) -> Vec<AckToken> {
    let mut tokens = Vec::new();
    for _ in 0..count {
        let delivery = next(session).await;
        assert!(!delivery.incoming.redelivered, "{:?}", delivery.incoming);
        tokens.push(delivery.token);
    }
    tokens
}

#[test]
fn a_smaller_consumer_begins_once_enough_is_settled_of_what_is_held() {
    run(async {
        let bench = Bench::of(10, 1000).await;
        let mut session = bench.consume(4).await;
        let mut held = drain(&mut session, 4).await;
        session.consume_anew(1, 2500);
        let one = held.pop().unwrap();
        idle(&mut session, async { one.ack().await.unwrap() }).await;
        idle(&mut session, tokio::time::sleep(Duration::from_millis(300))).await;
        bench.ready(6).await;
        held.pop().unwrap().ack().await.unwrap();
        idle(&mut session, bench.ready(5)).await;
        let last = next(&mut session).await;
        assert!(!last.incoming.redelivered);
        session.close().await;
    });
}

#[test]
fn of_more_than_may_be_held_nothing_is_kept_and_it_comes_again_one_by_one() {
    run(async {
        const BYTES: usize = 100_000;
        let bench = Bench::of(20, BYTES).await;
        let mut session = bench.consume(100).await;
        session.hold_at_most(5 * BYTES, Held::default());
        idle(&mut session, bench.ready(15)).await;
        assert_eq!((session.overflow(), session.overflow()), (Some(BYTES), None));
        let mut seen = BTreeSet::new();
        assert_eq!(take(&mut session, 5, &mut seen).await, 0);
        assert_eq!(take(&mut session, 15, &mut seen).await, 15);
        session.close().await;
    });
}

#[test]
fn a_session_may_be_left_in_the_midst_of_a_change() {
    run(async {
        let bench = Bench::of(30, 10).await;
        for polled in 0..6_u32 {
            let mut session = bench.consume(4).await;
            let first = next(&mut session).await;
            session.consume_anew(10, usize::MAX);
            for _ in 0..polled {
                let _some = session.waiting();
                tokio::task::yield_now().await;
            }
            session.cancel().await;
            first.token.requeue().await.unwrap();
            session.close().await;
            bench.ready(30).await;
        }
    });
}
