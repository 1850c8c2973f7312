//! A load on an installation while something happens to it, and the judgement afterwards.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::history::{Operation, Promise, check};
use crate::load::{self, Load, Stop};
use crate::support::{App, LONG};

/// The seed of this run: `POSTHASTE_SEED` to repeat one, else a new one.
pub fn seed() -> u32 {
    match std::env::var("POSTHASTE_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => uuid::Uuid::new_v4().as_fields().0,
    }
}

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

/// A load that runs until the trial is judged.
pub struct Trial {
    name: &'static str,
    load: Load,
    stop: Stop,
    clients: JoinSet<Vec<Operation>>,
    started: Instant,
}

/// A trial that found nothing wrong.
#[must_use = "a trial in which next to nothing was accepted proves nothing"]
pub struct Passed {
    accepted: usize,
}

impl Trial {
    /// Starts eight clients that post to all targets in turn.
    pub fn start(name: &'static str, seed: u32, targets: &[SocketAddr]) -> Self {
        eprintln!("{name}: POSTHASTE_SEED={seed}");
        let (duration, pause) = (Duration::from_secs(400), Duration::from_millis(20));
        let load = Load { seed, clients: 8, duration, messages: 20_000, pause };
        let (stop, targets) = (Stop::default(), targets.to_vec());
        let mut clients = JoinSet::new();
        clients.spawn({
            let stop = stop.clone();
            async move { load::run(&targets, load, stop).await }
        });
        Self { name, load, stop, clients, started: Instant::now() }
    }

    /// Lets the load go on for a second in health, settles all doubts as clients would, waits until nothing moves, stops
    /// the process and judges. The last instance that runs is given; its servers are up.
    pub async fn judge(mut self, app: &mut App) -> Passed {
        let (name, seed) = (self.name, self.load.seed);
        app.ready(LONG).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.stop.now();
        let mut log = self.clients.join_next().await.unwrap().unwrap();
        let accepted = log.iter().filter(|op| op.answer.promise() == Promise::Accepted).count();
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}.jsonl"));
        eprintln!("{name}: over after {:?}, {accepted} of {} posts accepted", self.started.elapsed(), log.len());

        let without = load::settle_unknown(app.api, self.load, &mut log, Duration::from_secs(30)).await;
        load::write(&log, &kept);
        app.settle(LONG).await;
        assert_eq!(app.stop().await, Some(0));
        let end = app.end_state().await;
        let found = check(&log, &end);
        let counted = |promise| log.iter().filter(|op| op.answer.promise() == promise).count();
        eprintln!(
            "{name}: {} posts: {} accepted, {} duplicates, {} refused, {} unknown; {} effects, {} in error; {:?}",
            log.len(),
            counted(Promise::Accepted),
            counted(Promise::Duplicate),
            counted(Promise::Nothing),
            counted(Promise::Unknown),
            end.message.len(),
            end.errors.len(),
            self.started.elapsed(),
        );
        assert!(found.none(), "{name}, seed {seed}, history in {}:\n{found}", kept.display());
        assert_eq!(without, Vec::<String>::new(), "these ids never got a definite answer");
        let innocent: Vec<&String> = end.errors.iter().filter(|id| !id.ends_with(load::POISON)).collect();
        assert!(innocent.is_empty(), "failures of servers are blamed on messages: {innocent:?}");
        for (rule, sql) in RULES {
            let broken: Vec<String> = app.db.column(sql, &[]).await;
            assert!(broken.is_empty(), "{name}, seed {seed}: {rule}: {broken:?}");
        }
        app.everything_is_accounted_for();
        Passed { accepted }
    }
}

impl Passed {
    /// Enough to mean something.
    #[track_caller]
    pub fn accepted_at_least(self, wanted: usize) {
        assert!(self.accepted >= wanted, "only {} accepted while it happened", self.accepted);
    }
}
