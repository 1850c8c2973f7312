//! kill -9 under load: no transfer is torn, and nothing stays in doubt (protocol §6, I6).

use std::sync::Arc;
use std::time::Duration;

use super::{ledgers, other_server};
use crate::load::Dice;
use crate::support::{App, Application, LONG, Options, Servers, eventually, run};
use crate::trial::{Trial, seed};

/// Longest time in doubt while the home is up (T_recover).
const T_RECOVER: Duration = Duration::from_secs(15);

#[test]
fn what_a_killed_process_has_prepared_is_settled_soon_after_the_next_start() {
    run(async {
        let mut app = App::start_with(Servers::shared().await, ledgers()).await;
        let trial = Trial::start_on(Application::TwoDatabases, "killed-coordinator", seed(), &[app.api]);
        let mut in_doubt = 0;
        for _round in 0..25 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            app.kill9().await;
            let left = app.prepared().await;
            app.run();
            app.ready(LONG).await;
            eventually("what was left is settled", T_RECOVER, async || {
                let now = app.prepared().await;
                let still: Vec<&String> = left.iter().filter(|gid| now.contains(gid)).collect();
                if still.is_empty() { Ok(()) } else { Err(format!("{still:?}")) }
            })
            .await;
            in_doubt += left.len();
            if in_doubt >= 5 {
                break;
            }
        }
        assert!(in_doubt > 0, "no kill hit between PREPARE and COMMIT PREPARED");
        eprintln!("{in_doubt} prepared transactions were left");
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
                app.kill9().await;
                let left = app.prepared().await;
                // Its siblings alone recover it.
                eventually("the others have settled it", T_RECOVER, async || {
                    let now = app.prepared().await;
                    let still: Vec<&String> = left.iter().filter(|gid| now.contains(gid)).collect();
                    if still.is_empty() { Ok(()) } else { Err(format!("{still:?}")) }
                })
                .await;
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
