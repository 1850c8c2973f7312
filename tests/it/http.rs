//! HTTP to the letter: packed bodies, heads that RFC 9112 refuses, ids that no path carries, and what a failed step answers.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{App, LONG, Options, SOON, Servers, eventually, exchange, run, same};

const ADAPTERS: &str = r"
adapters:
  - name: strict
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /strict } }
      messageLog: { slotId: strict-req }
    pipeline:
      - { name: keep, query: { database: main, sql: 'INSERT INTO strict (number) VALUES ($1::text::int)', params: [payload] } }
  - name: broken
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /broken } }
      messageLog: { slotId: broken-req }
    pipeline:
      - { name: call, query: { database: main, sql: 'SELECT no_such_function($1::text)', params: [payload] } }
";

const TABLES: &str =
    "CREATE TABLE strict (number int NOT NULL CHECK (number < 100) UNIQUE DEFERRABLE INITIALLY DEFERRED);";

type Pack = fn(&[u8]) -> Vec<u8>;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut into = GzEncoder::new(Vec::new(), Compression::default());
    into.write_all(body).unwrap();
    into.finish().unwrap()
}

fn deflate(body: &[u8]) -> Vec<u8> {
    let mut into = ZlibEncoder::new(Vec::new(), Compression::default());
    into.write_all(body).unwrap();
    into.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    ::zstd::stream::encode_all(body, 0).unwrap()
}

#[test]
fn a_packed_body_is_unpacked_before_it_is_compared_stored_and_processed() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let codings: [(&str, Pack); 3] = [("gzip", gzip), ("deflate", deflate), ("zstd", zstd)];
        for (coding, packed) in codings {
            let body = format!("packed by {coding}");
            let headers = [("Message-Id", coding), ("Content-Type", "text/plain"), ("Content-Encoding", coding)];
            let reply = app.send("/api/write", &headers, &packed(body.as_bytes())).await;
            assert_eq!(reply.status, 202, "{coding}: {reply:?}");
            app.processed(&body, SOON).await;
            let logged: Vec<u8> = app.db.one("SELECT message FROM ibisstore WHERE messageid = $1", &[&coding]).await;
            assert_eq!(logged, body.as_bytes(), "{coding}");
            assert_eq!(app.post(coding, &body).await.status, 304, "{coding}: the same message, unpacked");
        }
        app.settled(SOON).await;
        assert_eq!(app.traces().await[2], 0, "no conflict");
    });
}

#[test]
fn a_packed_body_that_is_too_large_broken_or_of_another_form_leaves_nothing() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let large = vec![b'x'; (1 << 20) + 1];
        let gzipped = gzip(b"some text to be cut off");
        let cases: [(&str, Vec<u8>, u16); 8] = [
            ("gzip", gzip(&large), 413),
            ("deflate", deflate(&large), 413),
            ("zstd", zstd(&large), 413),
            ("gzip", gzipped[..gzipped.len() - 1].to_vec(), 400),
            ("gzip", b"not packed".to_vec(), 400),
            ("zstd", gzipped.clone(), 400),
            ("br", b"anything".to_vec(), 415),
            ("gzip, gzip", gzip(&gzipped), 415),
        ];
        for (coding, body, status) in cases {
            let reply = app.send("/api/write", &[("Message-Id", "p"), ("Content-Encoding", coding)], &body).await;
            reply.problem(status);
            assert_eq!(reply.header("x-outcome"), "none", "{coding}: {reply:?}");
            let accepted = if status == 415 { "gzip, deflate, zstd" } else { "" };
            assert_eq!(reply.header("accept-encoding"), accepted, "{coding}: {reply:?}");
        }
        app.settled(SOON).await;
        assert_eq!(app.traces().await, [0, 0, 0]);
        let fits = vec![b'x'; 1 << 20];
        let reply = app.send("/api/write", &[("Message-Id", "p"), ("Content-Encoding", "gzip")], &gzip(&fits)).await;
        assert_eq!(reply.status, 202, "maxBody counts what is unpacked: {reply:?}");
    });
}

#[test]
fn heads_that_http_refuses_are_refused_and_leave_nothing() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let chunked = "1\r\nx\r\n0\r\n\r\n";
        for (lines, body, status) in [
            ("Content-Length: 1\r\n", "x", 400),
            ("Host: a\r\nHost: a\r\nContent-Length: 1\r\n", "x", 400),
            ("Host: a b\r\nContent-Length: 1\r\n", "x", 400),
            ("Host: a\r\nContent-Type: text/plain\r\nContent-Type: text/html\r\nContent-Length: 1\r\n", "x", 400),
            ("Host: a\r\nTransfer-Encoding: gzip, chunked\r\n", chunked, 501),
            ("Host: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", chunked, 501),
        ] {
            for to in [app.api, app.console] {
                let path = if to == app.api { "/api/write" } else { "/livez" };
                let head =
                    format!("POST {path} HTTP/1.1\r\nConnection: close\r\nMessage-Id: letter\r\n{lines}\r\n{body}");
                let reply = exchange(to, head.as_bytes(), SOON).await;
                assert!(reply.status == Some(status) && reply.closed, "{lines:?} at {path}: {reply:?}");
                assert!(reply.text.contains("application/problem+json"), "{reply:?}");
            }
        }
        app.settled(SOON).await;
        assert_eq!(app.traces().await, [0, 0, 0]);
        let head = "POST /api/write HTTP/1.1\r\nHost: a\r\nConnection: close\r\nMessage-Id: letter\r\n";
        let whole = format!("{head}Transfer-Encoding: Chunked\r\n\r\n{chunked}");
        assert_eq!(exchange(app.api, whole.as_bytes(), SOON).await.status, Some(202));
    });
}

#[test]
fn a_client_that_first_sends_all_of_a_large_body_reads_why_it_was_refused() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let body = vec![b'x'; 30 << 20];
        let chunks: Vec<u8> = [&b"1e00000\r\n"[..], body.as_slice(), b"\r\n0\r\n\r\n"].concat();
        let announced = format!("Content-Length: {}\r\n", body.len());
        for (line, status) in [("POST /api/write", 413), ("POST /api/nowhere", 404), ("DELETE /api/write", 405)] {
            for (framing, sent) in [(announced.as_str(), &body), ("Transfer-Encoding: chunked\r\n", &chunks)] {
                let mut socket = TcpStream::connect(app.api).await.unwrap();
                let head =
                    format!("{line} HTTP/1.1\r\nHost: a\r\nMessage-Id: large\r\nConnection: close\r\n{framing}\r\n");
                socket.write_all(head.as_bytes()).await.unwrap();
                socket.write_all(sent).await.unwrap();
                let mut heard = String::new();
                socket.read_to_string(&mut heard).await.unwrap();
                assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {heard}");
            }
        }
        assert_eq!(app.traces().await, [0, 0, 0]);
        // Asked before it sends, a client is told at once, and nothing is waited for.
        let head = format!("POST /api/nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{announced}\r\n");
        let reply = exchange(app.api, head.as_bytes(), SOON).await;
        assert!(reply.status == Some(404) && reply.closed, "{reply:?}");
    });
}

#[test]
fn the_location_of_an_id_that_a_path_cannot_carry_leads_to_its_state_all_the_same() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        for id in [".", "..", "a/b", "../x", r"..\x", "1+1=2&3", "%2e%2e"] {
            let body = format!("under {id}");
            let reply = app.post(id, &body).await;
            assert_eq!(reply.status, 202, "{id}: {reply:?}");
            // As clients do, the url is resolved on its way to the server.
            let location = reply.header("location").to_owned();
            app.processed(&body, SOON).await;
            eventually("the location says processed", SOON, async || {
                let reply = app.api(Method::GET, &location).await;
                same((reply.status, reply.body.contains(r#""processed""#)), &(200, true))
            })
            .await;
            assert_eq!(app.post(id, &body).await.header("location"), location, "{id}");
        }
        app.api(Method::GET, "/api/messages/write-db-req?messageId=nobody").await.problem(404);
        app.api(Method::GET, "/api/messages/nothing?messageId=.").await.problem(404);
        app.api(Method::GET, "/api/messages/write-db-req").await.problem(400);
    });
}

#[test]
fn a_hang_up_ends_nothing() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        for _ in 0..3 {
            kill(Pid::from_raw(app.pid()), Signal::SIGHUP).unwrap();
        }
        eventually("it says so", SOON, async || same(app.log_lines("SIGHUP").is_empty(), &false)).await;
        assert_eq!(app.post("after", "after").await.status, 202);
        app.processed("after", SOON).await;
        assert_eq!(app.stop().await, Some(0));
    });
}

async fn failing() -> App {
    let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
    app.write("configurations/failing/adapters.yml", ADAPTERS);
    app.write("configurations/failing/migrations/main/V1__tables.sql", TABLES);
    app.migrate();
    app.run();
    app.ready(LONG).await;
    app
}

#[test]
fn data_that_a_step_refuses_answers_422_and_a_step_that_is_broken_500() {
    run(async {
        let app = failing().await;
        assert_eq!(app.post_to("/api/strict", "ok", "7").await.status, 202);
        let before = app.traces().await;
        for (path, id, body, status, step) in [
            ("/api/strict", "no-number", "seven", 422, "strict > keep"),
            ("/api/strict", "out-of-range", "99999999999", 422, "strict > keep"),
            ("/api/strict", "check", "100", 422, "strict > keep"),
            ("/api/strict", "at-commit", "7", 422, "strict > commit"),
            ("/api/broken", "broken", "x", 500, "broken > call"),
        ] {
            let refused = app.post_to(path, id, body).await;
            let problem = refused.problem(status);
            assert_eq!(refused.header("x-outcome"), "none", "{refused:?}");
            assert_eq!(problem["step"], step, "{problem}");
            let lines = app.log_has(&format!("message.id={id} ")).await;
            assert!(lines.len() == 1 && lines[0].contains(step), "{id}: {lines:?}");
        }
        app.settled(SOON).await;
        assert_eq!(app.traces().await, before);
        let page = app.console(Method::GET, "/metrics").await.body;
        for line in [
            r#"posthaste_rolled_back_total{adapter="strict"} 4"#,
            r#"posthaste_rolled_back_total{adapter="broken"} 1"#,
            r#"posthaste_rejected_total{status="422"} 4"#,
            r#"posthaste_rejected_total{status="500"} 1"#,
        ] {
            assert!(page.lines().any(|one| one == line), "{line} is not in {page}");
        }
        assert_eq!(app.post_to("/api/strict", "check", "8").await.status, 202, "the id was not used up");
    });
}
