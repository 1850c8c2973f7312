//! A queue that takes nothing, and messages that the broker does not take: who waits, who is given up, and who is told
//! (protocol §4, step 4; ADR 19).

use std::sync::Arc;

use futures_util::future::join_all;
use lapin::types::{AMQPValue, FieldTable};
use reqwest::Method;
use serde_json::Value;

use crate::support::{Amqp, App, LONG, Options, SOON, Servers, eventually, run, same};

const QUEUE: &str = "myQueue";
/// What waits, as after nine publishes that counted, and tried again soon.
const NINE: &str = "UPDATE posthaste.journal SET publishes = 9 WHERE state = 'READY'";
const HURRY: &str = "WITH hurried AS (
        UPDATE posthaste.journal SET publish_after = clock_timestamp() WHERE state = 'READY' RETURNING tx_id)
    INSERT INTO posthaste.due (tx_id, at) SELECT tx_id, clock_timestamp() FROM hurried ORDER BY tx_id
    ON CONFLICT (tx_id) DO UPDATE SET at = excluded.at";

/// Of a queue that refuses what comes beyond so many messages.
pub fn full_at(messages: i32) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(messages));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    arguments
}

/// With a queue that was made before, with these arguments.
pub async fn with_queue(servers: Arc<Servers>, arguments: FieldTable) -> (App, Amqp) {
    let mut app = App::lay_out(servers, Options::default()).await;
    let amqp = Amqp::connect(app.amqp_url()).await;
    amqp.declare_with(QUEUE, arguments).await;
    app.migrate();
    app.run();
    app.ready(LONG).await;
    (app, amqp)
}

impl App {
    /// Publishes that were not confirmed, for this reason.
    async fn in_vain(&self, reason: &str) -> u64 {
        let name = format!("posthaste_publish_failed_total{{reason=\"{reason}\"}} ");
        let page = self.console(Method::GET, "/metrics").await.body;
        page.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |number| number.parse().unwrap())
    }

    /// Posts under ids of its own, the id as the body, each of which must be accepted.
    async fn accepted(&self, name: &str, count: usize) -> Vec<String> {
        let ids: Vec<String> = (0..count).map(|number| format!("{name}-{number}")).collect();
        let replies = join_all(ids.iter().map(|id| self.post(id, id))).await;
        assert!(replies.iter().all(|reply| reply.status == 202), "{replies:?}");
        ids
    }

    /// Only so many wait: what the queue has taken is noted as published, so that nobody who hurries publishes it again.
    async fn only_these_wait(&self, waiting: usize) {
        let wanted = i64::try_from(waiting).unwrap();
        eventually("what was taken is noted", LONG, async || {
            same(self.db.one("SELECT count(*) FROM posthaste.journal WHERE state = 'READY'", &[]).await, &wanted)
        })
        .await;
    }

    /// Tries what waits, as if it had been tried nine times before, until the broker has kept it back twice more; nobody is
    /// given up.
    async fn tried_in_vain(&self, reason: &str) {
        self.db.rows(NINE, &[]).await;
        let before = self.in_vain(reason).await;
        eventually("it is tried, and kept back", LONG, async || {
            self.db.rows(HURRY, &[]).await;
            assert_eq!(self.given_up().await, Vec::<String>::new());
            let now = self.in_vain(reason).await;
            if now >= before + 2 { Ok(()) } else { Err(format!("{now} after {before}")) }
        })
        .await;
    }

    async fn given_up(&self) -> Vec<String> {
        self.db.column("SELECT messageid || ': ' || comments FROM ibisstore WHERE type = 'E'", &[]).await
    }

    /// What `/readyz` says of the queue, and since when.
    async fn trouble(&self, part: &str) -> Result<(String, String), String> {
        let page = self.try_readyz().await.map_err(|error| error.to_string())?.json();
        let is = |one: &&Value| one["part"] == part && one["what"].as_str().unwrap().contains("takes no messages");
        let found = page["reasons"].as_array().and_then(|all| all.iter().find(is));
        let found = found.ok_or_else(|| page.to_string())?;
        Ok((found["what"].to_string(), found["since"].to_string()))
    }

    /// New ones are refused, truthfully, and known ones are known; the reason stands since the beginning.
    async fn refuses(&self, known: &str) {
        let (what, began) = eventually("the trouble is told", SOON, async || self.trouble("processing").await).await;
        let told = async || self.trouble("accepting").await;
        assert_eq!(eventually("new messages are refused", LONG, told).await, (what, began));
        let refused = self.post("too-much", "too-much").await;
        refused.problem(503);
        assert_eq!((refused.header("x-outcome"), refused.header("retry-after").is_empty()), ("none", false));
        assert_eq!(self.post(known, known).await.status, 304);
    }

    async fn each_once(&self, ids: &[String]) {
        self.settled(LONG).await;
        for id in ids {
            assert_eq!(self.effects(id).await, [1, 1], "{id}");
        }
        assert_eq!(self.given_up().await, Vec::<String>::new());
    }

    fn lines(&self, text: &str) -> usize {
        self.log_text().matches(text).count()
    }
}

#[test]
fn a_full_queue_keeps_messages_waiting_however_often_they_were_tried_and_once_there_is_room_they_are_processed() {
    run(async {
        let (mut app, _amqp) = with_queue(Servers::shared().await, full_at(3)).await;
        app.stop_adapter("writeDb").await;
        let ids = app.accepted("full", 30).await;
        app.tried_in_vain("nacked").await;
        app.refuses(&ids[0]).await;
        assert_eq!(app.log_has("destination takes no messages").await.len(), 1);

        app.start_adapter("writeDb").await;
        app.ready(LONG).await;
        app.each_once(&ids).await;
        assert_eq!(app.effects("too-much").await, [0, 0]);
        assert_eq!(app.post("after", "after").await.status, 202);
        app.processed("after", SOON).await;
    });
}

#[test]
fn a_full_queue_of_others_keeps_messages_waiting_until_its_reader_comes() {
    run(async {
        let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
        crate::bytes::configured(&app);
        let amqp = Amqp::connect(app.amqp_url()).await;
        amqp.declare_with(crate::bytes::OTHERS, full_at(3)).await;
        app.migrate();
        app.run();
        app.ready(LONG).await;
        let ids: Vec<String> = (0..12).map(|number| format!("others-{number}")).collect();
        for id in &ids {
            assert_eq!(app.post_to("/api/others", id, id).await.status, 202);
        }
        let depth = crate::support::depth(app.amqp_url(), crate::bytes::OTHERS).await.unwrap();
        app.only_these_wait(ids.len() - usize::try_from(depth).unwrap()).await;
        app.tried_in_vain("nacked").await;

        let mut taken = Vec::new();
        eventually("all have come", LONG, async || {
            while let Some(message) = amqp.try_take(crate::bytes::OTHERS).await {
                taken.push(String::from_utf8(message.body).unwrap());
            }
            taken.sort();
            if taken.len() >= ids.len() { Ok(()) } else { Err(format!("{taken:?}")) }
        })
        .await;
        let mut wanted = ids;
        wanted.sort();
        assert_eq!(taken, wanted);
        assert_eq!(app.given_up().await, Vec::<String>::new());
    });
}

/// The process of a quorum queue on its node.
pub fn process(app: &App) -> String {
    let vhost = app.amqp_url().rsplit('/').next().unwrap();
    let queue = format!("rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{QUEUE}\">>)");
    format!("whereis(element(1, amqqueue:get_pid(element(2, rabbit_amqqueue:lookup({queue})))))")
}

#[test]
fn a_queue_that_does_not_confirm_keeps_messages_waiting_and_does_not_harm_others() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::lay_out(Arc::clone(&servers), Options::default()).await;
        crate::bytes::configured(&app);
        app.migrate();
        app.run();
        app.ready(LONG).await;
        let amqp = Amqp::connect(app.amqp_url()).await;
        let process = process(&app);
        let eval = async |what: &str| servers.rabbit.lock().await.eval(what).await.unwrap();
        assert_eq!(eval(&format!("sys:suspend({process})")).await, "ok");
        let ids = app.accepted("silent", 5).await;
        app.tried_in_vain("no_confirm").await;
        app.not_ready(LONG).await;
        for number in 0..20 {
            let id = format!("other-{number}");
            let reply = app.post_to("/api/others", &id, &id).await;
            assert_eq!(reply.status, 202, "{reply:?}");
            assert_eq!(amqp.take(crate::bytes::OTHERS).await.body, id.as_bytes());
        }
        assert_eq!(app.lines("given up"), 0, "a connection that others use");
        assert_eq!(eval(&format!("sys:resume({process})")).await, "ok");
        app.ready(LONG).await;
        app.each_once(&ids).await;
    });
}

#[test]
fn a_message_that_the_broker_does_not_take_is_given_up_with_the_broker_s_reason_and_its_neighbours_do_not_count() {
    run(async {
        let servers = Servers::own().await;
        let set = "application:set_env(rabbit, max_message_size, 100000)";
        assert_eq!(servers.rabbit.lock().await.eval(set).await.unwrap(), "ok");
        let app = App::start(Arc::clone(&servers)).await;
        let large = "x".repeat(100_001);
        let too_large: Vec<String> = (0..3).map(|number| format!("large-{number}")).collect();
        let mut ids = Vec::new();
        for round in 0..5 {
            let large = join_all(too_large.iter().map(|id| app.post(id, &large)));
            let (replies, more) = tokio::join!(large, async { app.accepted(&format!("small-{round}"), 40).await });
            assert!(replies.iter().all(|reply| matches!(reply.status, 202 | 304)), "{replies:?}");
            ids.extend(more);
        }
        for id in &ids {
            app.processed(id, LONG).await;
        }
        let counted = "SELECT count(*) FROM posthaste.journal j JOIN ibisstore l ON l.messagekey = j.log_key
            WHERE j.publishes > 0 AND l.messageid LIKE 'small%'";
        assert_eq!(app.db.one::<i64>(counted, &[]).await, 0, "neighbours that were blamed");

        eventually("they are in the error store", LONG, async || {
            app.db.rows(NINE, &[]).await;
            app.db.rows(HURRY, &[]).await;
            same(app.given_up().await.len(), &too_large.len())
        })
        .await;
        for comments in app.given_up().await {
            assert!(comments.starts_with("large-"), "{comments}");
            assert!(comments.contains("cannot be published") && comments.contains("message size 100001"), "{comments}");
        }
        // Nothing is wrong with the queue.
        assert!(app.accepts().await.is_ok());
        assert_eq!(app.lines("destination takes no messages"), 0);
        app.settled(LONG).await;
    });
}

#[test]
fn a_message_over_which_the_broker_ends_the_connection_is_given_up_with_its_reason_and_its_neighbours_flow() {
    run(async {
        let servers = Servers::own().await;
        let set = "application:set_env(rabbit, frame_max, 8192)";
        assert_eq!(servers.rabbit.lock().await.eval(set).await.unwrap(), "ok");
        let mut app = App::lay_out(Arc::clone(&servers), Options::default()).await;
        crate::bytes::configured(&app);
        app.migrate();
        app.run();
        app.ready(LONG).await;
        // One frame has all headers of a message, and no frame may be larger than what the broker allows.
        let tenant = "t".repeat(20_000);
        let reply = app.send("/api/others", &[("Message-Id", "wide"), ("X-Tenant", &tenant)], b"wide").await;
        assert_eq!(reply.status, 202, "{reply:?}");
        eventually("it is in the error store", LONG, async || {
            app.db.rows(NINE, &[]).await;
            app.db.rows(HURRY, &[]).await;
            same(app.given_up().await.len(), &1)
        })
        .await;
        let comments = app.given_up().await.remove(0);
        assert!(comments.starts_with("wide: cannot be published") && comments.contains("FRAME_ERROR"), "{comments}");
        app.ready(LONG).await;
        let ids = app.accepted("narrow", 20).await;
        for id in &ids {
            app.processed(id, LONG).await;
        }
    });
}
