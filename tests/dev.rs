//! The private servers of `posthaste dev` and of the tests: they come, they go, they leave nothing.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a panic is the report")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use posthaste::cli::dev::{Application, DevAction, DevArgs, FirstApi, Target, act, prepare};
use posthaste::dev::{Options, PrivatePostgres, PrivateRabbit, Server, fresh_name, running_devs, start_both};

#[path = "dev/processes.rs"]
mod processes;

use processes::{is_alive, listens_on, processes_of};

#[test]
fn a_temporary_folder_too_long_for_a_socket_is_told_with_what_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(100));
    fs::create_dir(&long).unwrap();
    let mut dev = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    let said = dev.args(["dev", "--port", "0"]).env("TMPDIR", &long).output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success() && text.contains("set TMPDIR to a shorter folder"), "{text}");
}

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
    assert_eq!(postgres.sql("SHOW max_prepared_transactions").await.unwrap().trim(), "200");
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

    postgres.pause().await.unwrap();
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
    assert!(connect(&url).await.is_err());
    rabbit.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_killed_owner_takes_its_servers_and_folders_along() {
    let temp = tempfile::tempdir_in("/var/tmp").unwrap();
    open_to_all(temp.path());
    let mut owner = Owner::start(temp.path(), "both");
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    let folders = owner.folders.clone();
    let gone = || folders.iter().all(|folder| !folder.exists() && processes_of(folder).is_empty());
    within(Duration::from_secs(15), "the leash ends the servers", gone).await;
}

#[tokio::test]
async fn what_an_owner_and_its_leash_left_does_not_block_the_next() {
    let temp = tempfile::tempdir_in("/var/tmp").unwrap();
    open_to_all(temp.path());
    let mut first = Owner::start(temp.path(), "postgres");
    let folder = first.folders[0].clone();
    for leash in processes_of(&folder).into_iter().filter(|pid| command_line(*pid).contains("posthaste-dev-leash")) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(leash.cast_signed()), nix::sys::signal::SIGKILL).unwrap();
    }
    first.process.kill().unwrap();
    first.process.wait().unwrap();
    assert!(folder.exists() && !processes_of(&folder).is_empty(), "there is a leftover");

    let second = Owner::start(temp.path(), "postgres");
    assert!(!folder.exists(), "the next start removed the folder");
    assert_eq!(processes_of(&folder), Vec::<u32>::new());
    assert!(second.folders[0].exists());
    let third = Owner::start(temp.path(), "postgres");
    assert!(second.folders[0].exists(), "a living owner's folder is left alone");
    for mut owner in [second, third] {
        owner.process.kill().unwrap();
        owner.process.wait().unwrap();
        within(Duration::from_secs(15), "the folder goes", || !owner.folders[0].exists()).await;
    }
}

#[tokio::test]
async fn kept_data_are_there_in_the_next_run_and_used_by_one_at_a_time() {
    let temp = tempfile::tempdir_in("/var/tmp").unwrap();
    open_to_all(temp.path());
    let options = Options { keep: Some(temp.path().join("data")), ..Options::default() };
    let postgres = PrivatePostgres::start(&options).await.unwrap();
    let url = postgres.create_database("shop").await.unwrap();
    query(&url, "CREATE TABLE t (n int)").await.unwrap();
    let refused = PrivatePostgres::start(&options).await.unwrap_err().to_string();
    assert!(refused.ends_with("is in use by another `posthaste dev`"), "{refused}");
    let stale = format!("{}\n{}\n", std::process::id(), temp.path().join("data/postgres/data").display());
    postgres.shutdown().await.unwrap();
    fs::write(temp.path().join("data/postgres/data/postmaster.pid"), stale).unwrap(); // as after a reboot

    let postgres = PrivatePostgres::start(&options).await.unwrap();
    query(&postgres.url("shop"), "SELECT * FROM t").await.unwrap();
    postgres.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_folder_that_the_servers_user_cannot_enter_is_refused_by_name() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return; // the servers are the caller itself
    }
    let private = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let options = Options { keep: Some(private.path().to_owned()), ..Options::default() };
    let refused = PrivatePostgres::start(&options).await.unwrap_err().to_string();
    assert!(refused.contains("cannot enter") && refused.contains(private.path().to_str().unwrap()), "{refused}");
}

/// The tests are one process, and a process is one `posthaste dev`.
static ONE_DEV: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn dev_gives_each_entry_a_database_and_stops_and_starts_servers_on_request() {
    let _alone = ONE_DEV.lock().await;
    let args = DevArgs { action: None, port: 0, postgres: None, amqp: None, keep: None };
    let servers = prepare(&args, &["main".to_owned(), "second".to_owned()]).await.unwrap();
    for (entry, url) in &servers.postgres {
        assert!(url.ends_with(&format!("/{entry}")), "{entry} is its database's name");
        query(url, "SELECT 1").await.unwrap();
    }
    connect(&servers.amqp).await.unwrap();
    let first = FirstApi {
        method: "POST".to_owned(),
        path: "/api/write".to_owned(),
        id_header: "Message-Id".to_owned(),
        message: None,
        repeat: Some(304),
        needs_broker: true,
    };
    let application = Application { program: "posthaste", finds_console: true, first_api: Some(first) };
    let banner = servers.banner(application).await;
    assert!(
        banner.contains(&servers.amqp) && banner.contains(&format!("http://{}/api/write", servers.api)),
        "{banner}"
    );

    let target = |server| Target { server, pid: Some(std::process::id()) };
    let asking = async {
        let stopped = act(&DevAction::Stop(target(Server::Postgres))).await.unwrap();
        assert_eq!(stopped, "PostgreSQL is stopped; `posthaste dev start postgres` starts it again");
        assert!(query(&servers.postgres[0].1, "SELECT 1").await.is_err());
        let refused = act(&DevAction::Stop(target(Server::Postgres))).await.unwrap_err().to_string();
        assert_eq!(refused, "PostgreSQL is not running");
        let told = running_devs().await.unwrap().into_iter().find(|dev| dev.pid == std::process::id()).unwrap();
        assert_eq!((&told.postgres, &told.amqp), (&servers.postgres, &servers.amqp));
        assert_eq!((told.api, told.console), (servers.api, servers.console));
        let started = act(&DevAction::Start(target(Server::Postgres))).await.unwrap();
        assert!(started.starts_with("PostgreSQL runs again, pid "), "{started}");
        query(&servers.postgres[0].1, "SELECT 1").await.unwrap();
    };
    tokio::select! {
        () = asking => (),
        () = servers.serve() => panic!("it serves until it is dropped"),
    }
    servers.shutdown().await.unwrap();
    assert!(query(&servers.postgres[0].1, "SELECT 1").await.is_err());
    let refused = act(&DevAction::Stop(target(Server::Postgres))).await.unwrap_err().to_string();
    assert_eq!(refused, "no `posthaste dev` of this user is running");
}

#[tokio::test]
async fn dev_with_given_servers_starts_none() {
    let _alone = ONE_DEV.lock().await;
    let given = |url: &str| Some(url.to_owned());
    let args = DevArgs {
        action: None,
        port: 0,
        postgres: given("postgres://me:hidden@db.example/app"),
        amqp: given("amqp://me:hidden@mq.example/%2f"),
        keep: None,
    };
    let servers = prepare(&args, &["main".to_owned()]).await.unwrap();
    assert_eq!(servers.postgres, [("main".to_owned(), "postgres://me:hidden@db.example/app".to_owned())]);
    assert_eq!(servers.amqp, "amqp://me:hidden@mq.example/%2f");
    let banner = servers.banner(Application { program: "posthaste", finds_console: true, first_api: None }).await;
    assert!(!banner.contains("hidden") && banner.contains("yours"), "{banner}");
    servers.shutdown().await.unwrap();
}

#[tokio::test]
async fn missing_programs_name_the_debian_packages() {
    let nowhere = tempfile::tempdir().unwrap();
    let options = Options { binaries: Some(nowhere.path().to_owned()), ..Options::default() };
    let postgres = PrivatePostgres::start(&options).await.unwrap_err().to_string();
    assert!(postgres.ends_with("on Debian: apt-get install postgresql"), "{postgres}");
    let rabbit = PrivateRabbit::start(&options).await.unwrap_err().to_string();
    assert!(rabbit.ends_with("on Debian: apt-get install rabbitmq-server"), "{rabbit}");
}

/// Another process that owns private servers and can be killed: this test binary, run again.
struct Owner {
    process: Child,
    folders: Vec<PathBuf>,
}

impl Owner {
    fn start(temp: &Path, servers: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "an_owner_for_the_other_tests", "--nocapture"]);
        command.env("TMPDIR", temp).env("POSTHASTE_TEST_OWNER", servers).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let folders = lines.find_map(|line| Some(line.split_once("folders ")?.1.to_owned())).unwrap();
        Self { process, folders: folders.split(' ').map(PathBuf::from).collect() }
    }
}

#[tokio::test]
#[ignore = "run by the other tests in a process of its own"]
async fn an_owner_for_the_other_tests() {
    let Ok(servers) = std::env::var("POSTHASTE_TEST_OWNER") else { return };
    let postgres = PrivatePostgres::start(&Options::default()).await.unwrap();
    let rabbit = if servers == "both" { Some(PrivateRabbit::start(&Options::default()).await.unwrap()) } else { None };
    let rabbits = rabbit.as_ref().map(|rabbit| format!(" {}", rabbit.folder().display())).unwrap_or_default();
    println!("folders {}{rabbits}", postgres.folder().display());
    std::future::pending::<()>().await;
}

async fn within(bound: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + bound;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn open_to_all(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

fn command_line(pid: u32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).into_owned()
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
