//! The relay through which tests harm connections, tried on a server that echoes.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use posthaste::dev::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::support::{Direction, SOON, TcpRelay, run};

/// Sends every byte back, and says goodbye when the client does.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = TaskTracker::new();
    tasks.clone().spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tasks.spawn(async move {
                let (mut from, mut to) = socket.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

async fn hears(socket: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    timeout(SOON, socket.read_exact(&mut heard)).await.expect("an answer in time").unwrap();
    assert_eq!(heard, text.as_bytes());
}

async fn exchange(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).await.unwrap();
    hears(socket, text).await;
}

async fn hears_nothing(socket: &mut TcpStream) {
    let heard = timeout(Duration::from_millis(300), socket.read_u8()).await;
    assert!(heard.is_err(), "{heard:?}");
}

async fn is_reset(socket: &mut TcpStream) {
    let end = timeout(SOON, socket.read_u8()).await.expect("an end in time");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// The reset may come before or after the client has noticed that it is connected.
async fn is_turned_away(relay: SocketAddr) {
    match TcpStream::connect(relay).await {
        Ok(mut socket) => is_reset(&mut socket).await,
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

async fn relay_and_client() -> (TcpRelay, TcpStream) {
    let relay = TcpRelay::start(echo().await).await;
    let mut client = TcpStream::connect(relay.addr()).await.unwrap();
    exchange(&mut client, "hello").await;
    (relay, client)
}

#[test]
fn a_relay_carries_bytes_and_goodbyes_both_ways() {
    run(async {
        let (_relay, mut client) = relay_and_client().await;
        client.write_all(b"last words").await.unwrap();
        client.shutdown().await.unwrap();
        hears(&mut client, "last words").await;
        assert_eq!(timeout(SOON, client.read(&mut [0])).await.unwrap().unwrap(), 0);
    });
}

#[test]
fn a_cut_resets_both_sides_and_leaves_new_connections_alone() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = TcpRelay::start(listener.local_addr().unwrap()).await;
        let mut client = TcpStream::connect(relay.addr()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        relay.cut();
        is_reset(&mut client).await;
        is_reset(&mut server).await;

        let mut client = TcpStream::connect(relay.addr()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(b"again").await.unwrap();
        hears(&mut server, "again").await;
    });
}

#[test]
fn a_stall_holds_back_its_direction_only_and_loses_nothing() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = TcpRelay::start(listener.local_addr().unwrap()).await;
        let mut client = TcpStream::connect(relay.addr()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        for direction in [Direction::ToServer, Direction::ToClient, Direction::Both] {
            relay.stall(direction);
            client.write_all(b"question").await.unwrap();
            server.write_all(b"answer").await.unwrap();
            match direction {
                Direction::ToServer => hears(&mut client, "answer").await,
                Direction::ToClient => hears(&mut server, "question").await,
                Direction::Both => {}
            }
            hears_nothing(&mut client).await;
            hears_nothing(&mut server).await;
            relay.resume();
            if direction != Direction::ToClient {
                hears(&mut server, "question").await;
            }
            if direction != Direction::ToServer {
                hears(&mut client, "answer").await;
            }
        }
    });
}

#[test]
fn a_stalled_connection_neither_ends_nor_opens_a_way_around() {
    run(async {
        let (relay, mut client) = relay_and_client().await;
        relay.stall(Direction::Both);
        client.shutdown().await.unwrap();
        hears_nothing(&mut client).await;
        let mut late = TcpStream::connect(relay.addr()).await.unwrap();
        late.write_all(b"late").await.unwrap();
        hears_nothing(&mut late).await;
        relay.resume();
        assert_eq!(timeout(SOON, client.read(&mut [0])).await.unwrap().unwrap(), 0);
        hears(&mut late, "late").await;
    });
}

#[test]
fn a_stalled_connection_can_be_cut() {
    run(async {
        let (relay, mut client) = relay_and_client().await;
        relay.stall(Direction::Both);
        client.write_all(b"lost").await.unwrap();
        hears_nothing(&mut client).await;
        relay.cut();
        is_reset(&mut client).await;
    });
}

#[test]
fn a_refusing_relay_resets_new_connections_and_keeps_the_old() {
    run(async {
        let (relay, mut client) = relay_and_client().await;
        relay.refuse(true);
        is_turned_away(relay.addr()).await;
        exchange(&mut client, "still here").await;
        relay.refuse(false);
        exchange(&mut TcpStream::connect(relay.addr()).await.unwrap(), "back").await;
    });
}

#[test]
fn a_server_that_is_gone_is_a_reset_and_so_is_a_dropped_relay() {
    run(async {
        let nobody = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        is_turned_away(TcpRelay::start(nobody).await.addr()).await;

        let (relay, mut client) = relay_and_client().await;
        let address = relay.addr();
        drop(relay);
        is_reset(&mut client).await;
        let refused = timeout(SOON, async { while TcpStream::connect(address).await.is_ok() {} }).await;
        assert!(refused.is_ok(), "nobody listens any more");
    });
}
