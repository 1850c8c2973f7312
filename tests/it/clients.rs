//! Clients that are slow, that never read, and that are too many: others are served all the same.

use std::time::Duration;

use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{App, LONG, Options, SOON, Servers, eventually, exchange, run, same};

/// Nobody is cut off by a time-out.
const PATIENT: [&str; 3] = ["headerTimeout: 5m", "bodyTimeout: 5m", "progressTimeout: 5m"];
const BODY_BEGUN: &[u8] =
    b"POST /api/write HTTP/1.1\r\nHost: here\r\nMessage-Id: slow\r\nContent-Length: 100000\r\n\r\nx";

async fn app(api: &'static [&'static str]) -> App {
    App::start_with(Servers::shared().await, Options { api, ..Options::default() }).await
}

impl App {
    /// A client of the API that has sent this.
    async fn client(&self, bytes: &[u8]) -> TcpStream {
        let mut client = timeout(SOON, TcpStream::connect(self.api)).await.unwrap().unwrap();
        client.write_all(bytes).await.unwrap();
        client
    }

    /// A figure of the API's listener. That of connections has no reason.
    async fn figure_of_api(&self, name: &str, reason: &str) -> usize {
        let page = self.console(Method::GET, "/metrics").await.body;
        let labels = if reason.is_empty() { String::new() } else { format!(",reason=\"{reason}\"") };
        let figure = format!("{name}{{listener=\"api\"{labels}}} ");
        let number = page.lines().find_map(|line| line.strip_prefix(&figure));
        number.unwrap_or_else(|| panic!("no {figure} in {page}")).parse().unwrap()
    }

    async fn closed_connections(&self, reason: &str) -> usize {
        self.figure_of_api("posthaste_connections_closed_total", reason).await
    }

    async fn connections(&self) -> usize {
        self.figure_of_api("posthaste_connections", "").await
    }
}

#[test]
fn clients_that_send_one_byte_of_a_body_keep_nobody_from_being_served() {
    run(async {
        const WITH_8: [&str; 4] = [PATIENT[0], PATIENT[1], PATIENT[2], "maxConnections: 8"];
        let app = app(&WITH_8).await;
        let mut slow = Vec::new();
        for number in 0..4 {
            for _ in 0..10 {
                slow.push(app.client(BODY_BEGUN).await);
            }
            let honest = format!(
                "POST /api/write HTTP/1.1\r\nHost: here\r\nConnection: close\r\nMessage-Id: honest-{number}\r\n\
                 Content-Length: 6\r\n\r\nhonest"
            );
            let reply = exchange(app.api, honest.as_bytes(), LONG).await;
            assert_eq!(reply.status, Some(202), "{reply:?}");
        }
        // The last honest client was let in with seven others at most.
        let closed = app.closed_connections("full").await;
        assert!((33..=40).contains(&closed), "{closed}");
        let open = app.connections().await;
        assert!((1..=8).contains(&open), "{open}");
        let told = app.log_has("all connections are in use").await;
        assert!(told[0].contains("WARN") && told[0].contains("busiest=127.0.0.1"), "{told:?}");

        drop(slow);
        let over = async || {
            let over = app.log_lines("connections are free again");
            let all = app.log_lines("all connections are in use").len();
            if over.len() == all { Ok(over) } else { Err(format!("{all} times they were full, {over:?}")) }
        };
        let over = eventually("each time its end is told", LONG, over).await;
        assert!(over.iter().all(|line| line.contains("INFO")), "{over:?}");
        app.settled(SOON).await;
        assert_eq!(app.db.count("message", &[]).await, 4);
    });
}

#[test]
fn clients_that_never_read_are_cut_off_and_counted() {
    run(async {
        let app = app(&["progressTimeout: 1s", "maxConnections: 4"]).await;
        let cut_off = async || {
            let mut client = app.client(b"").await;
            let requests = b"GET /api/openapi.json HTTP/1.1\r\nHost: here\r\n\r\n".repeat(100);
            while client.write_all(&requests).await.is_ok() {}
        };
        let all = async { tokio::join!(cut_off(), cut_off(), cut_off(), cut_off()) };
        timeout(LONG, all).await.expect("they are cut off");
        eventually("their places are free", SOON, async || same(app.connections().await, &0)).await;
        assert_eq!(app.closed_connections("answer").await, 4);
        assert_eq!(app.post("honest", "honest").await.status, 202);
    });
}

#[test]
fn a_body_that_trickles_gets_408_although_it_moves() {
    run(async {
        let app = app(&["bodyTimeout: 5m", "progressTimeout: 1s"]).await;
        let (mut reading, mut writing) = app.client(BODY_BEGUN).await.into_split();
        let trickle = async {
            while writing.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut heard = Vec::new();
        let answer = timeout(LONG, async {
            tokio::select! {
                read = reading.read_to_end(&mut heard) => drop(read),
                () = trickle => {}
            }
        });
        answer.await.expect("it is answered and closed");
        let heard = String::from_utf8(heard).unwrap();
        assert!(heard.starts_with("HTTP/1.1 408 ") && heard.contains("x-outcome: none\r\n"), "{heard}");
        assert!(heard.contains("the body came too slowly"), "{heard}");
        eventually("it is counted", SOON, async || same(app.closed_connections("body").await, &1)).await;
        app.settled(SOON).await;
        assert_eq!(app.traces().await, [0, 0, 0]);
    });
}

#[test]
fn a_head_that_never_ends_is_counted_and_a_client_that_sends_nothing_is_not() {
    run(async {
        let app = app(&["headerTimeout: 1s"]).await;
        for (bytes, counted) in [(&b""[..], 0), (b"POST /api/write HTTP/1.1\r\nHo", 1)] {
            assert!(exchange(app.api, bytes, LONG).await.closed);
            eventually("its place is free", SOON, async || same(app.connections().await, &0)).await;
            assert_eq!(app.closed_connections("head").await, counted);
        }
    });
}

#[test]
fn an_address_has_as_many_connections_as_the_setting_says_and_the_console_is_not_concerned() {
    run(async {
        const WITH_3: [&str; 4] = [PATIENT[0], PATIENT[1], PATIENT[2], "maxConnectionsPerAddress: 3"];
        let app = app(&WITH_3).await;
        let mut held = Vec::new();
        for number in 1..=3 {
            held.push(app.client(BODY_BEGUN).await);
            eventually("it is let in", SOON, async || same(app.connections().await, &number)).await;
        }
        let refused = exchange(app.api, b"", LONG).await;
        assert!(refused.closed && refused.status == Some(503), "{refused:?}");
        assert!(refused.text.contains("x-outcome: none\r\n") && refused.text.contains("retry-after: "), "{refused:?}");
        assert_eq!(app.closed_connections("address").await, 1);
        drop(held);
        eventually("others are let in", SOON, async || {
            let reply = exchange(app.api, b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n", LONG).await;
            same(reply.status, &Some(404))
        })
        .await;
    });
}

#[test]
fn the_console_answers_while_slow_clients_have_taken_all_its_connections() {
    run(async {
        let app = app(&PATIENT).await;
        let head = format!(
            "POST /api/v1/stores/write-db/delete HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: 1000\r\n\r\n{{",
            app.console
        );
        let mut slow = Vec::new();
        for _ in 0..140 {
            let mut client = timeout(SOON, TcpStream::connect(app.console)).await.unwrap().unwrap();
            client.write_all(head.as_bytes()).await.unwrap();
            slow.push(client);
        }
        for path in ["/livez", "/readyz"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", app.console);
            let reply = exchange(app.console, request.as_bytes(), LONG / 2).await;
            assert_eq!(reply.status, Some(200), "{reply:?}");
        }
        drop(slow);
    });
}
