//! Large messages that wait: the process has little memory however many there are, and nothing is lost.

mod trials;

use std::time::Duration;

use lapin::BasicProperties;

use crate::support::{Amqp, App, Cgroup, LONG, Options, Servers, eventually, run, same};

pub const MIB: usize = 1 << 20;
/// What the process may have.
pub const LITTLE: u64 = 256 << 20;
const QUEUE: &str = "myQueue";
/// On a busy machine, with a program that is not optimised.
const BOUND: Duration = Duration::from_secs(300);

/// So many bytes of text: its number, and what hardly compresses.
fn text(number: usize, bytes: usize) -> String {
    let mut dice = fastrand::Rng::with_seed(u64::try_from(number).unwrap());
    let head = format!("{number:08} ");
    let rest = std::iter::repeat_with(|| dice.alphanumeric()).take(bytes - head.len());
    head.chars().chain(rest).collect()
}

impl App {
    /// Its tables take texts of any length.
    pub async fn widen(&self) {
        for table in ["message", r#""otherMessage""#] {
            self.db.batch(&format!("ALTER TABLE {table} ALTER COLUMN message TYPE text")).await;
        }
    }

    /// Messages of others, in the order of these sizes, each with its number.
    async fn others(&self, sizes: &[usize]) {
        let amqp = Amqp::connect(self.amqp_url()).await;
        for (number, bytes) in sizes.iter().enumerate() {
            let properties = BasicProperties::default().with_message_id(format!("large-{number}").into());
            amqp.publish(QUEUE, properties.with_delivery_mode(2), text(number, *bytes).as_bytes()).await;
        }
    }

    /// Waits until so many messages have taken effect, each once and whole.
    pub async fn all_whole(&self, sizes: &[usize], bound: Duration) {
        let count = i64::try_from(sizes.len()).unwrap();
        eventually("all are processed", bound, async || same(self.db.count("message", &[]).await, &count)).await;
        self.settled(LONG).await;
        let found = "SELECT octet_length(message)::int8 FROM message ORDER BY left(message, 8)";
        let found: Vec<i64> = self.db.column(found, &[]).await;
        let wanted: Vec<i64> = sizes.iter().map(|bytes| i64::try_from(*bytes).unwrap()).collect();
        assert_eq!(found, wanted);
        assert_eq!(self.db.count(r#""otherMessage""#, &[]).await, count);
        assert_eq!(self.db.count("ibisstore WHERE type <> 'A'", &[]).await, 0);
    }

    /// Deliveries of the queue that are not settled, as the queue's own process knows it.
    async fn unsettled(&self) -> String {
        let url = url::Url::parse(self.amqp_url()).unwrap();
        let vhost = url.path().trim_start_matches('/');
        let held = format!(
            "begin {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{QUEUE}\">>)), \
             element(2, element(2, ra:leader_query(amqqueue:get_pid(Q), fun rabbit_fifo:query_messages_checked_out/1))) end"
        );
        self.servers.rabbit.lock().await.eval(&held).await.unwrap()
    }

    /// It was never killed, and had little.
    pub fn had_little(&mut self, what: &str) {
        assert_eq!(self.has_ended(), None);
        let peak = self.peak_memory();
        eprintln!("memory: {what}: {} MiB at most", peak >> 20);
        assert!(peak < LITTLE, "{what}: {peak}");
    }
}

/// What waits is there before the process is.
async fn waiting(sizes: &[usize], what: &str) {
    // Dropped when its process is gone.
    let cgroup = Cgroup::with(LITTLE);
    let mut app = App::install(Servers::shared().await, Options::default()).await;
    app.widen().await;
    app.others(sizes).await;
    app.run_in(cgroup.as_ref());
    app.ready(LONG).await;
    app.all_whole(sizes, BOUND).await;
    app.had_little(what);
    app.stop().await;
}

#[test]
fn many_large_messages_that_wait_take_little_memory() {
    run(waiting(&[MIB; 200], "200 of 1 MiB"));
}

#[test]
fn messages_of_many_mebibytes_that_wait_take_little_memory() {
    run(waiting(&[30 * MIB; 5], "5 of 30 MiB"));
}

#[test]
fn messages_that_become_large_all_at_once_take_little_memory() {
    let sizes = [vec![100; 60], vec![10 * MIB; 30]].concat();
    run(waiting(&sizes, "30 of 10 MiB behind 60 small ones"));
}

#[test]
fn large_messages_that_are_published_again_take_little_memory() {
    run(async {
        const MANY: usize = 150;
        let cgroup = Cgroup::with(LITTLE);
        let mut app = App::start(Servers::shared().await).await;
        app.widen().await;
        app.stop_adapter("writeDb").await;
        for number in 0..MANY {
            assert_eq!(app.post(&format!("again-{number}"), &text(number, MIB)).await.status, 202);
        }
        app.kill9().await;
        Amqp::connect(app.amqp_url()).await.purge(QUEUE).await;
        let forget =
            "UPDATE posthaste.journal SET state = 'READY', owner = NULL, published_at = NULL, publish_after = NULL";
        app.db.rows(forget, &[]).await;
        app.run_in(cgroup.as_ref());
        app.ready(LONG).await;
        let many = u64::try_from(MANY).unwrap();
        eventually("all are published", BOUND, async || match app.depth().await? {
            depth if depth >= many => Ok(()),
            depth => Err(format!("{depth}")),
        })
        .await;
        app.had_little("150 of 1 MiB published");
        app.start_adapter("writeDb").await;
        app.all_whole(&[MIB; MANY], BOUND).await;
        app.had_little("150 of 1 MiB published and processed");
        app.stop().await;
    });
}

#[test]
fn a_large_one_without_an_id_is_acknowledged_before_it_is_tried_lest_it_be_another_after_each_crash() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.widen().await;
        let (hold, _session) = app.db.session().await;
        hold.batch_execute("BEGIN; LOCK TABLE message IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let (with_id, without) = (text(1, MIB), text(2, MIB));
        let amqp = Amqp::connect(app.amqp_url()).await;
        amqp.publish(QUEUE, BasicProperties::default(), without.as_bytes()).await;
        let adopted = async |count: i64| same(app.db.count("posthaste.journal", &[]).await, &count);
        eventually("it is adopted", LONG, async || adopted(1).await).await;
        eventually("it is acknowledged", LONG, async || same(app.unsettled().await, &"0".to_owned())).await;
        // One with an id is known when it comes again, and stays with the broker until it is done with.
        let properties = BasicProperties::default().with_message_id("known".into());
        amqp.publish(QUEUE, properties, with_id.as_bytes()).await;
        eventually("the other is adopted", LONG, async || adopted(2).await).await;
        assert_eq!(app.unsettled().await, "1");
        hold.batch_execute("COMMIT").await.unwrap();
        app.settled(LONG).await;
        eventually("both are processed", LONG, async || same(app.db.count("message", &[]).await, &2)).await;
        eventually("both are acknowledged", LONG, async || same(app.unsettled().await, &"0".to_owned())).await;
    });
}
