//! Large messages that are shown, also to clients that do not read them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::home::Home;

const LARGE: usize = 4 << 20;
/// An answer takes room for twice its body.
const ANSWER: usize = 2 * LARGE;

impl Home {
    /// Asks, and reads nothing but the status.
    async fn asks_and_does_not_read(&self, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        client.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        client
    }

    async fn answers_take(&self, wanted: usize) {
        let taken = async {
            while self.answers.taken() != wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(30), taken).await;
        assert!(found.is_ok(), "{} instead of {wanted}", self.answers.taken());
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_takes_room_among_answers_alone_until_its_client_has_gone() {
    let home = Home::start().await;
    let (large, _) = home.stored("s", "E", "large", &vec![b'x'; LARGE]).await;
    let (small, _) = home.stored("s", "E", "small", b"x").await;
    let path = |key| format!("/api/v1/stores/s/messages/{key}");

    let idle = home.asks_and_does_not_read(&path(large)).await;
    assert_eq!((home.answers.taken(), home.room.taken()), (ANSWER, 0), "nobody who processes waits for it");
    let other = home.asks_and_does_not_read(&path(large)).await;
    assert_eq!(home.answers.taken(), 2 * ANSWER);
    assert_eq!(home.get("/api/v1/stores/s/messages").await.items().len(), 2);
    assert_eq!(home.get(&path(small)).await.json(200)["message"], "x");
    let shown = home.get(&path(large)).await;
    assert_eq!(shown.headers["content-type"], "application/json");
    assert_eq!(shown.json(200)["message"].as_str().unwrap().len(), LARGE);
    // What was read takes none any more.
    home.answers_take(2 * ANSWER).await;
    drop((idle, other));
    home.answers_take(0).await;
    home.end().await;
}

#[tokio::test]
async fn while_others_have_the_room_a_large_one_is_refused_in_time_and_a_small_one_is_shown() {
    let home = Home::start().await;
    let (large, _) = home.stored("s", "E", "large", &vec![b'x'; LARGE]).await;
    let (small, _) = home.stored("s", "E", "small", b"x").await;
    let path = |key| format!("/api/v1/stores/s/messages/{key}");
    let processed = home.room.take(usize::MAX).await;
    let refused = home.get(&path(large)).await;
    refused.problem(503);
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    assert_eq!(home.answers.taken(), 0, "who was refused keeps no room");
    home.get(&path(small)).await.json(200);
    drop(processed);
    home.get(&path(large)).await.json(200);
    home.end().await;
}
