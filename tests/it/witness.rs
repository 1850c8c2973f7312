//! The epoch that a broker is shown: an old copy of the home gets no connection, whatever its database says of itself
//! (protocol §5).

mod restored;

use std::time::{Duration, Instant};

use posthaste::broker::{AmqpSettings, Broker, Known, LinkStatus, Newer, PublisherSettings};
use posthaste::dev::fresh_name;
use posthaste::lifecycle::Lifecycle;
use posthaste::model::{Epoch, HomeId};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{LONG, SOON, Servers, eventually, exchange_is_there, forget_exchange, run, same};

const HOME: HomeId = HomeId(Uuid::from_u128(7));

const fn epoch(number: u64, token: u128) -> Epoch {
    Epoch { home: HOME, number, token: Uuid::from_u128(token) }
}

fn settings(url: &str) -> AmqpSettings {
    AmqpSettings {
        name: "rabbit".to_owned(),
        url: url.to_owned().into(),
        username: None,
        password: None,
        management_url: None,
        create_destination: false,
        queues: Vec::new(),
    }
}

async fn vhost() -> String {
    Servers::shared().await.rabbit.lock().await.create_vhost(&fresh_name("witness")).await.unwrap()
}

/// What an instance is to a broker: connections, and a heart-beat that says what its database holds.
struct Instance {
    broker: Broker,
    lifecycle: Lifecycle,
    held: tokio::sync::watch::Sender<(Epoch, bool)>,
    beat: JoinSet<()>,
}

impl Instance {
    fn start(url: &str, holds: Epoch) -> Self {
        let lifecycle = Lifecycle::default();
        let broker = Broker::guarded(&settings(url), PublisherSettings::default(), &lifecycle).unwrap();
        let held = tokio::sync::watch::Sender::new((holds, false));
        let mut beat = JoinSet::new();
        beat.spawn({
            let (broker, held) = (broker.clone(), held.subscribe());
            async move {
                loop {
                    let asked = Instant::now();
                    let (epoch, raised_here) = *held.borrow();
                    broker.tell(Known { epoch, raised_here, asked });
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        Self { broker, lifecycle, held, beat }
    }

    async fn connected(url: &str, holds: Epoch) -> Self {
        let instance = Self::start(url, holds);
        assert!(instance.broker.connected(LONG).await, "{:?}", instance.broker.consume_status());
        assert_eq!(instance.broker.newer(), None);
        instance
    }

    /// Its database was raised, by it or by another instance.
    fn raise(&self, to: Epoch, here: bool) {
        self.held.send_replace((to, here));
    }

    async fn shows(&self, number: u64) {
        let shown = async || {
            let shown = self.broker.shows_epoch(HOME, number).await.map_err(|error| error.to_string())?;
            same(shown, &true)
        };
        eventually(&format!("epoch {number} is shown"), LONG, shown).await;
    }

    async fn sees(&self, newer: Newer) {
        eventually("it sees that it is old", LONG, async || same(self.broker.newer(), &Some(newer))).await;
    }

    async fn end(self) {
        drop(self.beat);
        self.broker.close().await;
        self.lifecycle.stop(SOON).await;
    }
}

#[test]
fn an_old_copy_gets_no_connection_until_it_is_said_what_it_is() {
    run(async {
        let url = vhost().await;
        let original = Instance::connected(&url, epoch(5, 5)).await;
        original.shows(5).await;
        for number in 6..=70 {
            original.raise(epoch(number, number.into()), true);
        }
        original.shows(70).await;
        let copy = Instance::start(&url, epoch(6, 6));
        copy.sees(Newer { held: 6, shown: 64 }).await;
        for status in [copy.broker.publish_status(), copy.broker.consume_status()] {
            assert!(matches!(&status, LinkStatus::Down { reason, .. } if reason.contains("old copy")), "{status:?}");
        }
        assert!(!copy.broker.can_consume(Duration::from_millis(300)).await);
        // The original has noticed nothing.
        assert!(original.broker.connected(SOON).await);
        assert_eq!(original.broker.newer(), None);

        // `migrate --home same` finds the newest and goes on above it.
        let operator = Broker::start(&settings(&url), PublisherSettings::default(), &copy.lifecycle).unwrap();
        assert!(operator.can_consume(LONG).await);
        assert_eq!(operator.newest_epoch(HOME, 6).await.unwrap(), 70);
        assert!(operator.show_epoch(epoch(72, 1), 70).await.unwrap());
        operator.close().await;
        copy.raise(epoch(72, 1), false);
        assert!(copy.broker.connected(LONG).await, "{:?}", copy.broker.consume_status());
        assert_eq!(copy.broker.newer(), None);
        // And now the other one is old, without any new connection.
        original.sees(Newer { held: 70, shown: 72 }).await;
        copy.end().await;
        original.end().await;
    });
}

#[test]
fn a_copy_with_a_new_home_id_leaves_the_originals_names_alone() {
    run(async {
        let url = vhost().await;
        let original = Instance::connected(&url, epoch(9, 9)).await;
        let other = Epoch { home: HomeId(Uuid::from_u128(8)), number: 1, token: Uuid::nil() };
        let copy = Instance::connected(&url, other).await;
        copy.raise(Epoch { number: 2, ..other }, true);
        let shown = async || same(copy.broker.shows_epoch(other.home, 2).await.ok(), &Some(true));
        eventually("the copy shows its own", LONG, shown).await;
        assert!(original.broker.shows_epoch(HOME, 9).await.unwrap());
        assert_eq!(original.broker.newest_epoch(HOME, 1).await.unwrap(), 9);
        copy.end().await;
        original.end().await;
    });
}

#[test]
fn of_two_databases_that_were_raised_to_the_same_number_the_second_is_told() {
    run(async {
        let url = vhost().await;
        let original = Instance::connected(&url, epoch(7, 7)).await;
        // Taken within the minute: nothing tells them apart yet.
        let copy = Instance::connected(&url, epoch(7, 7)).await;
        original.raise(epoch(8, 1), true);
        original.shows(8).await;
        copy.raise(epoch(8, 2), true);
        copy.sees(Newer { held: 8, shown: 8 }).await;
        assert_eq!(original.broker.newer(), None);
        copy.end().await;
        original.end().await;
    });
}

#[test]
fn an_old_copy_that_had_a_connection_is_told_when_the_original_is_raised() {
    run(async {
        let url = vhost().await;
        let original = Instance::connected(&url, epoch(7, 7)).await;
        let copy = Instance::connected(&url, epoch(7, 7)).await;
        original.raise(epoch(8, 1), true);
        copy.sees(Newer { held: 7, shown: 8 }).await;
        assert!(matches!(copy.broker.consume_status(), LinkStatus::Down { .. }));
        copy.end().await;
        original.end().await;
    });
}

#[test]
fn an_instance_that_reads_a_raise_late_is_not_taken_for_an_old_copy() {
    run(async {
        let url = vhost().await;
        let first = Instance::connected(&url, epoch(7, 7)).await;
        first.raise(epoch(8, 8), true);
        first.shows(8).await;
        // It compares with what its database said before the raise, and asks again.
        let lifecycle = Lifecycle::default();
        let late = Broker::guarded(&settings(&url), PublisherSettings::default(), &lifecycle).unwrap();
        late.tell(Known { epoch: epoch(7, 7), raised_here: false, asked: Instant::now() });
        assert!(!late.connected(Duration::from_secs(1)).await);
        assert_eq!(late.newer(), None, "one answer of the database is not enough");
        late.tell(Known { epoch: epoch(8, 8), raised_here: false, asked: Instant::now() });
        assert!(late.connected(LONG).await);
        assert_eq!(late.newer(), None);
        late.close().await;
        first.end().await;
    });
}

#[test]
fn several_instances_of_a_home_raise_it_in_turn_and_leave_the_names_of_one_epoch() {
    run(async {
        let url = vhost().await;
        let instances = [Instance::connected(&url, epoch(1, 1)).await, Instance::connected(&url, epoch(1, 1)).await];
        for number in 2..=17 {
            for (at, instance) in instances.iter().enumerate() {
                instance.raise(epoch(number, number.into()), u64::try_from(at).unwrap() == number % 2);
            }
            instances[0].shows(number).await;
        }
        let gone = async || {
            let mut left = Vec::new();
            for number in 1..17 {
                if instances[1].broker.shows_epoch(HOME, number).await.map_err(|error| error.to_string())? {
                    left.push(number);
                }
            }
            same(left, &Vec::new())
        };
        eventually("the names of older epochs are taken away", LONG, gone).await;
        assert_eq!(instances[0].broker.newest_epoch(HOME, 3).await.unwrap(), 17);
        for instance in instances {
            assert_eq!(instance.broker.newer(), None);
            instance.end().await;
        }
    });
}

#[test]
fn a_broker_that_has_lost_the_names_is_shown_them_again() {
    run(async {
        let url = vhost().await;
        let instance = Instance::connected(&url, epoch(12, 1)).await;
        for level in 0..24 {
            forget_exchange(&url, &format!("posthaste.home.{HOME}.{level}.{}", 12 >> level)).await;
        }
        assert!(!instance.broker.shows_epoch(HOME, 12).await.unwrap());
        instance.shows(12).await;
        eventually("all of them", LONG, async || {
            let there = exchange_is_there(&url, &format!("posthaste.home.{HOME}.3.1")).await;
            same(there, &true)
        })
        .await;
        assert!(instance.broker.connected(SOON).await);
        assert_eq!(instance.broker.newer(), None);
        instance.end().await;
    });
}

#[test]
fn without_the_right_to_configure_an_instance_works_all_the_same() {
    run(async {
        let url = vhost().await;
        let name = url.rsplit('/').next().unwrap().to_owned();
        let made = {
            let shared = Servers::shared().await;
            let rabbit = shared.rabbit.lock().await;
            let user = format!("<<\"plain-{name}\">>");
            rabbit
                .eval(&format!("rabbit_auth_backend_internal:add_user({user}, <<\"secret\">>, <<\"tests\">>)"))
                .await
                .unwrap();
            let rights = "<<\"^$\">>, <<\".*\">>, <<\".*\">>";
            let give = format!(
                "rabbit_auth_backend_internal:set_permissions({user}, <<\"{name}\">>, {rights}, <<\"tests\">>)"
            );
            rabbit.eval(&give).await.unwrap()
        };
        assert_eq!(made, "ok");
        let (_, address) = url.split_once('@').unwrap();
        let plain = format!("amqp://plain-{name}:secret@{address}");
        let instance = Instance::connected(&plain, epoch(3, 3)).await;
        assert!(!instance.broker.may_show_epochs(HOME).await.unwrap());
        assert!(!instance.broker.shows_epoch(HOME, 3).await.unwrap());
        let other = Instance::connected(&url, epoch(3, 3)).await;
        assert!(other.broker.may_show_epochs(HOME).await.unwrap());
        other.end().await;
        instance.end().await;
    });
}
