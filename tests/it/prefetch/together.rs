//! How many bytes sessions hold, alone and together, when messages are larger than was thought.

use std::collections::BTreeSet;
use std::time::Duration;

use lapin::types::AMQPValue;
use posthaste::broker::Held;

use super::{Bench, QUEUE, drain, emptying, idle, next, take};
use crate::support::{Amqp, run};

const BYTES: usize = 100_000;

#[test]
fn what_is_too_much_goes_back_once_and_waits_until_all_that_is_held_is_settled() {
    run(async {
        let bench = Bench::of(0, 0).await;
        bench.add(0..1, 2 * BYTES).await;
        bench.add(1..2, 4 * BYTES).await;
        let mut session = bench.consume(10).await;
        session.hold_at_most(5 * BYTES, Held::default());
        let first = next(&mut session).await;
        emptying(&mut session).await;
        assert_eq!(session.overflow(), Some(4 * BYTES));
        for _ in 0..50 {
            idle(&mut session, tokio::time::sleep(Duration::from_millis(10))).await;
            assert!(session.waits_for_less(), "it asks while something is held");
        }
        // The broker counts how often it came back.
        let amqp = Amqp::connect(&bench.url).await;
        let back = amqp.take(QUEUE).await;
        let headers = back.properties.headers().clone().unwrap_or_default();
        assert_eq!(headers.inner().get("x-delivery-count"), Some(&AMQPValue::LongLongInt(1)), "{headers:?}");
        bench.add(2..3, 3 * BYTES).await;
        first.token.ack().await.unwrap();
        let third = next(&mut session).await;
        assert_eq!((third.incoming.body.len(), session.overflow()), (3 * BYTES, None));
        third.token.ack().await.unwrap();
        session.close().await;
    });
}

#[test]
fn sessions_that_share_a_bound_hold_no_more_together_and_each_one_message_in_any_case() {
    run(async {
        let (busy, other) = (Bench::of(5, BYTES).await, Bench::of(6, BYTES).await);
        let held = Held::default();
        let mut first = busy.consume(10).await;
        first.hold_at_most(5 * BYTES, held.clone());
        let tokens = drain(&mut first, 5).await;
        assert_eq!(held.bytes(), 5 * BYTES);
        let mut second = other.consume(10).await;
        second.hold_at_most(5 * BYTES, held.clone());
        emptying(&mut second).await;
        assert_eq!((second.overflow(), held.bytes()), (Some(BYTES), 6 * BYTES));
        let mut seen = BTreeSet::new();
        assert_eq!(take(&mut second, 1, &mut seen).await, 0);
        assert_eq!(take(&mut second, 5, &mut seen).await, 5);
        // What a session that is closed held counts no more.
        first.close().await;
        drop(tokens);
        assert_eq!(held.bytes(), 0);
        second.close().await;
    });
}
