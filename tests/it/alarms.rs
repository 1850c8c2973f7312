//! A broker that takes nothing, loses what it had, or is cut off without a word: what was accepted is processed once
//! (I1, protocol §4 IN7 and IN8, §8).

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;

use crate::support::{Amqp, App, Direction, LONG, Links, Options, SOON, Servers, TcpRelay, eventually, run};

const QUEUE: &str = "myQueue";
/// T_redo is 10 s, a walk over the journal every 5 s, and this machine may be busy.
const REDONE: Duration = Duration::from_secs(90);

impl App {
    /// POSTs under the ids `name-0`, `name-1`, …, with the id as the body, and answers the statuses.
    async fn post_many(&self, name: &str, count: usize) -> Vec<(String, u16)> {
        let post = async |number: usize| {
            let id = format!("{name}-{number}");
            let reply = self.post(&id, &id).await;
            if reply.status == 503 {
                assert!(matches!(reply.header("x-outcome"), "none" | "unknown"), "{reply:?}");
            }
            (id, reply.status)
        };
        join_all((0..count).map(post)).await
    }

    /// Everything accepted stands in both tables once, and nothing is left anywhere.
    async fn all_once(&self, posted: &[(String, u16)], bound: Duration) {
        self.settled(bound).await;
        for (id, status) in posted {
            let effects = self.effects(id).await;
            match status {
                202 => assert_eq!(effects, [1, 1], "{id} was accepted"),
                _ => assert_eq!(effects, [0, 0], "{id} was refused with {status}"),
            }
        }
        assert_eq!(self.error_rows().await, []);
    }
}

#[test]
fn during_a_memory_alarm_nothing_hangs_and_nothing_accepted_is_lost() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        let mut posted = app.post_many("before", 20).await;
        servers.watermark("0.0000001").await;
        let began = Instant::now();
        posted.extend(app.post_many("during", 20).await);
        assert!(began.elapsed() < Duration::from_secs(20), "answers took {:?}", began.elapsed());
        assert!(posted.iter().all(|(_, status)| matches!(status, 202 | 503)), "{posted:?}");
        let ready = app.not_ready(SOON).await;
        assert!(ready.body.contains("rabbit takes no messages"), "{ready:?}");
        // The console and the adapters answer all the while.
        assert_eq!(app.adapter_state("writeDb").await, "STARTED");
        app.stop_adapter("writeDb").await;
        app.start_adapter("writeDb").await;
        let again = Instant::now();
        let refused = app.post("refused", "refused").await;
        refused.problem(503);
        assert_eq!(refused.header("x-outcome"), "none");
        assert!(again.elapsed() < Duration::from_secs(2), "a known alarm is answered at once: {:?}", again.elapsed());

        servers.watermark("0.6").await;
        app.ready(LONG).await;
        posted.extend(app.post_many("after", 20).await);
        assert!(posted.iter().filter(|(_, status)| *status == 202).count() >= 40, "{posted:?}");
        app.all_once(&posted, REDONE).await;
        assert_eq!(app.stop().await, Some(0));
    });
}

#[test]
fn a_stop_during_a_memory_alarm_ends_in_time() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        servers.watermark("0.0000001").await;
        let posted = app.post_many("during", 5).await;
        assert_eq!(app.stop().await, Some(0));
        servers.watermark("0.6").await;
        app.run();
        app.ready(LONG).await;
        app.all_once(&posted, REDONE).await;
    });
}

#[test]
fn what_a_purge_takes_out_of_the_queue_is_published_again() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let amqp = Amqp::connect(app.amqp_url()).await;
        app.stop_adapter("writeDb").await;
        let posted = app.post_many("purged", 20).await;
        assert!(posted.iter().all(|(_, status)| *status == 202), "{posted:?}");
        assert_eq!(app.depth().await, Ok(20));
        amqp.purge(QUEUE).await;
        assert_eq!(app.depth().await, Ok(0));
        app.start_adapter("writeDb").await;
        app.all_once(&posted, REDONE).await;
    });
}

#[test]
fn a_deleted_queue_is_made_again_its_consumer_restarts_and_its_messages_come_back() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        let amqp = Amqp::connect(app.amqp_url()).await;
        app.stop_adapter("writeDb").await;
        let mut posted = app.post_many("deleted", 20).await;
        assert!(posted.iter().all(|(_, status)| *status == 202), "{posted:?}");
        amqp.delete(QUEUE).await;
        app.start_adapter("writeDb").await;
        app.ready(LONG).await;

        // Once more, under a running consumer: the broker cancels it.
        amqp.delete(QUEUE).await;
        eventually("its consumer is back", LONG, async || {
            let reply = app.post("probe", "probe").await;
            let effects = app.effects("probe").await;
            if effects == [1, 1] { Ok(()) } else { Err(format!("{reply:?}, {effects:?}")) }
        })
        .await;
        assert_eq!(app.adapter_state("writeDb").await, "STARTED");
        posted.push(("probe".to_owned(), 202));
        app.all_once(&posted, REDONE).await;
    });
}

/// An installation that reaches both servers through relays.
pub async fn behind_relays() -> (App, Links) {
    let mut app = App::install(Servers::shared().await, Options::default()).await;
    let links = app.behind_relays().await;
    app.run();
    app.ready(LONG).await;
    (app, links)
}

/// Every connection is cut and no new one opens.
fn sever(relay: &TcpRelay) {
    relay.refuse(true);
    relay.cut();
}

/// Posts while `trouble` lasts, mends it, and sees that all is well; what is unknown is posted again.
async fn weathers(app: &mut App, name: &str, trouble: impl FnOnce(), mend: impl FnOnce()) {
    let mut posted = app.post_many(&format!("{name}-a"), 10).await;
    trouble();
    let began = Instant::now();
    posted.extend(app.post_many(&format!("{name}-b"), 10).await);
    app.not_ready(LONG).await;
    mend();
    app.ready(LONG).await;
    assert!(began.elapsed() < REDONE, "{:?}", began.elapsed());
    for (id, status) in &mut posted {
        if *status != 202 {
            // A refusal, and what is unknown: the same id tells.
            let again = app.post(id, id).await.status;
            assert!(matches!(again, 202 | 304), "{id}: {status}, then {again}");
            *status = 202;
        }
    }
    posted.extend(app.post_many(&format!("{name}-c"), 10).await);
    // Accepting comes back with its own connection; processing with another.
    eventually("the adapter consumes again", LONG, async || {
        let state = app.adapter_state("writeDb").await;
        if state == "STARTED" { Ok(()) } else { Err(state) }
    })
    .await;
    app.all_once(&posted, REDONE).await;
}

#[test]
fn a_cut_connection_to_the_broker_is_weathered() {
    run(async {
        let (mut app, links) = behind_relays().await;
        weathers(&mut app, "cut", || sever(&links.amqp), || links.amqp.refuse(false)).await;
    });
}

#[test]
fn a_broker_behind_a_silent_network_is_weathered() {
    run(async {
        let (mut app, links) = behind_relays().await;
        weathers(&mut app, "stall", || links.amqp.stall(Direction::Both), || links.amqp.resume()).await;
    });
}

#[test]
fn a_cut_connection_to_the_database_is_weathered() {
    run(async {
        let (mut app, links) = behind_relays().await;
        weathers(&mut app, "cut", || sever(&links.postgres), || links.postgres.refuse(false)).await;
    });
}

#[test]
fn a_database_behind_a_silent_network_is_weathered() {
    run(async {
        let (mut app, links) = behind_relays().await;
        weathers(&mut app, "stall", || links.postgres.stall(Direction::Both), || links.postgres.resume()).await;
    });
}

#[test]
fn the_management_side_answers_while_the_network_is_silent() {
    run(async {
        let (app, links) = behind_relays().await;
        links.amqp.stall(Direction::Both);
        links.postgres.stall(Direction::Both);
        let began = Instant::now();
        for path in ["/livez", "/readyz", "/metrics", "/api/v1/adapters"] {
            let reply = app.console(Method::GET, path).await;
            assert!(matches!(reply.status, 200 | 503), "{reply:?}");
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    });
}
