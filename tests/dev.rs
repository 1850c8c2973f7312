//! The private servers of `posthaste dev` and of the tests: they come, they go, they leave nothing.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a panic is the report")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use posthaste::dev::{Options, PrivatePostgres, PrivateRabbit, fresh_name, start_both};

#[tokio::test]
async fn both_servers_come_up_unprivileged_on_loopback_and_leave_nothing() {
    let begun = Instant::now();
    let (mut postgres, mut rabbit) = start_both(&Options::default()).await.unwrap();
    println!("both servers ready after {:?}", begun.elapsed());
    let folders = [postgres.folder().to_owned(), rabbit.folder().to_owned()];

    for pid in [postgres.pid().unwrap(), rabbit.pid().unwrap()] {
        assert_ne!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 0, "pid {pid} runs as root");
        let addresses = listens_on(pid);
        assert!(!addresses.is_empty() && addresses.iter().all(|address| address == "0100007F"), "{addresses:?}");
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        assert!(!environment.contains("CARGO_"), "the caller's environment leaked into pid {pid}");
    }
    assert_eq!(postgres.sql("SHOW max_prepared_transactions").await.unwrap().trim(), "64");
    assert_eq!(postgres.sql("SHOW fsync").await.unwrap().trim(), "on");
    assert_eq!(postgres.sql("SHOW server_encoding").await.unwrap().trim(), "UTF8");

    let begun = Instant::now();
    postgres.shutdown().await.unwrap();
    rabbit.shutdown().await.unwrap();
    println!("both gone after {:?}", begun.elapsed());
    for folder in &folders {
        assert!(!folder.exists(), "{} is still there", folder.display());
        assert_eq!(processes_of(folder), Vec::<u32>::new());
    }
}

#[tokio::test]
async fn postgres_keeps_data_and_port_over_stop_pause_and_kill9() {
    let mut postgres = PrivatePostgres::start(&Options::default()).await.unwrap();
    let begun = Instant::now();
    let url = postgres.create_database("shop").await.unwrap();
    println!("a database after {:?}", begun.elapsed());
    assert_eq!(postgres.create_database("shop").await.unwrap(), url, "asking twice is no error");
    assert!(postgres.create_database("no'good").await.is_err());
    query(&url, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await.unwrap();

    postgres.stop().await.unwrap();
    assert!(postgres.pid().is_none());
    assert!(query(&url, "SELECT 1").await.is_err());
    postgres.start_again().await.unwrap();
    query(&url, "INSERT INTO t VALUES (2)").await.unwrap();

    let pid = postgres.pid().unwrap();
    postgres.kill9().await.unwrap();
    assert!(!is_alive(pid));
    let begun = Instant::now();
    postgres.start_again().await.unwrap();
    println!("PostgreSQL is back {:?} after kill -9", begun.elapsed());
    assert_eq!(query(&url, "SELECT 1/(count(*) - 1) FROM t").await, Ok(()), "two rows survived");
    assert!(postgres.start_again().await.is_err(), "a second start is refused");

    postgres.pause().unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(300), query(&url, "SELECT 1")).await;
    assert!(answer.is_err(), "a paused server answers nothing, not even a refusal");
    postgres.resume().unwrap();
    query(&url, "SELECT 1").await.unwrap();
    postgres.shutdown().await.unwrap();
}

#[tokio::test]
async fn rabbit_keeps_vhosts_and_port_over_stop_and_kill9() {
    let begun = Instant::now();
    let mut rabbit = PrivateRabbit::start(&Options::default()).await.unwrap();
    println!("RabbitMQ ready after {:?}", begun.elapsed());
    let begun = Instant::now();
    let url = rabbit.create_vhost(&fresh_name("v")).await.unwrap();
    println!("a virtual host after {:?}", begun.elapsed());
    connect(&url).await.unwrap();
    assert!(rabbit.create_vhost("no\">>good").await.is_err());
    assert_eq!(rabbit.eval("1 + 1").await.unwrap(), "2");
    assert!(rabbit.eval("error(oops)").await.unwrap().contains("oops"), "an Erlang error is an answer too");

    let pid = rabbit.pid().unwrap();
    rabbit.kill9().await.unwrap();
    assert!(!is_alive(pid));
    assert!(connect(&url).await.is_err());
    let begun = Instant::now();
    rabbit.start_again().await.unwrap();
    println!("RabbitMQ is back {:?} after kill -9", begun.elapsed());
    connect(&url).await.unwrap();

    let begun = Instant::now();
    rabbit.stop().await.unwrap();
    println!("RabbitMQ stopped after {:?}", begun.elapsed());
    assert!(rabbit.pid().is_none());
    rabbit.start_again().await.unwrap();
    connect(&url).await.unwrap();
    rabbit.shutdown().await.unwrap();
}

async fn query(url: &str, sql: &str) -> Result<(), String> {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.map_err(|error| error.to_string())?;
    let asking = async move { client.batch_execute(sql).await };
    let (answer, ended) = tokio::join!(asking, connection);
    ended.map_err(|error| error.to_string())?;
    answer.map_err(|error| error.to_string())
}

async fn connect(url: &str) -> Result<(), lapin::Error> {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await?;
    connection.close(200, "done".into()).await
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Living processes that mention `folder` in their environment or arguments.
fn processes_of(folder: &Path) -> Vec<u32> {
    let wanted = folder.to_str().unwrap();
    let mentions = |pid: &u32| {
        ["environ", "cmdline"].iter().any(|file| {
            let raw = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&raw).contains(wanted)
        })
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id() && is_alive(*pid) && mentions(pid)).collect()
}

/// The addresses, in the kernel's notation, on which `pid` listens.
fn listens_on(pid: u32) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let sockets: Vec<String> = links
        .filter_map(|link| fs::read_link(link.ok()?.path()).ok())
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1)).map(|row| row.split_whitespace().collect());
    rows.filter(|row: &Vec<&str>| row[3] == "0A" && sockets.iter().any(|inode| inode == row[9]))
        .map(|row| row[1].split(':').next().unwrap().to_owned())
        .collect()
}
