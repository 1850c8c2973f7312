//! The real program on a snapshot of the home's disks, and on copies of its database, beside the original's broker.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use posthaste::dev::fresh_name;

use crate::support::{App, LONG, Options, SOON, Servers, eventually, run, same};

/// What a snapshot of the disk takes.
fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success(), "{}", from.display());
}

struct Snapshot {
    data: PathBuf,
    kept: PathBuf,
}

impl Snapshot {
    /// With the server stopped: what a snapshot of a running one recovers to.
    async fn take(servers: &Servers) -> Self {
        let folder = servers.postgres.lock().await.folder().to_owned();
        let snapshot = Self { data: folder.join("data"), kept: folder.join("snapshot") };
        servers.stop_postgres().await;
        copy_folder(&snapshot.data, &snapshot.kept);
        servers.start_postgres().await;
        snapshot
    }

    async fn restore(&self, servers: &Servers) {
        servers.stop_postgres().await;
        std::fs::remove_dir_all(&self.data).unwrap();
        copy_folder(&self.kept, &self.data);
        servers.start_postgres().await;
    }
}

/// As an instance does about once a minute.
async fn raised(app: &App) {
    let raise = "UPDATE posthaste.home SET epoch = epoch + 1, epoch_token = gen_random_uuid() RETURNING
        'posthaste.home.' || id || '.0.' || epoch";
    let name: String = app.db.one(raise, &[]).await;
    eventually("the broker shows it", LONG, async || same(app.exchange_is_there(&name).await, &true)).await;
}

async fn held_up(app: &App) {
    let told = async || {
        let ready = app.try_readyz().await.map_err(|error| error.to_string())?;
        if ready.status == 503 && ready.body.contains("migrate --home same") {
            Ok(())
        } else {
            Err(format!("{ready:?}"))
        }
    };
    eventually("/readyz says what to do", LONG, told).await;
    let refused = app.post("refused", "nobody knows where").await;
    assert_eq!((refused.status, refused.header("x-outcome")), (503, "none"), "{refused:?}");
}

async fn settled_as(app: &App, what: &str) {
    let said = app.command(&["migrate", "--home", what]);
    assert!(said.status.success(), "{said:?}");
}

#[test]
fn a_snapshot_of_the_disks_takes_nothing_from_the_broker_until_it_is_said_that_it_goes_on() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        assert_eq!(app.post("before", "before").await.status, 202);
        app.processed("before", SOON).await;
        app.settled(SOON).await;
        assert_eq!(app.stop().await, Some(0));
        let snapshot = Snapshot::take(&servers).await;

        // Production goes on: what it accepts last is on the queue when its disks are lost.
        app.run();
        app.ready(LONG).await;
        raised(&app).await;
        let stopped = app.command(&["adapter", "stop", "writeDb"]);
        assert!(stopped.status.success(), "{stopped:?}");
        for number in 0..3 {
            assert_eq!(app.post(&format!("lost-{number}"), "accepted after the snapshot").await.status, 202);
        }
        eventually("they are on the queue", LONG, async || same(app.depth().await, &Ok(3))).await;
        app.kill9().await;
        snapshot.restore(&servers).await;

        app.run();
        held_up(&app).await;
        assert_eq!(app.depth().await, Ok(3), "nothing was taken");
        assert_eq!(app.db.count("ibisstore WHERE type <> 'A'", &[]).await, 0, "nothing was parked");
        assert_eq!(app.db.count("posthaste.journal WHERE state IN ('READY', 'PUBLISHED')", &[]).await, 0);

        settled_as(&app, "same").await;
        app.ready(LONG).await;
        assert_eq!(app.post("after", "after").await.status, 202);
        app.processed("after", LONG).await;
        // What this database never knew is kept for a person.
        let parked = async || same(app.db.count("ibisstore WHERE type = 'H'", &[]).await, &3);
        eventually("they are parked", LONG, parked).await;
    });
}

#[test]
fn a_restart_of_everything_is_no_old_copy() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        raised(&app).await;
        servers.kill9_postgres().await;
        servers.start_postgres().await;
        app.ready(LONG).await;
        servers.stop_rabbit().await;
        servers.start_rabbit().await;
        app.ready(LONG).await;
        app.kill9().await;
        app.run();
        app.ready(LONG).await;
        assert_eq!(app.post("1", "one").await.status, 202);
        app.processed("one", LONG).await;
        // Raised, and the process was gone before the broker was shown it.
        app.kill9().await;
        app.db.rows("UPDATE posthaste.home SET epoch = epoch + 1, epoch_token = gen_random_uuid()", &[]).await;
        app.run();
        app.ready(LONG).await;
    });
}

#[test]
fn a_copy_from_a_template_beside_the_original_takes_nothing_of_it() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::install(Arc::clone(&servers), Options::default()).await;
        let name = fresh_name("copy");
        let from = app.db.name().to_owned();
        let make = format!(r#"CREATE DATABASE "{name}" TEMPLATE "{from}""#);
        servers.postgres.lock().await.sql(&make).await.unwrap();
        let mut copy = app.on_copy(&servers.postgres.lock().await.url(&name));
        app.run();
        app.ready(LONG).await;
        copy.run();
        held_up(&copy).await;
        for number in 0..20 {
            assert_eq!(app.post(&format!("m-{number}"), &format!("m-{number}")).await.status, 202);
        }
        app.settled(LONG).await;
        assert_eq!(copy.db.count("ibisstore", &[]).await + copy.db.count("posthaste.journal", &[]).await, 0);
        assert_eq!(app.db.count("message", &[]).await, 20);
        // The original's instance may go on as it pleases, and the copy's gets a name of its own.
        settled_as(&copy, "copy").await;
        copy.ready(LONG).await;
        app.accepts().await.unwrap();
    });
}
