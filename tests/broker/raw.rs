//! Publishes what no client library would: property bytes as they are given, over hand-made AMQP frames.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// AMQP's flag of the `content-type` property.
pub const CONTENT_TYPE: u16 = 1 << 15;
/// AMQP's flag of the headers.
pub const HEADERS: u16 = 1 << 13;
/// AMQP's flag of the `message-id` property.
pub const MESSAGE_ID: u16 = 1 << 7;

/// A short string: its length, then any bytes.
pub fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// A table of one header, whose value is a string.
pub fn header(name: &[u8], value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    let entry = [&short(name)[..], &b"S"[..], &length[..], value].concat();
    [&u32::try_from(entry.len()).unwrap().to_be_bytes()[..], &entry[..]].concat()
}

/// Publishes one message to a queue; returns when the broker has taken it. `flags`: which properties there are, in order.
pub async fn publish(url: &str, queue: &str, flags: u16, properties: &[u8], body: &[u8]) {
    let url = url::Url::parse(url).unwrap();
    let vhost = url.path().strip_prefix('/').unwrap().replace("%2f", "/");
    let mut stream = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).await.unwrap();
    stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
    answer(&mut stream).await;
    let secret = format!("\0{}\0{}", url.username(), url.password().unwrap()).into_bytes();
    let length = u32::try_from(secret.len()).unwrap().to_be_bytes();
    let log_in = [&[0; 4][..], &short(b"PLAIN"), &length, &secret, &short(b"en_US")].concat();
    method(&mut stream, 0, (10, 11), &log_in).await;
    answer(&mut stream).await;
    method(&mut stream, 0, (10, 31), &[0, 10, 0, 2, 0, 0, 0, 60]).await;
    method(&mut stream, 0, (10, 40), &[short(vhost.as_bytes()), short(b""), vec![0]].concat()).await;
    answer(&mut stream).await;
    method(&mut stream, 1, (20, 10), &short(b"")).await;
    answer(&mut stream).await;
    method(&mut stream, 1, (85, 10), &[0]).await;
    answer(&mut stream).await;
    let publish = [&[0, 0][..], &short(b""), &short(queue.as_bytes()), &[0]].concat();
    method(&mut stream, 1, (60, 40), &publish).await;
    let size = u64::try_from(body.len()).unwrap().to_be_bytes();
    let header = [&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat();
    frame(&mut stream, 2, 1, &header).await;
    for part in body.chunks(100_000) {
        frame(&mut stream, 3, 1, part).await;
    }
    assert_eq!(answer(&mut stream).await, (60, 80), "the broker did not confirm the raw message");
}

async fn method(stream: &mut TcpStream, channel: u16, id: (u16, u16), arguments: &[u8]) {
    let payload = [&id.0.to_be_bytes()[..], &id.1.to_be_bytes(), arguments].concat();
    frame(stream, 1, channel, &payload).await;
}

async fn frame(stream: &mut TcpStream, kind: u8, channel: u16, payload: &[u8]) {
    let size = u32::try_from(payload.len()).unwrap();
    let frame = [&[kind], &channel.to_be_bytes()[..], &size.to_be_bytes(), payload, &[0xce]].concat();
    stream.write_all(&frame).await.unwrap();
}

/// Class and method of the broker's next frame.
async fn answer(stream: &mut TcpStream) -> (u16, u16) {
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.unwrap();
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; usize::try_from(size).unwrap() + 1];
    stream.read_exact(&mut payload).await.unwrap();
    (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]))
}
