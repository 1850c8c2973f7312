//! A message that cannot be read is the first that a receiver is sent, with the answer that it has a consumer.

use std::net::SocketAddr;

use posthaste::broker::SessionEnd;
use posthaste::model::HomeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{QUEUE, at_broker, nested, raw, vhost};
use crate::support::{App, LONG, SOON, Servers, eventually, run, same};

#[test]
fn the_first_and_only_message_is_parked_at_each_start_and_nothing_loops() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        app.stop().await;
        let large = raw::header(b"big", &vec![b'x'; 131_040]);
        let all = [(raw::HEADERS, nested(1_000)), (raw::HEADERS, large), (raw::CONTENT_TYPE, raw::short(b"caf\xe9"))];
        for (done, (flags, properties)) in all.iter().cycle().take(6).enumerate() {
            app.bad(*flags, properties, format!("{done}").as_bytes()).await;
            app.run();
            eventually("it is set aside", LONG, async || same(app.set_aside().await.len(), &(done + 1))).await;
            let started = async || same(app.adapter_state("writeDb").await, &"STARTED".to_owned());
            eventually("the receiver is at work", SOON, started).await;
            let ends = app.log_lines("from now on each consumer has its own connection");
            assert_eq!(ends.len(), done + 1, "the shared connection ends once: {ends:?}");
            app.good(&format!("after-{done}")).await;
            app.processed(&format!("after-{done}-19"), LONG).await;
            app.settled(LONG).await;
            app.stop().await;
        }
        assert_eq!(app.set_aside().await.len(), 6);
    });
}

/// A way to a broker on which the answer that a consumer is there comes together with what follows it.
async fn at_once(broker: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = TaskTracker::new();
    let ways = tasks.clone();
    tasks.spawn(async move {
        while let Ok((ours, _)) = listener.accept().await {
            let theirs = TcpStream::connect(&broker).await.unwrap();
            let ((mut from_us, to_us), (from_broker, mut to_broker)) = (ours.into_split(), theirs.into_split());
            ways.spawn(async move { tokio::io::copy(&mut from_us, &mut to_broker).await });
            ways.spawn(joined(from_broker, to_us));
        }
    });
    address
}

async fn joined(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    /// Class and method of basic.consume-ok.
    const CONSUME_OK: [u8; 4] = [0, 60, 0, 21];
    let mut bytes = Vec::new();
    while let Ok(1..) = from.read_buf(&mut bytes).await {
        if let Some(at) = bytes.windows(4).position(|some| some == CONSUME_OK) {
            // It is some 50 bytes long, and the announcement of a message about 80.
            while bytes.len() < at + 200 {
                if !matches!(from.read_buf(&mut bytes).await, Ok(1..)) {
                    return;
                }
            }
        }
        if to.write_all(&std::mem::take(&mut bytes)).await.is_err() {
            return;
        }
    }
}

#[test]
fn a_session_whose_first_delivery_cannot_be_read_begins_and_says_so_even_if_both_come_at_once() {
    run(async {
        let url = vhost().await;
        let address = url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
        let (broker, _lifecycle) =
            at_broker(&url.replace(address, &at_once(address.to_owned()).await.to_string())).await;
        broker.ensure_queue(QUEUE).await.unwrap();
        // It is known by the head of its headers.
        raw::publish(&url, QUEUE, raw::HEADERS, &raw::header(b"big", &vec![b'x'; 131_040]), b"large").await;
        let mut ends = Vec::new();
        for _ in 0..3 {
            assert!(broker.can_consume(LONG).await);
            let mut session = broker.consume(QUEUE, 1, HomeId(Uuid::nil())).await.unwrap();
            ends.push(session.next().await.map(|_delivery| ()).unwrap_err());
            session.close().await;
        }
        assert!(matches!(ends[0], SessionEnd::ConnectionLost { .. }), "the shared connection: {ends:?}");
        assert_eq!(ends[1..], [SessionEnd::Unreadable, SessionEnd::Unreadable]);
        broker.close().await;
    });
}
