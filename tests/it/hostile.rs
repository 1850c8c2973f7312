//! Requests that no honest client sends: each is refused or cut off, and none leaves a trace (I2).

use std::time::Duration;

use reqwest::Method;
use tokio::net::TcpStream;

use crate::support::{App, Options, RawReply, SOON, Servers, eventually, exchange, run, same};

/// With time-outs short enough to wait for.
async fn app() -> App {
    let options = Options { api: &["headerTimeout: 1s", "bodyTimeout: 1s"], ..Options::default() };
    App::start_with(Servers::shared().await, options).await
}

impl App {
    async fn raw(&self, bytes: &[u8]) -> RawReply {
        exchange(self.api, bytes, Duration::from_secs(8)).await
    }

    /// A POST to `/api/write` with these header lines, each ended by CRLF, and this body.
    async fn raw_post(&self, headers: &[u8], body: &[u8]) -> RawReply {
        let mut bytes = b"POST /api/write HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".to_vec();
        bytes.extend_from_slice(headers);
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.raw(&bytes).await
    }

    /// Asserts that nothing came of what was sent, and that an honest client is still served.
    async fn unharmed(&self) {
        self.settled(SOON).await;
        assert_eq!(self.traces().await, [0, 0, 0]);
        assert_eq!(self.post("honest", "honest").await.status, 202);
        self.processed("honest", SOON).await;
    }
}

#[track_caller]
fn refused(reply: &RawReply, statuses: &[u16]) {
    assert!(reply.status.is_some_and(|status| statuses.contains(&status)), "wanted {statuses:?}: {reply:?}");
}

#[test]
fn bytes_that_no_header_may_hold_get_400() {
    run(async {
        let app = app().await;
        for headers in [
            &b"Message-Id: a\0b\r\nContent-Length: 1\r\n"[..],
            b"Message-Id: caf\xc3\xa9\r\nContent-Length: 1\r\n",
            b"Message-Id: \xff\xfe\r\nContent-Length: 1\r\n",
            b"Correlation-Id: \xc3\x28\r\nMessage-Id: ok\r\nContent-Length: 1\r\n",
            b"Message-Id: a\rb\r\nContent-Length: 1\r\n",
            b"Message Id: spaced-name\r\nContent-Length: 1\r\n",
            b"Message-Id\r\nContent-Length: 1\r\n",
        ] {
            refused(&app.raw_post(headers, b"x").await, &[400]);
        }
        app.unharmed().await;
    });
}

#[test]
fn an_id_of_10000_characters_gets_400() {
    run(async {
        let app = app().await;
        let header = format!("Message-Id: {}\r\nContent-Length: 1\r\n", "x".repeat(10_000));
        refused(&app.raw_post(header.as_bytes(), b"x").await, &[400]);
        app.unharmed().await;
    });
}

#[test]
fn two_ids_in_one_request_are_not_guessed_between() {
    run(async {
        let app = app().await;
        refused(&app.raw_post(b"Message-Id: one\r\nMessage-Id: two\r\nContent-Length: 1\r\n", b"x").await, &[400]);
        app.unharmed().await;
    });
}

#[test]
fn a_head_of_40_kibibytes_is_read_and_one_of_100_gets_431() {
    run(async {
        let app = app().await;
        let head = |bytes: usize| format!("X-Large: {}\r\nContent-Length: 1\r\n", "x".repeat(bytes));
        refused(&app.raw_post(head(102_400).as_bytes(), b"x").await, &[431]);
        app.unharmed().await;
        let large = format!("Message-Id: large\r\n{}", head(40_700));
        assert_eq!(app.raw_post(large.as_bytes(), b"x").await.status, Some(202));
    });
}

#[test]
fn headers_of_200_kilobytes_are_refused_in_one_piece_and_in_many() {
    run(async {
        let app = app().await;
        let one = format!("X-Large: {}\r\nContent-Length: 1\r\n", "x".repeat(200_000));
        refused(&app.raw_post(one.as_bytes(), b"x").await, &[400, 431]);
        let many: String = (0..2_000).map(|n| format!("X-Many-{n}: {}\r\n", "x".repeat(85))).collect();
        refused(&app.raw_post(format!("{many}Content-Length: 1\r\n").as_bytes(), b"x").await, &[400, 431]);
        app.unharmed().await;
    });
}

#[test]
fn a_body_over_the_limit_gets_413_whether_it_is_announced_or_not() {
    run(async {
        let app = app().await;
        let limit = 1024 * 1024;
        let announced = format!("Message-Id: big\r\nContent-Length: {}\r\n", limit + 1);
        refused(&app.raw_post(announced.as_bytes(), b"x").await, &[413]);
        refused(&app.raw_post(b"Message-Id: big\r\nContent-Length: 99999999999999\r\n", b"x").await, &[413]);

        let mut chunked = Vec::new();
        for _ in 0..=16 {
            chunked.extend_from_slice(b"10000\r\n");
            chunked.extend_from_slice(&[b'x'; 0x10000]);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        let headers = b"Message-Id: big\r\nTransfer-Encoding: chunked\r\n";
        refused(&app.raw_post(headers, &chunked).await, &[413]);
        app.unharmed().await;
    });
}

#[test]
fn broken_framing_gets_400_or_the_connection_is_closed() {
    run(async {
        let app = app().await;
        let chunked = b"Message-Id: bad\r\nTransfer-Encoding: chunked\r\n";
        for body in
            [&b"zz\r\nhello\r\n0\r\n\r\n"[..], b"5\r\nhelloXX0\r\n\r\n", b"-1\r\n\r\n", b"fffffffffffffffff\r\nx\r\n"]
        {
            let reply = app.raw_post(chunked, body).await;
            assert!(matches!(reply.status, Some(400 | 413) | None) && reply.closed, "{reply:?}");
        }
        for headers in [
            &b"Message-Id: bad\r\nContent-Length: 1\r\nContent-Length: 2\r\n"[..],
            b"Message-Id: bad\r\nContent-Length: 1, 2\r\n",
            b"Message-Id: bad\r\nContent-Length: -1\r\n",
            b"Message-Id: bad\r\nContent-Length: 1x\r\n",
            b"Message-Id: bad\r\nTransfer-Encoding: gzip\r\n",
        ] {
            let reply = app.raw_post(headers, b"xy").await;
            assert!(matches!(reply.status, Some(400 | 501) | None) && reply.closed, "{reply:?}");
        }
        app.unharmed().await;
    });
}

#[test]
fn a_request_that_ends_in_the_middle_of_its_body_leaves_nothing() {
    run(async {
        let app = app().await;
        let request = b"POST /api/write HTTP/1.1\r\nHost: x\r\nMessage-Id: half\r\nContent-Length: 10\r\n\r\nhalf";
        let mut socket = TcpStream::connect(app.api).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, request).await.unwrap();
        tokio::io::AsyncWriteExt::shutdown(&mut socket).await.unwrap();
        drop(socket);
        tokio::time::sleep(Duration::from_millis(300)).await;
        app.unharmed().await;
    });
}

#[test]
fn a_request_has_a_hundred_headers_at_most() {
    run(async {
        let app = app().await;
        for (headers, wanted) in [(96, 202), (97, 431)] {
            // Beside Host, Connection, Message-Id and Content-Length.
            let mut lines = format!("Message-Id: with-{headers}\r\nContent-Length: 1\r\n");
            lines.extend((0..headers).map(|number| format!("X-Some-{number}: x\r\n")));
            assert_eq!(app.raw_post(lines.as_bytes(), b"x").await.status, Some(wanted), "{headers}");
        }
    });
}

#[test]
fn paths_are_taken_literally() {
    run(async {
        let app = app().await;
        for path in [
            "/api/../api/write",
            "/api/./write",
            "//api/write",
            "/api//write",
            "/api/%2e%2e/api/write",
            "/api/%2E%2E/write",
            "/api/write%00",
            "/api/write%2f",
            "/api%2fwrite",
            "/api/write/",
            "/api/write;x=1",
            "/API/WRITE",
            "/api/messages/write-db-req/%00",
            "/api/messages/%ff/%ff",
        ] {
            let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx");
            refused(&app.raw(request.as_bytes()).await, &[400, 404, 405]);
        }
        app.unharmed().await;
    });
}

#[test]
fn garbage_instead_of_a_request_is_refused_and_cut_off() {
    run(async {
        let app = app().await;
        for bytes in [
            &b"\0\0\0\0\r\n\r\n"[..],
            b"AMQP\x00\x00\x09\x01\r\n\r\n",
            b"POST\r\n\r\n",
            b"POST /api/write HTTP/9.9\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ] {
            let reply = app.raw(bytes).await;
            assert!(matches!(reply.status, Some(400 | 505) | None) && reply.closed, "{bytes:?}: {reply:?}");
        }
        app.unharmed().await;
    });
}

#[test]
fn headers_that_never_end_are_cut_off_after_the_time_out() {
    run(async {
        let app = app().await;
        let reply = app.raw(b"POST /api/write HTTP/1.1\r\nHost: x\r\nMessage-Id: slow\r\n").await;
        assert!(reply.closed && matches!(reply.status, Some(408) | None), "{reply:?}");
        assert!(reply.after > Duration::from_millis(500), "{reply:?}");
        app.unharmed().await;
    });
}

#[test]
fn a_body_that_never_ends_gets_408() {
    run(async {
        let app = app().await;
        let reply = app.raw_post(b"Message-Id: slow\r\nContent-Length: 10\r\n", b"slow").await;
        refused(&reply, &[408]);
        assert!(reply.closed && reply.after > Duration::from_millis(500), "{reply:?}");
        app.unharmed().await;
    });
}

#[test]
fn fifty_slow_clients_do_not_keep_an_honest_one_waiting() {
    run(async {
        let app = app().await;
        let mut slow = Vec::new();
        for _ in 0..50 {
            let mut socket = TcpStream::connect(app.api).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut socket, b"POST /api/write HTTP/1.1\r\nHo").await.unwrap();
            slow.push(socket);
        }
        app.unharmed().await;
    });
}

#[test]
fn http_1_0_is_served_and_its_connection_closed() {
    run(async {
        let app = app().await;
        let reply = app.raw(b"POST /api/write HTTP/1.0\r\nMessage-Id: old\r\nContent-Length: 3\r\n\r\nold").await;
        assert!(reply.status == Some(202) && reply.closed, "{reply:?}");
        app.processed("old", SOON).await;
        let chunked =
            b"POST /api/write HTTP/1.0\r\nMessage-Id: new\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnew\r\n0\r\n\r\n";
        let reply = app.raw(chunked).await;
        assert!(matches!(reply.status, Some(400) | None) && reply.closed, "{reply:?}");
        assert_eq!(app.db.count("ibisstore", &[]).await, 1);
    });
}

#[test]
fn head_and_options_say_which_method_is_allowed() {
    run(async {
        let app = app().await;
        for method in [Method::HEAD, Method::OPTIONS] {
            let reply = app.api(method.clone(), "/api/write").await;
            assert_eq!(reply.status, 405, "{method}: {reply:?}");
            assert!(reply.header("allow").contains("POST"), "{method}: {reply:?}");
        }
        app.unharmed().await;
    });
}

#[test]
fn sql_and_markup_in_a_message_stay_text() {
    run(async {
        let app = app().await;
        for (id, body) in [("a';DROP--", "'); DROP TABLE message; --"), ("<b>", "<script>alert(1)</script>")] {
            assert_eq!(app.post(id, body).await.status, 202);
            app.processed(body, SOON).await;
            assert_eq!(app.post(id, body).await.status, 304);
        }
    });
}

#[test]
fn a_body_that_is_not_text_ends_in_the_error_store_unaltered() {
    run(async {
        let app = app().await;
        let body = b"\xff\x00\xfe";
        let reply = app.raw_post(b"Message-Id: binary\r\nContent-Length: 3\r\n", body).await;
        assert_eq!(reply.status, Some(202), "{reply:?}");
        let row = app.in_error("binary").await;
        assert_eq!(row.body, body);
        assert_eq!(app.raw_post(b"Message-Id: nul\r\nContent-Length: 3\r\n", b"a\0b").await.status, Some(202));
        app.settled(SOON).await;
        assert_eq!(app.error_rows().await.len(), 2);
    });
}

#[test]
fn who_hangs_up_again_and_again_piles_up_no_more_than_twice_the_connections_and_takes_nothing_back() {
    run(async {
        let options = Options { api: &["maxConnections: 4"], ..Options::default() };
        let app = App::start_with(Servers::shared().await, options).await;
        let (hold, _session) = app.db.session().await;
        hold.batch_execute("BEGIN; LOCK TABLE ibisstore IN EXCLUSIVE MODE").await.unwrap();
        let mut taken = 0;
        let refused = loop {
            assert!(taken < 20, "nobody is refused");
            let head = format!(
                "POST /api/write HTTP/1.1\r\nHost: here\r\nMessage-Id: gone-{taken}\r\nContent-Type: text/plain\r\n\
                 Content-Length: 4\r\n\r\ngone"
            );
            // Whoever gets no answer hangs up.
            let reply = exchange(app.api, head.as_bytes(), Duration::from_millis(150)).await;
            match reply.status {
                Some(_) => break reply,
                None => taken += 1,
            }
        };
        // On a busy machine one may have hung up before he was read.
        assert!(refused.status == Some(503) && taken >= 8, "{taken}: {refused:?}");
        assert!(refused.text.contains("too many messages are in hand"), "{refused:?}");
        assert!(refused.text.to_lowercase().contains("x-outcome: none"), "{refused:?}");
        hold.batch_execute("COMMIT").await.unwrap();
        let all = async || same(app.db.count("message", &[]).await, &8);
        eventually("whatever was read is accepted and processed", SOON, all).await;
        assert_eq!(app.post("honest", "honest").await.status, 202);
        app.processed("honest", SOON).await;
        assert_eq!(app.db.count("message", &[]).await, 9, "no more than eight came before");
    });
}
