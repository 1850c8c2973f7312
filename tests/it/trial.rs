//! A load on an installation while something happens to it, and the judgement afterwards.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::history::{Kind, Operation, Promise, check};
use crate::load::{self, Load, POISON, Stop};
use crate::support::{App, Application, LONG};

/// The seed of this run: `POSTHASTE_SEED` to repeat one, else a new one.
pub fn seed() -> u32 {
    match std::env::var("POSTHASTE_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => uuid::Uuid::new_v4().as_fields().0,
    }
}

/// How long a history from the dice is: `POSTHASTE_SECONDS`, else one minute.
pub fn length() -> Duration {
    Duration::from_secs(std::env::var("POSTHASTE_SECONDS").map_or(60, |seconds| seconds.parse().unwrap()))
}

/// Loss is found after T_redo (10 s, doubling) by a walk over the journal, and this machine may be busy.
const REDONE: Duration = Duration::from_secs(120);

/// What must hold in the home database afterwards, beyond what clients can see. Each statement selects offenders.
const RULES: [(&str, &str); 5] = [
    ("I7: no more attempts than allowed", "SELECT tx_id::text FROM posthaste.journal WHERE attempts > max_attempts"),
    (
        "I7: nothing fails more often than maxRetries + 1 times; what a database ended has no step",
        "SELECT tx_id::text FROM posthaste.attempt WHERE outcome = 'FAILED' AND step IS NOT NULL
         GROUP BY tx_id HAVING count(*) > 6",
    ),
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

/// Why good messages are in the error store, and what went before.
const WHY_IN_ERROR: &str = "SELECT s.messageid || ': ' || s.comments
        || coalesce((SELECT string_agg(E'\n  ' || a.n || ' ' || a.started_at || ' ' || coalesce(a.error, a.outcome), '' ORDER BY a.n)
                     FROM posthaste.attempt a JOIN posthaste.journal j USING (tx_id) WHERE j.root_id = s.root_id), '')
    FROM ibisstore s WHERE type = 'E' AND messageid NOT LIKE $1 ORDER BY messagekey LIMIT 20";

/// Poison that is not in the error store yet.
const OPEN_POISON: &str = "SELECT messageid::text FROM ibisstore s JOIN posthaste.journal j USING (tx_id)
    WHERE s.type = 'A' AND j.state IN ('READY', 'PUBLISHED') AND messageid LIKE '%-poison'";

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
    /// Starts clients that post texts to all targets in turn.
    pub fn start(name: &'static str, seed: u32, targets: &[SocketAddr]) -> Self {
        Self::start_on(Application::WriteDb, name, seed, targets)
    }

    /// The same for any application.
    pub fn start_on(application: Application, name: &'static str, seed: u32, targets: &[SocketAddr]) -> Self {
        Self::begin(application, false, name, seed, targets)
    }

    /// Texts, and poison that accuses the database among them (`Installation`).
    pub fn start_with_accusers(name: &'static str, seed: u32, targets: &[SocketAddr]) -> Self {
        Self::begin(Application::WriteDb, true, name, seed, targets)
    }

    fn begin(application: Application, accusing: bool, name: &'static str, seed: u32, targets: &[SocketAddr]) -> Self {
        eprintln!("{name}: POSTHASTE_SEED={seed}");
        // Transfers take turns at a few accounts: they come more slowly.
        let (clients, pause) = match application {
            Application::WriteDb => (8, Duration::from_millis(20)),
            Application::TwoDatabases => (4, Duration::from_millis(200)),
        };
        // Until it is judged.
        let (duration, messages) = (Duration::MAX, u32::MAX);
        let load = Load { application, seed, clients, duration, messages, pause, accusing };
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

        if self.load.accusing {
            let (until, app) = (Instant::now() + REDONE, &*app);
            let open: Vec<String> = app.db.column(OPEN_POISON, &[]).await;
            eprintln!("{name}: {} poisons are open, and kept company", open.len());
            let told = async || Instant::now() > until || app.db.column::<String>(OPEN_POISON, &[]).await.is_empty();
            load::keep_company(app.api, self.load, &mut log, told).await;
        }
        let without = load::settle_unknown(app.api, self.load, &mut log, Duration::from_secs(30)).await;
        load::write(&log, &kept);
        app.settle(REDONE).await;
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
        if found.of(Kind::Blamed) > 0 {
            let why: Vec<String> = app.db.column(WHY_IN_ERROR, &[&format!("%{POISON}")]).await;
            eprintln!("{name}: in the error store:\n{}", why.join("\n"));
        }
        assert!(found.none(), "{name}, seed {seed}, history in {}:\n{found}", kept.display());
        assert_eq!(without, Vec::<String>::new(), "these ids never got a definite answer");
        for (rule, sql) in RULES {
            let broken: Vec<String> = app.db.column(sql, &[]).await;
            assert!(broken.is_empty(), "{name}, seed {seed}: {rule}: {broken:?}");
        }
        app.everything_is_accounted_for();
        if self.load.application == Application::TwoDatabases {
            assert_eq!(app.books().await, Vec::<String>::new(), "{name}, seed {seed}");
        }
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
