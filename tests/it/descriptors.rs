//! File descriptors are never all the clients'.

use std::process::Command;

use reqwest::Method;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{App, LONG, Options, SOON, Servers, eventually, run};

/// With the settings of the tests some 400 are kept, and a quarter is the clients' in any case.
const LIMIT: &str = "--nofile=512:512";

impl App {
    /// Starts it where no more may be open.
    fn run_limited(&mut self) {
        let plain = self.prepare(&["run"]);
        let mut command = Command::new("prlimit");
        command
            .arg(LIMIT)
            .arg(plain.get_program())
            .args(plain.get_args())
            .current_dir(plain.get_current_dir().unwrap());
        command.env_remove("POSTHASTE_RESOURCES").env_remove("POSTHASTE_CONFIGURATIONS");
        self.start_process(command);
    }

    async fn beat(&self) -> i64 {
        self.db.one("SELECT max(heartbeat)::bigint FROM posthaste.instance", &[]).await
    }
}

#[test]
fn while_clients_hold_all_the_connections_they_may_servers_and_console_are_reached() {
    run(async {
        let mut app =
            App::lay_out(Servers::shared().await, Options { api: &["bodyTimeout: 5m"], ..Options::default() }).await;
        app.migrate();
        app.run_limited();
        app.ready(LONG).await;
        app.log_has("http.api.maxConnections is 1024").await;

        let mut held = Vec::new();
        // Until no more are let in, and the kernel's queue is full, too.
        while let Ok(client) = timeout(SOON, TcpStream::connect(app.api)).await
            && held.len() < 600
        {
            let mut client = client.unwrap();
            let head = b"POST /api/write HTTP/1.1\r\nHost: x\r\nMessage-Id: slow\r\nContent-Length: 10\r\n\r\nab";
            client.write_all(head).await.unwrap();
            held.push(client);
        }
        let ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        app.db.rows(ends, &[]).await;
        let before = app.beat().await;
        eventually("its heart beats in a new session", LONG, async || {
            let now = app.beat().await;
            if now >= before + 3 { Ok(()) } else { Err(format!("{now} after {before}")) }
        })
        .await;
        assert_eq!(app.console(Method::GET, "/livez").await.status, 200);
        drop(held);
        let posted = async || match app.try_post_to("/api/write", "after", "after").await {
            Ok(reply) if reply.status == 202 => Ok(()),
            other => Err(format!("{other:?}")),
        };
        eventually("a client is served", LONG, posted).await;
        app.processed("after", SOON).await;
    });
}
