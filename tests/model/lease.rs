//! Who fences whom when the database is away or processes stop: the product's observer, one second after the other
//! (protocol §6, "Hint").

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use posthaste::model::Incarnation;
use posthaste::relay::LeaseObserver;
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::product::incarnation;

const LEASE: Duration = Duration::from_secs(3);
const SECONDS: u64 = 10;
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Whether an outage is kept from the observers: they go on with what they saw last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    Noticed,
    Unnoticed,
}

/// One second: what answers, and who is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Second {
    database: bool,
    at_work: [bool; 2],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Instances {
    second: u64,
    /// As in the database.
    counters: [i64; 2],
    live: [bool; 2],
    observers: [LeaseObserver; 2],
    last_seen: [i64; 2],
    /// It was stopped since it last beat.
    stopped: [bool; 2],
}

impl Instances {
    fn alive(&self, counters: [i64; 2]) -> Vec<(Incarnation, i64)> {
        (0_u8..2).map(usize::from).filter(|one| self.live[*one]).map(|one| (id(one), counters[one])).collect()
    }
}

fn id(one: usize) -> Incarnation {
    incarnation(u8::try_from(one).unwrap())
}

impl Model for Outage {
    type State = Instances;
    type Action = Second;

    fn init_states(&self) -> Vec<Instances> {
        let observers = [0, 1].map(|one| LeaseObserver::new(id(one), LEASE));
        let (live, stopped) = ([true; 2], [false; 2]);
        vec![Instances { second: 0, counters: [0; 2], live, observers, last_seen: [0; 2], stopped }]
    }

    fn actions(&self, instances: &Instances, actions: &mut Vec<Second>) {
        if instances.second < SECONDS {
            for database in [true, false] {
                for at_work in [[true, true], [true, false], [false, true]] {
                    actions.push(Second { database, at_work });
                }
            }
        }
    }

    fn next_state(&self, last: &Instances, second: Second) -> Option<Instances> {
        let mut next = last.clone();
        next.second += 1;
        let now = *BEGIN + Duration::from_secs(next.second);
        for one in [0, 1] {
            if !second.at_work[one] {
                next.stopped[one] = true;
                continue;
            }
            let live = match (second.database, *self) {
                (true, _) => {
                    if !next.live[one] {
                        continue;
                    }
                    next.counters[one] += 1;
                    next.stopped[one] = false;
                    next.last_seen = next.counters;
                    next.alive(next.counters)
                }
                (false, Self::Noticed) => {
                    next.observers[one].lost_sight();
                    continue;
                }
                (false, Self::Unnoticed) => next.alive(next.last_seen),
            };
            for (silent, counter) in next.observers[one].look(now, &live) {
                let other = 1 - one;
                // `/* fence */` compares the counter; a database that is away is told when it is back.
                if silent == id(other) && counter == next.counters[other] {
                    next.live[other] = false;
                }
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nobody is fenced who beats", |_, instances: &Instances| {
                [0, 1].into_iter().all(|one| instances.live[one] || instances.stopped[one])
            }),
            Property::sometimes("the silent are fenced", |_, instances: &Instances| instances.live != [true; 2]),
        ]
    }
}

#[test]
fn an_outage_has_nobody_fenced_and_a_silence_has() {
    let checker = Outage::Noticed.checker().threads(2).spawn_bfs().join();
    println!("lease: {} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn the_mutant_of_mass_expiry_after_an_outage_is_caught() {
    let checker = Outage::Unnoticed.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let path = checker.discovery("nobody is fenced who beats").expect("caught");
    let last = path.last_state();
    assert!((0..2).any(|one| !last.live[one] && !last.stopped[one]), "{last:?}");
}
