//! Which cases there are, and running them, several at a time.

use std::sync::Arc;
use std::time::Instant;

use posthaste::txn::faults::Point;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use crate::case::{Case, Kind, short as name};
use crate::outside::{comes_from_outside, harms_everybody};
use crate::site::Ground;

/// Cases under way at once: they mostly wait for leases.
const AT_ONCE: usize = 4;

/// What runs with every change: each point with an error and an exit, and with what it is named after.
pub fn short() -> Vec<Case> {
    let mut cases = Vec::new();
    for point in Point::ALL.iter().copied() {
        cases.extend([Kind::Error, Kind::Exit].map(|kind| Case::first(point, kind)));
        if comes_from_outside(point) {
            cases.push(Case::first(point, Kind::Outside));
        }
    }
    // A message's task before its COMMIT and after it, and each kind of task that works for several.
    let panics = [
        Point::IN1,
        Point::IN3,
        Point::IN4,
        Point::IN9,
        Point::DQ1,
        Point::DQ3,
        Point::MD1,
        Point::MD2,
        Point::MD5,
        Point::RC4,
    ];
    cases.extend(panics.map(|point| Case::first(point, Kind::Panic)));
    cases.extend([Point::GR1, Point::MD5, Point::MD10].map(|point| Case::in_group(point, Kind::Panic)));
    // Who wakes too late, and a channel that closes.
    cases.extend([Point::IN9, Point::DQ5, Point::MD8].map(|point| Case::first(point, Kind::Stop)));
    cases.push(Case::first(Point::DQ4, Kind::Cut));
    cases.push(Case::first(Point::MD9, Kind::Severed));
    // The second PREPARE; amid COMMIT PREPARED.
    let amid = [(Point::MD2, 2), (Point::MD5, 2), (Point::MD5, 3)];
    cases.extend(amid.map(|(point, nth)| Case { nth, ..Case::first(point, Kind::Exit) }));
    // Messages that share a transaction over three databases.
    cases.extend(shared().filter(|point| !name(*point).starts_with("DQ")).flat_map(of_group));
    cases.push(Case::in_group(Point::MD8, Kind::Stop));
    cases.extend(amid.map(|(point, nth)| Case { nth, ..Case::in_group(point, Kind::Exit) }));
    cases
}

/// Points that a group over several databases passes: all of a dequeue but those of a COMMIT in one phase.
fn shared() -> impl Iterator<Item = Point> {
    let dequeues = |point: &Point| ["DQ", "GR", "MD"].iter().any(|some| name(*point).starts_with(some));
    let one_phase = |point: &Point| matches!(point, Point::DQ1 | Point::DQ2);
    Point::ALL.iter().copied().filter(move |point| dequeues(point) && !one_phase(point))
}

/// All that is missing in the short one: each point with everything, on the first run and while others recover.
pub fn rest() -> Vec<Case> {
    let mut cases = Vec::new();
    for point in Point::ALL.iter().copied() {
        cases.extend([Kind::Panic, Kind::Stop, Kind::Cut].map(|kind| Case::first(point, kind)));
        let all = [Kind::Error, Kind::Panic, Kind::Exit, Kind::Stop, Kind::Cut];
        cases.extend(all.map(|kind| Case::in_recovery(point, kind)));
    }
    for point in shared() {
        cases.extend(of_group(point));
        cases.extend([Kind::Panic, Kind::Stop, Kind::Cut].map(|kind| Case::in_group(point, kind)));
        cases.push(Case { in_recovery: true, ..Case::in_group(point, Kind::Exit) });
    }
    // A rehearsal is held before the instance is registered: nobody fences it, and a panic ends the process.
    let before_it_lives = |case: &Case| case.point == Point::RH1 && matches!(case.kind, Kind::Panic | Kind::Stop);
    cases.retain(|case| !short().contains(case) && !before_it_lives(case));
    cases
}

/// An error, an exit, and what the point is named after; the queue that is lost at DQ7 is that of the home alone.
fn of_group(point: Point) -> Vec<Case> {
    let outside = (comes_from_outside(point) && point != Point::DQ7).then_some(Kind::Outside);
    let kinds = [Kind::Error, Kind::Exit].into_iter().chain(outside);
    kinds.map(|kind| Case::in_group(point, kind)).collect()
}

/// Runs those that are wanted; fails with the names of those that failed.
pub fn run(mut cases: Vec<Case>) {
    if let Ok(wanted) = std::env::var("POSTHASTE_CASES") {
        cases.retain(|case| wanted.split(',').any(|part| case.name().contains(part)));
    }
    println!("{} cases", cases.len());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let failed = runtime.block_on(async {
        let ground = Ground::prepare().await;
        let (alone, together): (Vec<Case>, Vec<Case>) =
            cases.into_iter().partition(|case| case.kind == Kind::Outside && harms_everybody(case.point));
        // First: a server with the databases of all cases would take a minute to come back.
        let mut failed = run_all(alone, &ground, 1).await;
        failed.extend(run_all(together, &ground, AT_ONCE).await);
        failed
    });
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

/// Answers the names of those that failed.
async fn run_all(cases: Vec<Case>, ground: &Arc<Ground>, at_once: usize) -> Vec<String> {
    let (tasks, room) = (LocalSet::new(), Arc::new(Semaphore::new(at_once)));
    let started = cases.into_iter().map(|case| {
        let (ground, room) = (Arc::clone(ground), Arc::clone(&room));
        let run = async move {
            let _room = room.acquire_owned().await.unwrap();
            let begun = Instant::now();
            case.run(ground).await;
            println!("{:>6.1} s  {}", begun.elapsed().as_secs_f64(), case.name());
        };
        (case.name(), tasks.spawn_local(run))
    });
    let started: Vec<_> = started.collect();
    let mut failed = Vec::new();
    tasks.await;
    for (name, task) in started {
        if task.await.is_err() {
            failed.push(name);
        }
    }
    failed
}
