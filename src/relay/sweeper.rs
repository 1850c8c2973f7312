//! The sweeper: looks at what is due, walks what is open, and does what [`decide`] says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::act::Actions;
use super::walk::{Place, Walk};
use super::{Facts, Next, OpenCounts, Relay, Shared, decide};
use crate::lifecycle::{NeededFor, Task};
use crate::model::{Destination, JournalState, Mode};
use crate::store::{OpenRow, StoreError};

/// Between two looks at what is due.
const SWEEP: Duration = Duration::from_secs(1);
/// Between two rounds, however much there is to do.
const BREATH: Duration = Duration::from_millis(20);
/// Between two walks over what is open; reading for a walk takes no more than a twentieth of the time.
const WALK: Duration = Duration::from_secs(5);
/// The longest such pause: a row that nobody watches is looked at least so often.
const WALK_MAX: Duration = Duration::from_secs(60);
/// Rows per statement, or entries; each names as many rows as were accepted together.
const PAGE: i64 = 500;
/// Rows of `due` that a round wakes, or brings back from too far ahead, at most.
const WAKES: i64 = 5000;
/// How long a round stays with a walk; the next one goes on where it stopped.
const WALK_PART: Duration = Duration::from_millis(500);
/// Between two looks at a row that nobody consumes.
const NO_CONSUMER: Duration = Duration::from_secs(30);
/// How old the news of an empty queue may be. Far less than T_redo: what was published so recently is not looked at.
const EMPTY_NEWS: Duration = Duration::from_secs(1);

const NAME: &str = "sweeper";
/// It comes round with each page. Some statements of 30 s at most, and publishes; most of it are rows that go to the error
/// store one by one, and wait for a lock of 2 s each at worst.
const TURN: Duration = Duration::from_secs(1800);

/// The task that sweeps.
#[must_use]
pub fn sweeper() -> Task {
    Task::new(NAME, NeededFor::Processing).turns_within(TURN)
}

/// Sweeps until the stop.
pub async fn sweep(relay: Relay, shared: Shared) {
    let soft = relay.0.lifecycle.soft.clone();
    let mut sweeper = Sweeper::new(relay, shared);
    while !soft.is_cancelled() {
        sweeper.relay.0.lifecycle.watch.turn(NAME);
        // Without a view of who lives every row looks like nobody's.
        let shared = &sweeper.shared;
        let blind = shared.stopped().is_none() || shared.trouble().is_some() || !shared.compared();
        let pause = if blind {
            SWEEP
        } else {
            match sweeper.round().await {
                Ok(()) if sweeper.far || sweeper.asleep.is_some() => BREATH,
                Ok(()) => sweeper.pause().await,
                Err(error) => {
                    tracing::debug!(%error, "sweep interrupted");
                    sweeper.pause().await
                }
            }
        };
        let woken = async {
            tokio::time::sleep(BREATH).await;
            sweeper.relay.0.wake.notified().await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = woken => {}
            () = soft.cancelled() => {}
        }
    }
}

struct Sweeper {
    relay: Relay,
    shared: Shared,
    next_walk: Instant,
    /// A walk that has not come to its end.
    walk: Option<Walk>,
    known_live: BTreeSet<Uuid>,
    /// Destinations with published rows old enough to be asked about: their queues are looked at before the next read.
    suspected: BTreeSet<Destination>,
    /// Those whose queues were empty, and when that was asked.
    empty: (Option<Instant>, BTreeSet<Destination>),
    unserved: BTreeSet<Destination>,
    /// Nothing was looked at yet.
    begins: bool,
    /// What waits may do so for a clock that was ahead: from here on it was not woken yet.
    asleep: Option<Uuid>,
    /// Rows may wait further ahead than anybody can have asked for.
    far: bool,
}

impl Sweeper {
    fn new(relay: Relay, shared: Shared) -> Self {
        Self {
            relay,
            shared,
            next_walk: Instant::now(),
            walk: None,
            known_live: BTreeSet::new(),
            suspected: BTreeSet::new(),
            empty: (None, BTreeSet::new()),
            unserved: BTreeSet::new(),
            begins: true,
            asleep: None,
            far: false,
        }
    }

    async fn pause(&self) -> Duration {
        match self.relay.store().next_due().await {
            Ok(Some(next)) => next.clamp(BREATH, SWEEP),
            Ok(None) | Err(_) => SWEEP,
        }
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        // Asked before the rows are read: a message published in between cannot look lost.
        let empty = self.empty_queues().await;
        let live: BTreeSet<Uuid> = self.shared.live().into_iter().map(|incarnation| incarnation.0).collect();
        let begins = self.known_live.is_empty();
        let somebody_died = self.known_live.iter().any(|one| !live.contains(one));
        self.known_live = live;
        if begins || somebody_died {
            self.relay.store().hasten_orphans().await?;
        }
        let rows = self.relay.store().due_rows(PAGE).await?;
        let actions = self.decide_all(&rows, &empty);
        actions.take(&self.relay).await?;
        // Whatever became of it, a walk looks at what no clock has touched.
        let woken = self.wake().await;
        if somebody_died {
            // What was his is looked at from the beginning.
            self.walk = None;
        }
        if somebody_died || Instant::now() >= self.next_walk {
            self.walk(&empty).await?;
        }
        woken
    }

    async fn empty_queues(&mut self) -> BTreeSet<Destination> {
        if let (Some(asked), empty) = &self.empty
            && asked.elapsed() < EMPTY_NEWS
        {
            return empty.clone();
        }
        let asked = Instant::now();
        let mut empty = BTreeSet::new();
        for destination in &self.suspected {
            let Some(settings) = self.relay.destination(destination) else { continue };
            let Some(broker) = self.relay.broker(&settings.connection) else { continue };
            if broker.queue_state(&settings.queue).await.is_ok_and(|state| state.ready == 0) {
                empty.insert(destination.clone());
            }
        }
        self.empty = (Some(asked), empty.clone());
        empty
    }

    fn decide_all(&mut self, rows: &[OpenRow], empty: &BTreeSet<Destination>) -> Actions {
        let live = self.shared.live();
        let (mut actions, mut tried) = (Actions::default(), BTreeSet::new());
        for row in rows {
            let next = self.next(row, &live, empty);
            self.note_suspicion(row, next);
            match next {
                Next::Publish => match self.relay.may_go(&row.destination, &mut tried) {
                    Ok(()) => actions.publish.push(row.clone()),
                    Err(pause) if row.has_due_row => actions.later.entry(pause).or_default().push(row.tx_id.0),
                    Err(_) => {}
                },
                Next::Dispatch => actions.dispatch.push(row.clone()),
                Next::GiveUp => actions.give_up.push(row.clone()),
                Next::NoConsumer => {
                    if self.unserved.insert(row.destination.clone()) {
                        tracing::warn!(destination = %row.destination, "no live instance consumes it; its messages wait");
                    }
                    actions.later.entry(NO_CONSUMER).or_default().push(row.tx_id.0);
                }
                Next::Later(pause) if row.has_due_row => actions.later.entry(pause).or_default().push(row.tx_id.0),
                Next::Later(_) => {}
            }
        }
        actions
    }

    fn next(&self, row: &OpenRow, live: &[crate::model::Incarnation], empty: &BTreeSet<Destination>) -> Next {
        let relay = &self.relay;
        let facts = Facts {
            live,
            running_here: relay.runs(row.tx_id),
            me: relay.store().incarnation,
            watch: relay.settings().watch,
            known: relay.destination(&row.destination).is_some(),
            served_here: relay.route(&row.destination).is_some(),
            served: self.shared.served(&row.destination),
            publishable: relay.reachable(&row.destination).is_ok(),
            queue_empty: empty.contains(&row.destination),
            seen: self.shared.latest_seen(&row.destination),
        };
        decide(row, &facts)
    }

    fn note_suspicion(&mut self, row: &OpenRow, next: Next) {
        // When it was published nobody knows where a clock was ahead.
        let old = row.published.is_none_or(|age| age >= super::redo_after(row.publishes));
        if row.mode == Mode::Own && row.state == JournalState::Published && old {
            self.suspected.insert(row.destination.clone());
        }
        if next != Next::NoConsumer {
            self.unserved.remove(&row.destination);
        }
    }

    /// Counts what is open and does what must be done with rows that nobody watches; what is left after its part is done
    /// in the next rounds.
    async fn walk(&mut self, empty: &BTreeSet<Destination>) -> Result<(), StoreError> {
        let store = self.relay.store().clone();
        let clock = self.relay.clock().now().unwrap_or(0) / 1000;
        let begin = || Walk::begin(u64::try_from(clock).unwrap_or(0));
        let mut walk = self.walk.take().unwrap_or_else(begin);
        let part = Instant::now();
        while part.elapsed() < WALK_PART {
            self.relay.0.lifecycle.watch.turn(NAME);
            let began = Instant::now();
            let (unwatched, last) = match walk.place {
                Place::Unsettled(after) => {
                    let page = store.look_through(after, PAGE).await?;
                    page.rows.iter().for_each(|row| walk.count(row));
                    let unwatched = page.rows.into_iter().filter(|row| !row.has_due_row);
                    (unwatched.collect::<Vec<OpenRow>>(), page.last)
                }
                Place::Due(after) => {
                    let page = store.count_due(after, PAGE).await?;
                    page.counts.iter().for_each(|counts| walk.count_all(counts));
                    (Vec::new(), page.last)
                }
            };
            walk.reading += began.elapsed();
            let actions = self.decide_all(&unwatched, empty);
            actions.take(&self.relay).await?;
            if !walk.pass(last) {
                self.next_walk = Instant::now() + (walk.reading * 20).clamp(WALK, WALK_MAX);
                self.share_counts(&walk.counts);
                // Also when nobody saw the clock go back.
                self.far = true;
                return Ok(());
            }
        }
        self.walk = Some(walk);
        Ok(())
    }

    /// Once the clock has gone back, everything that waits is looked at anew: a page in each round, and first what lies further
    /// ahead than anybody can have asked for.
    async fn wake(&mut self) -> Result<(), StoreError> {
        let store = self.relay.store().clone();
        // Whether it went back before this process began, nobody here has seen.
        let goes_back = self.relay.clock().went_back() || (self.begins && store.ids_are_ahead().await?);
        self.begins = false;
        if goes_back {
            tracing::warn!("the database's clock has gone back: what waits is looked at anew");
            (self.asleep, self.far) = (Some(Uuid::nil()), true);
        }
        if self.far {
            let began = Instant::now();
            self.far = self.pull_back().await;
            if !self.far {
                // It may have read many rows that wait as long as they may.
                self.next_walk = self.next_walk.max(Instant::now() + (began.elapsed() * 20).min(WALK_MAX));
            }
        }
        let Some(after) = self.asleep.filter(|_| !self.far) else { return Ok(()) };
        let page = store.wake(after, WAKES).await?;
        self.asleep = page.last;
        if page.woken > 0 {
            tracing::info!(rows = page.woken, "what waited for a clock that was ahead is looked at now");
        }
        Ok(())
    }

    /// What a clock has left behind that was ahead shall not keep messages waiting. Whether more of it is to be brought back
    /// now; when that fails the next walk asks for it again, and nothing waits for that.
    async fn pull_back(&self) -> bool {
        let destinations = self.relay.settings().destinations.iter();
        let delays: Vec<_> = destinations.map(|one| (one.destination.clone(), one.longest_delay)).collect();
        match self.relay.store().pull_back(&delays, WAKES).await {
            Ok(0) => false,
            Ok(rows) => {
                tracing::warn!(rows, "the database's clock has gone back: messages that waited for it wait no longer");
                rows >= WAKES.unsigned_abs()
            }
            Err(error) => {
                tracing::warn!(%error, "messages that wait too far ahead are not brought back yet");
                false
            }
        }
    }

    fn share_counts(&mut self, found: &BTreeMap<Destination, OpenCounts>) {
        let mut total = OpenCounts::default();
        for one in &self.relay.settings().destinations {
            let counts = found.get(&one.destination).copied().unwrap_or_default();
            self.relay.0.board.set_open(&one.destination, counts);
            if counts.open == 0 {
                self.suspected.remove(&one.destination);
            }
            total.open += counts.open;
            total.oldest_seconds = total.oldest_seconds.max(counts.oldest_seconds);
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and counts stay far below 2^52")]
        {
            metrics::gauge!("posthaste_journal_open").set(total.open as f64);
            metrics::gauge!("posthaste_journal_oldest_seconds").set(total.oldest_seconds as f64);
        }
    }
}
