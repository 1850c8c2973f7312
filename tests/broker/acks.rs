//! Acknowledging many at once.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use posthaste::broker::{AckError, AckToken, Broker, ConsumerSession, Delivery, QueueState, Source};
use posthaste::model::TxId;
use tokio::task::JoinSet;

use super::bench::{BOUND, HOME, Queue, SHARED, connected, message, next, stop, through, until};
use super::relay::Relay;

const PREFETCH: u16 = 100;
const MANY: usize = 4000;

async fn publish(broker: &Broker, queue: &str, count: usize) {
    let publishes = join_all((0..count).map(|_| broker.publisher().publish(message(queue), BOUND))).await;
    assert_eq!(publishes.into_iter().filter(Result::is_ok).count(), count);
}

async fn take(session: &mut ConsumerSession, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(next(session).await.unwrap());
    }
    taken
}

/// Fills all slots but `kept` anew, which takes that every acknowledgement so far has freed its own, and closes: only
/// the new ones and the kept ones may come again. (What a quorum queue has not processed when a channel is closed comes
/// again, whatever was acknowledged.)
async fn close(broker: &Broker, mut session: ConsumerSession, kept: HashSet<TxId>) {
    let slots = usize::from(PREFETCH) - kept.len();
    publish(broker, session.queue(), slots).await;
    let new = take(&mut session, slots).await;
    assert!(!new.iter().any(|delivery| delivery.incoming.redelivered), "{new:?}");
    let expected = new.iter().map(id).chain(kept).collect::<HashSet<_>>();
    let queue = session.queue().to_owned();
    session.close().await;

    let mut session = broker.consume(&queue, 2 * PREFETCH, HOME).await.unwrap();
    let again = take(&mut session, expected.len()).await;
    assert!(again.iter().all(|delivery| delivery.incoming.redelivered), "{again:?}");
    assert_eq!(again.iter().map(id).collect::<HashSet<_>>(), expected);
    let more = tokio::time::timeout(Duration::from_millis(200), session.next()).await;
    assert!(more.is_err(), "{more:?}");
    session.close().await;
}

fn tokens(deliveries: Vec<Delivery>) -> Vec<AckToken> {
    deliveries.into_iter().map(|delivery| delivery.token).collect()
}

fn id(delivery: &Delivery) -> TxId {
    match delivery.incoming.source {
        Source::Own { tx_id, .. } => tx_id,
        Source::Foreign { .. } => panic!("{delivery:?}"),
    }
}

/// What a task does with what it was given, some time later: how many it acknowledged.
async fn settle(mut deliveries: Vec<Delivery>, alone: Vec<Delivery>, requeued: Vec<Delivery>) -> usize {
    let pause = || tokio::time::sleep(Duration::from_micros(fastrand::u64(0..20_000)));
    let acked = deliveries.len() + alone.len();
    fastrand::shuffle(&mut deliveries);
    let together = async {
        pause().await;
        AckToken::ack_all(tokens(deliveries)).await.unwrap();
    };
    let one_by_one = join_all(alone.into_iter().map(|one| async {
        pause().await;
        one.token.ack().await.unwrap();
    }));
    let back = join_all(requeued.into_iter().map(|one| async {
        pause().await;
        one.token.requeue().await.unwrap();
    }));
    tokio::join!(together, one_by_one, back);
    acked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_acked_among_single_acks_and_requeues_are_all_settled_and_nothing_else_comes_again() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    publish(&broker.0, &queue.name, MANY).await;
    let mut session = broker.0.consume(&queue.name, PREFETCH, HOME).await.unwrap();
    let (mut back, mut seen, mut acked) = (HashSet::new(), HashSet::new(), 0);
    let mut tasks = JoinSet::new();
    while acked < MANY {
        let first = tokio::select! {
            Some(settled) = tasks.join_next() => {
                acked += settled.unwrap();
                continue;
            }
            delivery = next(&mut session) => delivery.unwrap(),
        };
        let (mut together, mut alone, mut requeued) = (Vec::new(), Vec::new(), Vec::new());
        let size = fastrand::usize(1..40);
        for delivery in std::iter::once(first).chain(std::iter::from_fn(|| session.waiting()).take(size - 1)) {
            let id = id(&delivery);
            assert_eq!(delivery.incoming.redelivered, back.remove(&id), "{delivery:?}");
            assert_eq!(delivery.incoming.redelivered, !seen.insert(id), "{delivery:?}");
            match fastrand::u8(0..20) {
                0 => {
                    back.insert(id);
                    requeued.push(delivery);
                }
                1 => alone.push(delivery),
                _ => together.push(delivery),
            }
        }
        tasks.spawn(settle(together, alone, requeued));
    }
    // A task that has only requeued may end after what it gave back was acknowledged.
    let more: usize = tasks.join_all().await.into_iter().sum();
    assert_eq!((more, back.len(), seen.len()), (0, 0, MANY));
    close(&broker.0, session, back).await;
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_amid_a_group_comes_again_and_nothing_else() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    publish(&broker.0, &queue.name, 40).await;
    let mut session = broker.0.consume(&queue.name, PREFETCH, HOME).await.unwrap();
    let mut taken = take(&mut session, 20).await;
    let (dropped, held) = (taken.remove(5), taken.remove(12));
    let kept = HashSet::from([id(&dropped), id(&held)]);
    drop(dropped);
    AckToken::ack_all(tokens(taken)).await.unwrap();
    let rest = take(&mut session, 20).await;
    AckToken::ack_all(tokens(rest)).await.unwrap();
    close(&broker.0, session, kept).await;
    assert!(matches!(AckToken::ack_all(vec![held.token]).await, Err(AckError::ChannelGone)));
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_unread_is_not_acknowledged_with_what_was_read() {
    let (queue, broker) = (Queue::declared(SHARED, "quorum").await, connected(SHARED).await);
    publish(&broker.0, &queue.name, 60).await;
    let mut session = broker.0.consume(&queue.name, PREFETCH, HOME).await.unwrap();
    let taken = take(&mut session, 20).await;
    let all_are_here = async || broker.0.queue_state(&queue.name).await.unwrap().ready == 0;
    until("the others are in the library's buffer", all_are_here).await;
    AckToken::ack_all(tokens(taken)).await.unwrap();
    session.cancel().await;
    session.close().await;
    let others = QueueState { ready: 40, consumers: 0 };
    until("the others are back", async || broker.0.queue_state(&queue.name).await.unwrap() == others).await;
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_group_is_acknowledged_in_one_frame() {
    let (queue, relay) = (Queue::declared(SHARED, "quorum").await, Relay::start(SHARED).await);
    let broker = through(relay.address).await;
    publish(&broker.0, &queue.name, 80).await;
    let mut session = broker.0.consume(&queue.name, PREFETCH, HOME).await.unwrap();
    let taken = take(&mut session, 80).await;
    let before = relay.sent();
    AckToken::ack_all(tokens(taken)).await.unwrap();
    // Each frame has 21 bytes; a heartbeat or two may be among them.
    until("it is on its way", async || relay.sent() > before).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let sent = relay.sent() - before;
    assert!(sent < 80, "{sent} bytes for 80 messages");
    close(&broker.0, session, HashSet::new()).await;
    stop(broker).await;
    queue.gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_two_sessions_are_acknowledged_each_on_its_own_channel() {
    let broker = connected(SHARED).await;
    let (one, other) = (Queue::declared(SHARED, "quorum").await, Queue::declared(SHARED, "quorum").await);
    publish(&broker.0, &one.name, 10).await;
    publish(&broker.0, &other.name, 20).await;
    let mut first = broker.0.consume(&one.name, PREFETCH, HOME).await.unwrap();
    let mut second = broker.0.consume(&other.name, PREFETCH, HOME).await.unwrap();
    let mut taken = take(&mut first, 10).await;
    taken.extend(take(&mut second, 20).await);
    AckToken::ack_all(tokens(taken)).await.unwrap();
    close(&broker.0, first, HashSet::new()).await;
    close(&broker.0, second, HashSet::new()).await;
    stop(broker).await;
    one.gone().await;
    other.gone().await;
}
