//! Clients that are slow, or too many, over real sockets.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::*;
use crate::lifecycle::NeededFor;

/// Longer than anything here takes on a machine that is busy.
const BOUND: Duration = Duration::from_secs(60);
/// More than two sockets keep, and what lies between them.
const MUCH: usize = 64 << 20;

fn settings(max_connections: usize) -> ServerSettings {
    ServerSettings {
        header_timeout: BOUND,
        progress_timeout: BOUND,
        max_connections,
        max_connections_per_address: None,
    }
}

/// Something that is served.
struct Served {
    address: SocketAddr,
    lifecycle: Lifecycle,
    /// Requests for `/held` that wait to be let go, and what lets them.
    held: watch::Receiver<usize>,
    go: Arc<Semaphore>,
}

impl Served {
    async fn start(settings: ServerSettings) -> Self {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, lifecycle, go) =
            (listener.local_addr().unwrap(), Lifecycle::default(), Arc::new(Semaphore::new(0)));
        let (hold, held) = watch::channel(0);
        let (hold, may_go) = (Arc::new(hold), go.clone());
        let answer = move |request: Request<Lent>| answer(request, hold.clone(), may_go.clone());
        let task = Task::new("api", NeededFor::Accepting);
        lifecycle.tasks.spawn(serve(task, listener, answer, settings, lifecycle.clone()));
        Self { address, lifecycle, held, go }
    }

    async fn connect(&self) -> Client {
        Client(timeout(BOUND, TcpStream::connect(self.address)).await.unwrap().unwrap())
    }

    /// A client that has sent this.
    async fn sent(&self, bytes: &[u8]) -> Client {
        let mut client = self.connect().await;
        client.0.write_all(bytes).await.unwrap();
        client
    }

    async fn hold(&mut self) -> Client {
        let before = *self.held.borrow();
        let client = self.sent(&get("/held")).await;
        timeout(BOUND, self.held.wait_for(|held| *held == before + 1)).await.unwrap().unwrap();
        client
    }

    async fn stop(self) {
        assert!(self.lifecycle.stop(BOUND).await);
    }
}

async fn answer(request: Request<Lent>, hold: Arc<watch::Sender<usize>>, go: Arc<Semaphore>) -> Response {
    match request.uri().path() {
        "/held" => {
            hold.send_modify(|held| *held += 1);
            go.acquire().await.unwrap().forget();
            "let go".into_response()
        }
        "/large" => vec![b'x'; 100_000].into_response(),
        "/empty" => StatusCode::NOT_MODIFIED.into_response(),
        _ => match request.into_body().collect().await {
            Ok(_) => "well".into_response(),
            Err(error) => (StatusCode::REQUEST_TIMEOUT, error.to_string()).into_response(),
        },
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").into_bytes()
}

const BODY_BEGUN: &[u8] = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 100000\r\n\r\nx";

struct Client(TcpStream);

impl Client {
    /// Reads until these words.
    async fn reads(&mut self, words: &str) -> String {
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains(words) {
            let read = timeout(BOUND, self.0.read_buf(&mut heard)).await.expect("in time");
            assert!(read.is_ok_and(|read| read > 0), "no {words:?} in {}", String::from_utf8_lossy(&heard));
        }
        String::from_utf8(heard).unwrap()
    }

    /// Waits until the server has closed it.
    async fn is_closed(&mut self) {
        let mut heard = Vec::new();
        let ended = async { while self.0.read_buf(&mut heard).await.is_ok_and(|read| read > 0) {} };
        timeout(BOUND, ended).await.expect("it is closed");
    }
}

#[tokio::test]
async fn who_never_reads_is_cut_off_whether_answers_have_bodies_or_not() {
    for path in ["/large", "/empty"] {
        let served =
            Served::start(ServerSettings { progress_timeout: Duration::from_millis(500), ..settings(1) }).await;
        let mut client = served.connect().await;
        let requests = get(path).repeat(1000);
        let cut_off = async {
            let mut sent = 0;
            while client.0.write_all(&requests).await.is_ok() {
                sent += requests.len();
                assert!(sent < MUCH, "{path}: everything is answered, and nothing read");
            }
        };
        timeout(BOUND, cut_off).await.expect("it is cut off");
        served.sent(&get("/")).await.reads("well").await;
        served.stop().await;
    }
}

#[tokio::test]
async fn who_sends_a_body_byte_by_byte_is_told_that_it_is_too_slow() {
    let served = Served::start(ServerSettings { progress_timeout: Duration::from_millis(500), ..settings(1) }).await;
    let mut client = served.sent(BODY_BEGUN).await;
    let mut heard = Vec::new();
    let told = async {
        loop {
            tokio::select! {
                read = client.0.read_buf(&mut heard) => match read {
                    Ok(1..) if !String::from_utf8_lossy(&heard).contains("too slowly") => {}
                    _ => break,
                },
                () = tokio::time::sleep(Duration::from_millis(20)) => { let _sent = client.0.write_all(b"x").await; }
            }
        }
    };
    timeout(BOUND, told).await.expect("it is told");
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.starts_with("HTTP/1.1 408 ") && heard.contains("too slowly"), "{heard}");
    client.is_closed().await;
    served.stop().await;
}

#[tokio::test]
async fn a_newcomer_gets_the_place_of_who_stands_still_and_nobody_is_cut_whose_answer_is_being_made() {
    let mut served = Served::start(settings(4)).await;
    let mut held = vec![served.hold().await, served.hold().await];
    let mut still = [served.sent(BODY_BEGUN).await, served.sent(BODY_BEGUN).await];
    for client in &mut still {
        held.push(served.hold().await);
        client.is_closed().await;
    }
    served.go.add_permits(4);
    for client in &mut held {
        client.reads("let go").await;
    }
    served.stop().await;
}

#[tokio::test]
async fn while_every_answer_is_being_made_a_newcomer_waits_and_all_are_answered() {
    let mut served = Served::start(settings(2)).await;
    let mut held = [served.hold().await, served.hold().await];
    let mut newcomer = served.sent(&get("/")).await;
    served.go.add_permits(1);
    // Whichever of them it was has been answered, and stands still from now on.
    newcomer.reads("well").await;
    served.go.add_permits(1);
    for client in &mut held {
        client.reads("let go").await;
    }
    served.stop().await;
}

#[tokio::test]
async fn one_more_connection_of_an_address_than_it_may_have_is_told_so_and_closed() {
    let served = Served::start(ServerSettings { max_connections_per_address: Some(2), ..settings(9) }).await;
    let mut both = [served.connect().await, served.connect().await];
    for client in &mut both {
        client.0.write_all(&get("/")).await.unwrap();
        client.reads("well").await;
    }
    let mut third = served.connect().await;
    let heard = third.reads("too many connections").await;
    assert!(heard.starts_with("HTTP/1.1 503 ") && heard.contains("x-outcome: none\r\n"), "{heard}");
    third.is_closed().await;
    drop(both);
    // Until it is noticed that they are gone.
    let answered = async {
        loop {
            let mut client = served.connect().await;
            let mut heard = Vec::new();
            let _sent = client.0.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").await;
            let _read = client.0.read_to_end(&mut heard).await;
            if heard.starts_with(b"HTTP/1.1 200 ") {
                break;
            }
        }
    };
    timeout(BOUND, answered).await.expect("there is room again");
    served.stop().await;
}
