//! kill -9 under load: no transfer is torn, and nothing stays in doubt (protocol §6, I6).

use std::sync::Arc;
use std::time::Duration;

use posthaste::txn::Gid;
use tokio_postgres::Client;
use uuid::Uuid;

use super::{ledgers, other_server};
use crate::load::Dice;
use crate::support::{App, Application, LONG, Options, SOON, Servers, eventually, run, same};
use crate::trial::{Trial, seed};

/// Longest time in doubt while the home is up (T_recover).
const T_RECOVER: Duration = Duration::from_secs(15);

/// Waits until nothing of what a killed process left is prepared.
async fn settled(app: &App, left: &[String]) {
    eventually("what was left is settled", T_RECOVER, async || {
        let now = app.prepared().await;
        let still: Vec<&String> = left.iter().filter(|gid| now.contains(gid)).collect();
        if still.is_empty() { Ok(()) } else { Err(format!("{still:?}")) }
    })
    .await;
}

/// Whoever writes a decision waits.
pub(super) const HOLD: &str = "BEGIN; LOCK TABLE posthaste.decision IN EXCLUSIVE MODE";
/// The sessions that wait to write one for a message; the janitor's do not count.
pub(super) const WAITING: &str = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND query LIKE '/* decide */%'";
/// The sessions, a dead process's too, that write there or wait for it.
pub(super) const WRITING: &str =
    "pg_locks WHERE relation = 'posthaste.decision'::regclass AND mode = 'RowExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
/// Those of all processes.
const SESSIONS: &str = "pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'posthaste%'";

/// What a process has prepared and not decided upon, once there is something. Nobody can decide meanwhile.
pub(super) async fn undecided(app: &App) -> Vec<String> {
    eventually("something is prepared and not decided upon", SOON, async || its_undecided(app).await).await
}

/// The same for one of several, whose decisions it holds up. Meanwhile what the others have prepared may be in the way of all
/// that this one has in hand: then they go on, and are held up anew.
async fn held_up(app: &App, hold: &Client) -> Vec<String> {
    eventually("something of this one is prepared and not decided upon", LONG, async || {
        hold.batch_execute(HOLD).await.unwrap();
        for _look in 0..20 {
            if let Ok(own) = its_undecided(app).await {
                return Ok(own);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        hold.batch_execute("COMMIT").await.unwrap();
        Err("nothing, each time".to_owned())
    })
    .await
}

async fn its_undecided(app: &App) -> Result<Vec<String>, String> {
    let who = "SELECT incarnation FROM posthaste.instance WHERE pid = $1 AND state = 'LIVE'";
    let incarnation: Uuid = app.db.one(who, &[&app.pid()]).await;
    let mut own = app.prepared().await;
    own.retain(|gid| Gid::parse(gid).unwrap().incarnation.0 == incarnation);
    let known = decided(app, &own).await;
    if own.is_empty() || known > 0 { Err(format!("{own:?}, {known} of them decided")) } else { Ok(own) }
}

/// How many decisions there are about these.
async fn decided(app: &App, gids: &[String]) -> i64 {
    let gtrids: Vec<Uuid> = gids.iter().map(|gid| Gid::parse(gid).unwrap().gtrid.0).collect();
    app.db.count("posthaste.decision WHERE gtrid = ANY($1)", &[&gtrids]).await
}

#[test]
fn what_a_killed_process_has_prepared_is_settled_soon_after_the_next_start() {
    run(async {
        let mut app = App::start_with(Servers::shared().await, ledgers()).await;
        let trial = Trial::start_on(Application::TwoDatabases, "killed-coordinator", seed(), &[app.api]);
        let mut for_the_dead = 0;
        for round in 0..6 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            // Between PREPARE and decision, not wherever luck has it.
            let (hold, _session) = app.db.session().await;
            hold.batch_execute(HOLD).await.unwrap();
            let left = undecided(&app).await;
            eventually("its decision waits to be written", SOON, async || {
                if app.db.count(WAITING, &[]).await > 0 { Ok(()) } else { Err("none".to_owned()) }
            })
            .await;
            app.kill9().await;
            // A server that has heard all of it decides for the dead; one that has not, never will.
            let heard = round % 2 == 0;
            if !heard {
                app.db.rows(&format!("SELECT pg_terminate_backend(pid, 10000) FROM {SESSIONS}"), &[]).await;
            }
            hold.batch_execute("COMMIT").await.unwrap();
            let nobody = async || same(app.db.count(WRITING, &[]).await, &0);
            eventually("nobody writes a decision any more", SOON, nobody).await;
            let known = decided(&app, &left).await;
            assert!(heard || known == 0, "round {round}: {known} decided");
            for_the_dead += known;
            app.run();
            settled(&app, &left).await;
            app.ready(LONG).await;
        }
        assert!(for_the_dead > 0, "nothing of the dead was decided upon");
        trial.judge(&mut app).await.accepted_at_least(50);
        app.run();
        app.ready(LONG).await;
        app.nothing_in_doubt(LONG).await;
    });
}

#[test]
fn no_transfer_is_torn_when_processes_and_servers_are_killed() {
    run(async {
        let seed = seed();
        let (servers, other) = (Servers::own().await, other_server().await);
        let mut app = App::start_with(Arc::clone(&servers), Options { beside: Some(other.clone()), ..ledgers() }).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let trial = Trial::start_on(Application::TwoDatabases, "killed-ledgers", seed, &[app.api]);
        let mut dice = Dice(seed.into());
        for round in 0..9 {
            app.ready(LONG).await;
            tokio::time::sleep(Duration::from_millis(300 + dice.below(700))).await;
            let down = Duration::from_millis(dice.below(700));
            match round % 3 {
                0 => {
                    app.kill9().await;
                    app.run();
                }
                1 => {
                    servers.kill9_postgres().await;
                    tokio::time::sleep(down).await;
                    servers.start_postgres().await;
                }
                _ => {
                    other.lock().await.kill9().await.unwrap();
                    tokio::time::sleep(down).await;
                    other.lock().await.start_again().await.unwrap();
                }
            }
        }
        trial.judge(&mut app).await.accepted_at_least(50);
    });
}

#[test]
fn of_three_instances_any_is_killed_and_the_others_settle_what_it_left() {
    run(async {
        let first = App::install(Servers::shared().await, ledgers()).await;
        let (second, third) = (first.sibling(), first.sibling());
        let mut apps = [first, second, third];
        for app in &mut apps {
            // On a busy machine a process may give no sign of life for the tests' short lease.
            app.edit_resources("lease: 2s", "lease: 5s");
            app.run();
            app.ready(LONG).await;
        }
        let targets = apps.each_ref().map(|app| app.api);
        let trial = Trial::start_on(Application::TwoDatabases, "three-coordinators", seed(), &targets);
        for _ in 0..2 {
            for app in &mut apps {
                tokio::time::sleep(Duration::from_millis(700)).await;
                let (hold, _session) = app.db.session().await;
                let left = held_up(app, &hold).await;
                app.kill9().await;
                hold.batch_execute("COMMIT").await.unwrap();
                // Its siblings alone recover it.
                settled(app, &left).await;
                app.run();
                app.ready(LONG).await;
            }
        }
        let [mut first, mut second, mut last] = apps;
        for app in [&mut first, &mut second] {
            assert_eq!(app.stop().await, Some(0));
        }
        trial.judge(&mut last).await.accepted_at_least(50);
    });
}
