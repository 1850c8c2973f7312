//! A database's clock that is wrong for a while and is put right, and an instance that stands still meanwhile: no message is
//! left behind (I9).

use uuid::Uuid;

use crate::support::{App, Clock, LONG, Options, eventually, purge, run, same};

const HOURS: i64 = 7200;
/// Longer than anything waits that goes by the clock, but for what is wrong by hours.
const MINUTES: i64 = 400;

impl App {
    /// How many messages the process counts as open.
    async fn counts_open(&self, wanted: f64, bound: std::time::Duration) {
        let what = format!("{wanted} open messages are counted");
        eventually(&what, bound, async || same(self.metric("posthaste_journal_open").await, &wanted)).await;
    }

    /// Posts until the ids of new messages are `ahead` seconds ahead, within a minute: the process has heard of the clock.
    async fn minted(&self, ahead: i64, name: &str) {
        let mut n = 0;
        eventually("ids follow the clock", LONG, async || {
            n += 1;
            let id = format!("{name}-{n}");
            same(self.post(&id, &id).await.status, &202)?;
            let sql = "SELECT tx_id FROM ibisstore WHERE type = 'A' AND messageid = $1";
            let tx_id: Uuid = self.db.one(sql, &[&id]).await;
            let millis = i64::try_from(tx_id.as_u128() >> 80).unwrap();
            let off = millis / 1000 - jiff::Timestamp::now().as_second() - ahead;
            if off.abs() < 60 { Ok(()) } else { Err(format!("{off} s from {ahead}")) }
        })
        .await;
    }
}

#[test]
fn what_is_accepted_after_a_clock_was_ahead_is_found_when_the_broker_loses_it() {
    run(async {
        let (clock, servers) = Clock::with_servers().await;
        let mut app = App::start(servers).await;
        clock.set(HOURS);
        app.minted(HOURS, "ahead").await;
        // Whoever looks for open messages has been there, with an open one and with none.
        app.stop_adapter("writeDb").await;
        assert_eq!(app.post("waits", "waits").await.status, 202);
        app.counts_open(1.0, LONG).await;
        app.start_adapter("writeDb").await;
        app.processed("waits", LONG).await;
        app.counts_open(0.0, LONG).await;

        clock.set(0);
        app.minted(0, "right").await;
        app.stop_adapter("writeDb").await;
        for n in 0..10 {
            assert_eq!(app.post(&format!("held-{n}"), &format!("held {n}")).await.status, 202);
        }
        let published = "posthaste.journal WHERE state = 'PUBLISHED'";
        eventually("all are marked", LONG, async || same(app.db.count(published, &[]).await, &10)).await;
        eventually("all are on the queue", LONG, async || same(app.depth().await, &Ok(10))).await;
        clock.set(MINUTES);
        purge(app.amqp_url(), "myQueue").await.unwrap();
        app.counts_open(10.0, LONG).await;
        app.start_adapter("writeDb").await;
        for n in 0..10 {
            app.processed(&format!("held {n}"), LONG * 2).await;
        }
        app.settled(LONG).await;
        app.everything_is_accounted_for();
        assert_eq!(app.stop().await, Some(0));
    });
}

#[test]
fn what_was_published_while_a_clock_was_ahead_is_published_again_when_the_broker_loses_it() {
    run(async {
        let (clock, servers) = Clock::with_servers().await;
        let mut app = App::start(servers).await;
        app.stop_adapter("writeDb").await;
        clock.set(HOURS);
        app.minted(HOURS, "ahead").await;
        let open = app.db.count("posthaste.journal", &[]).await;
        let published = "posthaste.journal WHERE state = 'PUBLISHED'";
        eventually("all are marked", LONG, async || same(app.db.count(published, &[]).await, &open)).await;
        clock.set(0);
        purge(app.amqp_url(), "myQueue").await.unwrap();
        app.start_adapter("writeDb").await;
        app.settled(LONG * 2).await;
        app.everything_is_accounted_for();
        assert_eq!(app.stop().await, Some(0));
    });
}

/// Less than the longest wait that somebody may have asked for.
const LESS_THAN_AN_HOUR: i64 = 3000;

/// Messages whose queue has lost them, and which are put off while the clock is ahead.
async fn put_off(clock: &Clock, app: &App) {
    app.stop_adapter("writeDb").await;
    clock.set(LESS_THAN_AN_HOUR);
    app.minted(LESS_THAN_AN_HOUR, "ahead").await;
    purge(app.amqp_url(), "myQueue").await.unwrap();
    let half = jiff::Timestamp::now().as_second() + LESS_THAN_AN_HOUR / 2;
    // The others are, too, when they are looked at next.
    eventually("one is put off", LONG, async || {
        let far = "posthaste.due WHERE at > to_timestamp($1::bigint)";
        same(app.db.count(far, &[&half]).await > 0, &true)
    })
    .await;
}

#[test]
fn what_is_put_off_while_a_clock_is_ahead_waits_no_longer_when_it_is_put_right() {
    run(async {
        let (clock, servers) = Clock::with_servers().await;
        let mut app = App::start(servers).await;
        put_off(&clock, &app).await;
        clock.set(0);
        app.start_adapter("writeDb").await;
        app.settled(LONG * 2).await;
        app.everything_is_accounted_for();
        assert_eq!(app.stop().await, Some(0));
    });
}

#[test]
fn what_was_put_off_while_a_clock_was_ahead_does_not_keep_waiting_who_starts_afterwards() {
    run(async {
        let (clock, servers) = Clock::with_servers().await;
        let mut app = App::start(servers).await;
        put_off(&clock, &app).await;
        app.kill9().await;
        clock.set(0);
        app.run();
        app.ready(LONG).await;
        app.start_adapter("writeDb").await;
        app.settled(LONG * 2).await;
        app.everything_is_accounted_for();
        assert_eq!(app.stop().await, Some(0));
    });
}

/// Accepts in a transaction that takes a second.
const SLOWLY: &str = "adapters:
  - name: slowly
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /slowly, method: POST } }
      messageLog: { slotId: slowly }
    pipeline:
      - { name: wait, query: { database: main, sql: 'SELECT pg_sleep(2)' } }
      - { name: enqueue, amqpSender: { connection: rabbit, destinationName: myQueue } }
";

#[test]
fn what_an_instance_commits_that_stood_still_for_minutes_is_found_by_another() {
    run(async {
        let (clock, servers) = Clock::with_servers().await;
        let mut first = App::lay_out(servers, Options::default()).await;
        first.write("configurations/slowly/adapters.yml", SLOWLY);
        first.migrate();
        let mut second = first.sibling();
        second.write("configurations/slowly/adapters.yml", SLOWLY);
        for app in [&mut first, &mut second] {
            app.run();
            app.ready(LONG).await;
        }
        second.stop_adapter("writeDb").await;
        eventually("the first has heard of it", LONG, async || {
            same(first.adapter_state("writeDb").await.as_str(), &"STOPPED")
        })
        .await;
        // In the middle of their transactions the first stands still.
        let ids: Vec<String> = (0..4).map(|n| format!("slow-{n}")).collect();
        let posts = ids.iter().map(|id| first.try_post_to("/api/slowly", id, id));
        let posts = futures_util::future::join_all(posts);
        let frozen = async {
            let sleeping =
                "pg_stat_activity WHERE query LIKE '%pg_sleep(2)%' AND state = 'active' AND pid <> pg_backend_pid()";
            eventually("all are on their way", LONG, async || same(second.db.count(sleeping, &[]).await, &4)).await;
            first.freeze().await;
            clock.set(MINUTES);
            second.minted(MINUTES, "meanwhile").await;
            let fenced = "posthaste.instance WHERE state = 'FENCED'";
            eventually("the first is fenced", LONG, async || same(second.db.count(fenced, &[]).await, &1)).await;
            let open = second.db.count("posthaste.journal WHERE state <> 'DONE'", &[]).await;
            second.counts_open(f64::from(i32::try_from(open).unwrap()), LONG).await;
            first.thaw();
        };
        let (_answers, ()) = tokio::join!(posts, frozen);
        assert_eq!(first.ended(LONG).await, Some(70));
        let slow = "SELECT messageid::text FROM ibisstore WHERE type = 'A' AND slotid = 'slowly' ORDER BY 1";
        let committed: Vec<String> = second.db.column(slow, &[]).await;
        // What it did not get to before it read that it is fenced was rolled back.
        assert!(committed.iter().all(|id| ids.contains(id)), "{committed:?}");

        // What was published is lost.
        clock.set(2 * MINUTES);
        purge(second.amqp_url(), "myQueue").await.unwrap();
        second.start_adapter("writeDb").await;
        for id in committed {
            second.processed(&id, LONG * 2).await;
        }
        second.settled(LONG).await;
        second.everything_is_accounted_for();
        assert_eq!(second.stop().await, Some(0));
    });
}
