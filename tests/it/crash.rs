//! kill -9 of everything, under load, from outside; then the history is judged (protocol §9.4, exercise 11).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::history::{Promise, check};
use crate::load::{self, Dice, Load};
use crate::support::{App, LONG, Servers, run};

/// What is killed next.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Posthaste,
    Postgres,
    Rabbit,
}

const KILLS: [(Victim, usize); 3] = [(Victim::Posthaste, 20), (Victim::Postgres, 3), (Victim::Rabbit, 3)];

/// What must hold in the home database afterwards, beyond what clients can see. Each statement selects offenders.
const RULES: [(&str, &str); 4] = [
    ("I7: no more attempts than allowed", "SELECT tx_id::text FROM posthaste.journal WHERE attempts > max_attempts"),
    (
        "I7: no more attempt records than allowed",
        "SELECT tx_id::text FROM posthaste.attempt JOIN posthaste.journal j USING (tx_id)
         GROUP BY tx_id, j.max_attempts HAVING count(*) > j.max_attempts",
    ),
    (
        "I5: every logged message has its journal row",
        "SELECT messageid::text FROM ibisstore s WHERE type = 'A'
         AND NOT EXISTS (SELECT FROM posthaste.journal j WHERE j.tx_id = s.tx_id)",
    ),
    (
        "I1: an error row's journal row says ERROR",
        "SELECT messageid::text FROM ibisstore s WHERE type = 'E'
         AND NOT EXISTS (SELECT FROM posthaste.journal j WHERE j.root_id = s.root_id AND j.state = 'ERROR')",
    ),
];

/// All kills in an order that the seed decides. RabbitMQ is not the first: its queue must be older than a moment (§8).
fn plan(dice: &mut Dice) -> Vec<Victim> {
    let mut plan: Vec<Victim> = KILLS.iter().flat_map(|(victim, times)| vec![*victim; *times]).collect();
    for last in (1..plan.len()).rev() {
        plan.swap(last, usize::try_from(dice.below(last as u64 + 1)).unwrap());
    }
    let first = plan.iter().position(|victim| *victim == Victim::Posthaste).unwrap();
    plan.swap(0, first);
    plan
}

/// The seed of this run: `POSTHASTE_CRASH_SEED` to repeat one, else a new one.
fn seed() -> u32 {
    match std::env::var("POSTHASTE_CRASH_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => uuid::Uuid::new_v4().as_fields().0,
    }
}

#[test]
fn every_202_takes_effect_once_whatever_is_killed() {
    run(async {
        let seed = seed();
        eprintln!("POSTHASTE_CRASH_SEED={seed}");
        let started = Instant::now();
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;

        let pause = Duration::from_millis(20);
        let load = Load { seed, clients: 8, duration: Duration::from_secs(240), messages: 20_000, pause };
        let target = app.api;
        let stop = load::Stop::default();
        let mut clients = JoinSet::new();
        clients.spawn({
            let stop = stop.clone();
            async move { load::run(target, load, stop).await }
        });
        kill_all(&mut app, &servers, &mut Dice(seed.into())).await;
        app.ready(LONG).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.now();
        let mut log = clients.join_next().await.unwrap().unwrap();
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("crash-{seed}.jsonl"));
        load::write(&log, &kept);
        let accepted = log.iter().filter(|op| op.answer.promise() == Promise::Accepted).count();
        eprintln!("all killed after {:?}; {accepted} of {} accepted; {}", started.elapsed(), log.len(), kept.display());

        let without = load::settle_unknown(target, load, &mut log, Duration::from_secs(30)).await;
        load::write(&log, &kept);
        app.settle(LONG).await;
        assert_eq!(app.stop().await, Some(0));
        let end = app.end_state().await;
        let found = check(&log, &end);
        let innocent = end.errors.iter().filter(|id| !id.ends_with(load::POISON)).count();
        let counted = |promise| log.iter().filter(|op| op.answer.promise() == promise).count();
        eprintln!(
            "{} posts: {} accepted, {} duplicates, {} refused, {} unknown; {} effects, {} in error ({} innocent); {:?}",
            log.len(),
            counted(Promise::Accepted),
            counted(Promise::Duplicate),
            counted(Promise::Nothing),
            counted(Promise::Unknown),
            end.message.len(),
            end.errors.len(),
            innocent,
            started.elapsed(),
        );
        assert!(found.none(), "seed {seed}, log {}:\n{found}", kept.display());
        assert_eq!(without, Vec::<String>::new(), "these ids never got a definite answer");
        for (rule, sql) in RULES {
            let broken: Vec<String> = app.db.column(sql, &[]).await;
            assert!(broken.is_empty(), "seed {seed}: {rule}: {broken:?}");
        }
        assert!(accepted > 300, "a run in which next to nothing is accepted proves nothing: {accepted}");
    });
}

/// Each kill hits a system that accepts and is under load; now and then the next comes before it has recovered.
async fn kill_all(app: &mut App, servers: &Servers, dice: &mut Dice) {
    for victim in plan(dice) {
        if !dice.one_in(4) {
            app.ready(LONG).await;
        }
        tokio::time::sleep(Duration::from_millis(300 + dice.below(700))).await;
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
