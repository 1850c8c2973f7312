//! A backlog of large messages, and a restart with little memory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::{LITTLE, MIB};
use crate::support::{App, Cgroup, LONG, Options, Servers, eventually, run};

const RECEIVER: &str = "writeDb";
/// They are some hundred gigabytes, all in all.
const BOUND: Duration = Duration::from_secs(3 * 3600);

/// Accepts messages of these sizes, a few at a time, while nobody reads the queue: RabbitMQ takes what its memory allows, and the
/// journal keeps the rest. Then forgets half of the confirms and starts again with little memory. Its text is easily compressed: the disk is not what is tried here.
async fn restart(sizes: &[usize], at_once: usize) {
    // Dropped when its process is gone.
    let cgroup = Cgroup::with(LITTLE);
    let servers = Servers::own().await;
    // A quorum queue keeps large messages in memory when they are gone: what is tried here is not RabbitMQ's limit.
    let limit = "ok = vm_memory_monitor:set_vm_memory_high_watermark({absolute, 12000000000})";
    servers.rabbit.lock().await.eval(limit).await.unwrap();
    let mut app =
        App::install(Arc::clone(&servers), Options { api: &["maxBodyInFlight: 256MiB"], ..Options::default() }).await;
    let file = std::fs::read_to_string(app.folder().join("configurations/write-db/adapters.yml")).unwrap();
    let larger = file.replace("uriPattern: /write,", "uriPattern: /write, maxBody: 64MiB, accept: journalled,");
    assert_ne!(file, larger);
    app.write("configurations/write-db/adapters.yml", &larger);
    app.widen().await;
    app.run();
    app.ready(LONG).await;
    app.stop_adapter(RECEIVER).await;
    let numbers: Vec<usize> = (0..sizes.len()).collect();
    for some in numbers.chunks(at_once) {
        let bodies: Vec<String> = some.iter().map(|number| text(*number, sizes[*number])).collect();
        let posts = some.iter().zip(&bodies).map(|(number, body)| app.takes(*number, body));
        join_all(posts).await;
    }
    app.kill9().await;
    let forget = "UPDATE posthaste.journal SET state = 'READY', owner = NULL, published_at = NULL, publish_after = NULL
                  WHERE log_key % 2 = 0";
    app.db.rows(forget, &[]).await;
    app.run_in(cgroup.as_ref());
    app.ready(LONG).await;
    app.start_adapter(RECEIVER).await;
    let all = i64::try_from(sizes.len()).unwrap();
    eventually("all are processed", BOUND, async || {
        assert_eq!(app.has_ended(), None, "it was killed");
        match app.db.count("message", &[]).await {
            done if done == all => Ok(()),
            done => Err(format!("{done}")),
        }
    })
    .await;
    app.settled(Duration::from_secs(600)).await;
    let whole = "SELECT count(DISTINCT right(message, 16)) FROM message";
    assert_eq!(app.db.one::<i64>(whole, &[]).await, all);
    assert_eq!(app.db.count("message", &[]).await, all);
    assert_eq!(app.db.count(r#""otherMessage""#, &[]).await, all);
    assert_eq!(app.db.count("ibisstore WHERE type <> 'A'", &[]).await, 0);
    app.had_little(&format!("{} of {} MiB", sizes.len(), sizes[0] / MIB));
    app.stop().await;
}

/// So many bytes that end with a number.
fn text(number: usize, bytes: usize) -> String {
    let number = format!("{number:016}");
    "0".repeat(bytes - number.len()) + &number
}

impl App {
    /// Again until it is accepted: the queue may not take that much in time.
    async fn takes(&self, number: usize, body: &str) {
        let id = format!("large-{number}");
        eventually("it is accepted", LONG, async || match self.post(&id, body).await.status {
            202 | 304 => Ok(()),
            other => Err(other.to_string()),
        })
        .await;
    }
}

#[test]
#[ignore = "many minutes, and some tens of gigabytes; make memory runs them"]
fn ten_thousand_messages_of_a_mebibyte_are_processed_after_a_restart_in_little_memory() {
    run(restart(&[MIB; 10_000], 16));
}

#[test]
#[ignore = "many minutes, and some tens of gigabytes; make memory runs them"]
fn a_hundred_messages_of_sixty_mebibytes_are_processed_after_a_restart_in_little_memory() {
    run(restart(&[60 * MIB; 100], 1));
}
