//! Copies of the home come up beside it, under load and at the same broker: nothing of the original's is taken.

use std::path::Path;
use std::process::Command;

use posthaste::dev::{self, PrivatePostgres, fresh_name};

use super::some_seconds;
use crate::support::{App, LONG, Servers, eventually, run, same};
use crate::trial::{Trial, seed};

/// Says that it is no home yet, and has taken nothing.
pub async fn is_held_up(copy: &App, knew: i64) {
    let told = async || {
        let ready = copy.try_readyz().await.map_err(|error| error.to_string())?;
        if ready.status == 503 && ready.body.contains("migrate --home same") {
            Ok(())
        } else {
            Err(format!("{ready:?}"))
        }
    };
    eventually("/readyz says what to do", LONG, told).await;
    some_seconds(5).await;
    told().await.unwrap();
    assert_eq!(copy.db.count("ibisstore WHERE type <> 'E'", &[]).await, knew, "it has taken something");
}

pub async fn from_a_template(app: &App) -> App {
    let (from, name) = (app.db.name().to_owned(), fresh_name("copy"));
    let postgres = app.servers.postgres.lock().await;
    // Nobody may be in a database while it is copied.
    let open = async |may: bool| {
        postgres.sql(&format!(r#"ALTER DATABASE "{from}" ALLOW_CONNECTIONS {may}"#)).await.unwrap();
    };
    open(false).await;
    let end = format!("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{from}'");
    postgres.sql(&end).await.unwrap();
    postgres.sql(&format!(r#"CREATE DATABASE "{name}" TEMPLATE "{from}""#)).await.unwrap();
    open(true).await;
    app.on_copy(&postgres.url(&name))
}

/// Of all its disks, as they are at one moment; on a server of its own.
async fn from_a_snapshot(app: &App) -> (App, PrivatePostgres) {
    let folder = app.servers.postgres.lock().await.folder().to_owned();
    let copy = folder.join("copy");
    app.servers.stop_postgres_immediately().await;
    std::fs::create_dir_all(copy.join("postgres")).unwrap();
    for what in ["data", "password"] {
        copy_all(&folder.join(what), &copy.join("postgres").join(what));
    }
    app.servers.start_postgres().await;
    let postgres = PrivatePostgres::start(&dev::Options { keep: Some(copy), ..dev::Options::default() }).await.unwrap();
    (app.on_copy(&postgres.url(app.db.name())), postgres)
}

fn copy_all(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success(), "{}", from.display());
}

#[test]
#[ignore = "a minute each; make hang runs them"]
fn copies_of_the_home_at_the_same_broker_take_nothing_of_it() {
    run(async {
        let mut app = App::start(Servers::own().await).await;
        let trial = Trial::start("restored-copy", seed(), &[app.api]);
        some_seconds(3).await;
        let mut cloned = from_a_template(&app).await;
        app.ready(LONG).await;
        let (mut old, _postgres) = from_a_snapshot(&app).await;
        app.ready(LONG).await;
        // Within the next minute.
        let raise = "UPDATE posthaste.home SET epoch = epoch + 1, epoch_token = gen_random_uuid() RETURNING
            'posthaste.home.' || id || '.0.' || epoch";
        let name: String = app.db.one(raise, &[]).await;
        eventually("the broker shows it", LONG, async || same(app.exchange_is_there(&name).await, &true)).await;
        for copy in [&mut cloned, &mut old] {
            let knew = copy.db.count("ibisstore WHERE type <> 'E'", &[]).await;
            copy.run();
            is_held_up(copy, knew).await;
        }
        app.accepts().await.unwrap();
        some_seconds(3).await;
        trial.judge(&mut app).await.accepted_at_least(50);
    });
}
