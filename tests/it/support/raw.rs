//! HTTP as nobody should speak it: bytes over a socket.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// What came back over the socket.
#[derive(Debug)]
pub struct RawReply {
    /// Of the first answer, when there was one.
    pub status: Option<u16>,
    pub text: String,
    /// The server ended the connection within the bound.
    pub closed: bool,
    pub after: Duration,
}

/// Sends the bytes, keeps the sending side open, and reads until the server closes or the bound is over.
pub async fn exchange(to: SocketAddr, bytes: &[u8], bound: Duration) -> RawReply {
    let mut socket = TcpStream::connect(to).await.unwrap();
    let started = Instant::now();
    // A server that refuses early may close while we still write: what it said is read all the same.
    let _written = socket.write_all(bytes).await;
    let mut read = Vec::new();
    let closed = timeout(bound, read_to_end(&mut socket, &mut read)).await.is_ok();
    let text = String::from_utf8_lossy(&read).into_owned();
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    RawReply { status, text, closed, after: started.elapsed() }
}

async fn read_to_end(socket: &mut TcpStream, into: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
        into.extend_from_slice(&buffer[..read]);
    }
}
