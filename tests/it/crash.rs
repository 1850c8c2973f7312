//! kill -9 of everything, and worse, under load, from outside; then the history is judged (protocol §9.4, exercise 11).

use std::sync::Arc;
use std::time::Duration;

use crate::load::Dice;
use crate::nemesis::{Installation, Plan};
use crate::support::{App, LONG, Servers, run};
use crate::trial::{Trial, length, seed};

/// What is killed next.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Posthaste,
    Postgres,
    Rabbit,
}

const KILLS: [(Victim, usize); 3] = [(Victim::Posthaste, 20), (Victim::Postgres, 3), (Victim::Rabbit, 3)];

/// All kills in an order that the seed decides. RabbitMQ is not the first: its queue must be older than a moment (§8).
fn plan(dice: &mut Dice) -> Vec<Victim> {
    let mut plan: Vec<Victim> = KILLS.iter().flat_map(|(victim, times)| vec![*victim; *times]).collect();
    dice.shuffle(&mut plan);
    let first = plan.iter().position(|victim| *victim == Victim::Posthaste).unwrap();
    plan.swap(0, first);
    plan
}

#[test]
fn every_202_takes_effect_once_whatever_is_killed() {
    run(async {
        let seed = seed();
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let trial = Trial::start("crash", seed, &[app.api]);
        kill_all(&mut app, &servers, &mut Dice(seed.into())).await;
        trial.judge(&mut app).await.accepted_at_least(150);
    });
}

#[test]
fn every_202_takes_effect_once_whatever_befalls_two_instances_and_their_servers() {
    run(async {
        let (seed, length) = (seed(), length());
        let installation = Installation::start(length).await;
        let trial = Trial::start_with_accusers("history", seed, &installation.addresses().await);
        installation.suffer(Plan::new(seed), length).await;
        let (mut last, _links) = installation.into_last().await;
        let enough = usize::try_from(length.as_secs()).unwrap() * 2;
        trial.judge(&mut last).await.accepted_at_least(enough);
    });
}

/// Each kill hits a system that accepts and is under load; now and then the next comes before it has recovered.
async fn kill_all(app: &mut App, servers: &Servers, dice: &mut Dice) {
    for victim in plan(dice) {
        if !dice.one_in(4) {
            app.ready(LONG).await;
        }
        tokio::time::sleep(Duration::from_millis(200 + dice.below(500))).await;
        let down = Duration::from_millis(dice.below(700));
        match victim {
            Victim::Posthaste => {
                app.kill9().await;
                app.run();
            }
            Victim::Postgres => {
                servers.kill9_postgres().await;
                tokio::time::sleep(down).await;
                servers.start_postgres().await;
            }
            Victim::Rabbit => {
                servers.kill9_rabbit().await;
                tokio::time::sleep(down).await;
                servers.start_rabbit().await;
            }
        }
    }
}
