//! The open connections of a listener: who may come, who makes room for others, and who is too slow
//! (docs/configuration.md, "Clients that are slow").

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Gauge};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::connection::{Closed, Connection};
use super::progress::{Candidate, Fullness, Standing, slowest};
use super::server::ServerSettings;

/// Between two looks at all connections, at most.
const LOOK: Duration = Duration::from_millis(250);

/// The connections of one listener.
pub(super) struct Connections {
    listener: String,
    settings: ServerSettings,
    open: Mutex<Open>,
    places: Arc<Semaphore>,
    /// After each look.
    looked: Notify,
    number: Gauge,
    closed: Vec<(Closed, Counter)>,
}

#[derive(Default)]
struct Open {
    /// By the order in which they came.
    all: HashMap<u64, Entry>,
    of: HashMap<IpAddr, usize>,
    next: u64,
    fullness: Fullness,
}

struct Entry {
    connection: Arc<Connection>,
    address: IpAddr,
    standing: Standing,
}

/// A connection's place among the others, until it is dropped.
pub(super) struct Place {
    pub connection: Arc<Connection>,
    connections: Arc<Connections>,
    id: u64,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    pub fn new(listener: &str, settings: ServerSettings) -> Arc<Self> {
        let number = metrics::gauge!("posthaste_connections", "listener" => listener.to_owned());
        number.set(0.0);
        let counter = |closed: Closed| {
            let (listener, reason) = (listener.to_owned(), closed.reason());
            let counter =
                metrics::counter!("posthaste_connections_closed_total", "listener" => listener, "reason" => reason);
            counter.absolute(0);
            (closed, counter)
        };
        Arc::new(Self {
            listener: listener.to_owned(),
            settings,
            open: Mutex::default(),
            places: Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS))),
            looked: Notify::new(),
            number,
            closed: Closed::ALL.map(counter).into(),
        })
    }

    /// Whether its address may have one more. Who may not is counted.
    pub fn may_come(&self, address: IpAddr) -> bool {
        let most = self.settings.max_connections_per_address.unwrap_or(usize::MAX);
        let may = self.open().of.get(&address).is_none_or(|open| *open < most);
        if !may {
            self.count(Closed::Address);
        }
        may
    }

    /// A place for a newcomer. When all are taken another makes room; nobody does while all messages are being decided upon.
    pub async fn place(self: &Arc<Self>, address: IpAddr) -> Place {
        let permit = loop {
            if let Ok(permit) = self.places.clone().try_acquire_owned() {
                break permit;
            }
            let looked = self.looked.notified();
            self.make_room();
            tokio::select! {
                Ok(permit) = self.places.clone().acquire_owned() => break permit,
                () = looked => {}
            }
        };
        let connection = Arc::<Connection>::default();
        let mut open = self.open();
        let id = open.next;
        open.next += 1;
        let entry = Entry { connection: connection.clone(), address, standing: Standing::default() };
        open.all.insert(id, entry);
        *open.of.entry(address).or_default() += 1;
        self.number.increment(1.0);
        Place { connection, connections: self.clone(), id, _permit: permit }
    }

    fn make_room(&self) {
        let mut open = self.open();
        let busiest = open.of.iter().max_by_key(|(_, number)| **number).map(|(address, number)| (*address, *number));
        let news = open.fullness.is_full();
        let candidates = open.all.iter().map(|(id, entry)| {
            let seen = entry.connection.seen();
            // Who has moved on since the last look is not behind.
            let behind = if seen.stage == entry.standing.stage { entry.standing.behind } else { Duration::ZERO };
            let of_address = open.of.get(&entry.address).copied().unwrap_or_default();
            Candidate { id: *id, of_address, phase: seen.phase, behind }
        });
        if let Some(entry) = slowest(candidates).and_then(|id| open.all.get(&id)) {
            entry.connection.make_room(entry.standing.stage);
        }
        drop(open);
        if let (true, Some((address, number))) = (news, busiest) {
            tracing::warn!(
                listener = self.listener,
                connections = self.settings.max_connections,
                busiest = %address,
                of_it = number,
                "all connections are in use; the slowest make room for others"
            );
        }
    }

    /// Looks at all connections again and again.
    pub async fn look_after(&self) {
        let pause = (self.settings.progress_timeout / 4).min(LOOK);
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(pause).await;
            // That this process stood still is no client's fault.
            let passed = last.elapsed().min(2 * pause);
            last = Instant::now();
            self.look(passed);
            self.looked.notify_waiters();
        }
    }

    fn look(&self, passed: Duration) {
        let mut open = self.open();
        for Entry { connection, standing, .. } in open.all.values_mut() {
            let seen = connection.seen();
            standing.look(seen, passed);
            if standing.is_too_slow(seen.phase, self.settings.progress_timeout) {
                connection.is_too_slow(seen.stage);
            }
        }
        let over = open.fullness.is_over(passed, self.places.available_permits() > 0);
        drop(open);
        if over {
            tracing::info!(listener = self.listener, "connections are free again");
        }
    }

    pub fn count(&self, closed: Closed) {
        self.closed.iter().filter(|(one, _)| *one == closed).for_each(|(_, counter)| counter.increment(1));
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        if let Some(Entry { address, .. }) = open.all.remove(&self.id)
            && let Some(number) = open.of.get_mut(&address)
        {
            *number -= 1;
            if *number == 0 {
                open.of.remove(&address);
            }
        }
        self.connections.number.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::pin::pin;

    use futures_util::{FutureExt, poll};

    use super::super::connection::Asked;
    use super::super::progress::Phase;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn connections(max_connections: usize, max_connections_per_address: Option<usize>) -> Arc<Connections> {
        let settings = ServerSettings {
            header_timeout: 10 * SECOND,
            progress_timeout: 10 * SECOND,
            max_connections,
            max_connections_per_address,
        };
        Connections::new("test", settings)
    }

    fn host(number: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, number).into()
    }

    impl Connections {
        /// A place that is free.
        fn free_place(self: &Arc<Self>, address: IpAddr) -> Place {
            self.place(address).now_or_never().unwrap()
        }
    }

    #[test]
    fn a_newcomer_gets_the_place_of_the_slowest_of_the_busiest_address_once_it_is_gone() {
        let connections = connections(3, None);
        let alone = connections.free_place(host(1));
        let first = connections.free_place(host(2));
        let second = connections.free_place(host(2));
        first.connection.begin(Phase::Answer);
        for _ in 0..3 {
            connections.look(SECOND);
        }
        second.connection.begin(Phase::Deciding);
        let mut newcomer = Box::pin(connections.place(host(3)));
        assert!(newcomer.as_mut().now_or_never().is_none());
        let asked = [&alone, &first, &second].map(|place| place.connection.asked());
        assert_eq!(asked, [Asked::Nothing, Asked::Close(Closed::Full), Asked::Nothing]);
        drop(first);
        assert!(newcomer.now_or_never().is_some());
    }

    #[tokio::test]
    async fn while_all_are_being_decided_upon_a_newcomer_waits_and_then_the_next_look_finds_room() {
        let connections = connections(2, None);
        let places = [1, 2].map(|number| connections.free_place(host(number)));
        places.iter().for_each(|place| place.connection.begin(Phase::Deciding));
        let mut newcomer = pin!(connections.place(host(3)));
        for _ in 0..60 {
            assert!(poll!(newcomer.as_mut()).is_pending());
            connections.look(SECOND);
            connections.looked.notify_waiters();
        }
        let asked = || places.each_ref().map(|place| place.connection.asked());
        assert_eq!(asked(), [Asked::Nothing; 2]);
        places[1].connection.begin(Phase::Idle);
        for _ in 0..2 {
            assert!(poll!(newcomer.as_mut()).is_pending());
            assert_eq!(asked(), [Asked::Nothing; 2], "who has just been answered is no slow client");
            connections.look(SECOND);
            connections.looked.notify_waiters();
        }
        assert!(poll!(newcomer.as_mut()).is_pending());
        assert_eq!(asked(), [Asked::Nothing, Asked::Close(Closed::Full)]);
        let [_busy, idle] = places;
        drop(idle);
        assert!(poll!(newcomer.as_mut()).is_ready());
    }

    #[test]
    fn an_address_has_no_more_than_it_may_and_what_is_closed_is_free() {
        let connections = connections(9, Some(2));
        let first = connections.free_place(host(1));
        assert!(connections.may_come(host(1)));
        let _second = connections.free_place(host(1));
        assert!(!connections.may_come(host(1)) && connections.may_come(host(2)));
        drop(first);
        assert!(connections.may_come(host(1)));
    }

    #[test]
    fn what_is_behind_by_the_time_out_is_told_so_in_a_body_and_in_an_answer_only() {
        let connections = connections(9, None);
        let phases = [Phase::Idle, Phase::Head, Phase::Body, Phase::Deciding, Phase::Answer];
        let places = phases.map(|phase| {
            let place = connections.free_place(host(1));
            place.connection.begin(phase);
            place
        });
        let asked = || places.each_ref().map(|place| place.connection.asked());
        for _ in 0..10 {
            connections.look(SECOND);
            assert_eq!(asked(), [Asked::Nothing; 5]);
        }
        connections.look(SECOND);
        let close = Asked::Close(Closed::Answer);
        assert_eq!(asked(), [Asked::Nothing, Asked::Nothing, Asked::RefuseBody, Asked::Nothing, close]);
    }

    #[test]
    fn nothing_is_kept_of_who_is_gone() {
        let connections = connections(2, None);
        drop([1, 1].map(|number| connections.free_place(host(number))));
        let open = connections.open();
        assert!(open.all.is_empty() && open.of.is_empty() && connections.places.available_permits() == 2);
    }
}
