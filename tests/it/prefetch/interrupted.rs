//! What becomes of a session whose connection ends, or falls silent, while one consumer gives way to another.

use futures_util::FutureExt;
use posthaste::broker::{AckError, SessionEnd};

use super::{Bench, drain, emptying};
use crate::support::{Direction, LONG, SOON, eventually, run};

fn is_lost(end: &SessionEnd) -> bool {
    matches!(end, SessionEnd::ConnectionLost { .. })
}

#[test]
fn a_connection_that_ends_while_what_is_held_keeps_the_next_consumer_waiting_ends_the_session() {
    run(async {
        let (bench, relay) = Bench::behind_a_relay(10, 1000).await;
        let mut session = bench.consume(4).await;
        let held = drain(&mut session, 4).await;
        session.consume_anew(1, 0);
        emptying(&mut session).await;
        relay.cut();
        let end = tokio::time::timeout(SOON, session.next()).await.expect("an end in time").unwrap_err();
        assert!(is_lost(&end), "{end:?}");
        for token in held {
            assert!(matches!(token.ack().await, Err(AckError::ChannelGone)));
        }
        session.close().await;
        bench.ready(10).await;
    });
}

#[test]
fn a_broker_that_is_silent_while_the_next_consumer_begins_ends_the_session_however_often_it_is_asked() {
    run(async {
        let (bench, relay) = Bench::behind_a_relay(10, 1000).await;
        let mut session = bench.consume(4).await;
        let held = drain(&mut session, 4).await;
        session.consume_anew(1, 0);
        emptying(&mut session).await;
        relay.stall(Direction::Both);
        for token in held {
            let _written = token.ack().await;
        }
        // Each look is dropped at once, wherever it stands.
        let look = async || match session.next().now_or_never() {
            Some(Err(end)) => Ok(end),
            other => Err(format!("{other:?}")),
        };
        let end = eventually("the session has ended", LONG, look).await;
        assert!(is_lost(&end), "{end:?}");
        relay.resume();
        session.close().await;
    });
}
