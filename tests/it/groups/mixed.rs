//! A group of messages for several brokers, of clients that wait for a confirm and of clients that do not.

use std::time::Duration;

use futures_util::future::join_all;

use super::{ids, statuses};
use crate::support::{App, Direction, LONG, Links, Options, SOON, Servers, eventually, run, same};

/// Nobody reads their queues.
const ADAPTERS: &str = "adapters:
  - name: journalled
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /journalled, accept: journalled } }
      messageLog: { slotId: journalled }
    pipeline: [ { name: enqueue, amqpSender: { connection: rabbit, destinationName: journalled } } ]
  - name: elsewhere
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /elsewhere } }
      messageLog: { slotId: elsewhere }
    pipeline: [ { name: enqueue, amqpSender: { connection: other, destinationName: elsewhere } } ]
";

async fn mixed() -> (App, Links) {
    let mut app = App::install(Servers::shared().await, Options::default()).await;
    let links = app.behind_relays().await;
    let other = format!("  - name: other\n    url: {}\n    createDestination: true\nhttp:", app.amqp_url());
    app.edit_resources("http:", &other);
    app.write("configurations/more/adapters.yml", ADAPTERS);
    app.run();
    app.ready(LONG).await;
    (app, links)
}

#[test]
fn of_a_mixed_group_only_they_wait_whose_own_broker_is_silent() {
    run(async {
        let (app, links) = mixed().await;
        app.accept_slowly(2.0).await;
        links.amqp.stall(Direction::Both);

        // Two groups run at most: whoever comes behind two others makes one.
        let (before, waiting) = (ids("before", 2), ids("waiting", 4));
        let (free, elsewhere) = (ids("free", 4), ids("elsewhere", 4));
        let post_before = async |(number, id): (u32, &String)| {
            tokio::time::sleep(Duration::from_millis(50) * number).await;
            app.post_to("/api/elsewhere", id, id).await
        };
        let before_them = join_all((0..).zip(&before).map(post_before));
        let mut silent = std::pin::pin!(async {
            app.flushing(2).await;
            app.post_all(&waiting).await
        });
        let others = async {
            app.flushing(2).await;
            let free = join_all(free.iter().map(|id| app.post_to("/api/journalled", id, id)));
            tokio::join!(free, join_all(elsewhere.iter().map(|id| app.post_to("/api/elsewhere", id, id))))
        };
        // Not one confirm was given up yet: that takes 5 s from the decision, which comes after 4.
        let answered = tokio::time::timeout(Duration::from_secs(8), async { tokio::join!(before_them, others) });
        let (first, (free_replies, elsewhere_replies)) = tokio::select! {
            replies = &mut silent => panic!("while their broker was silent: {replies:?}"),
            answered = answered => answered.unwrap(),
        };
        assert_eq!((statuses(&first), statuses(&free_replies)), (vec![202; 2], vec![202; 4]));
        assert_eq!(statuses(&elsewhere_replies), [202; 4]);
        assert_eq!(app.figure("posthaste_accept_groups_total").await, 3);
        // They were decided together.
        assert_eq!(app.logged().await.len(), 14);

        links.amqp.resume();
        assert_eq!(statuses(&silent.await), [202; 4]);
        // Whatever the broker said, they would have been accepted: what counts is that each arrived.
        for (queue, many) in [("journalled", 4), ("elsewhere", 6)] {
            let depth = async || same(crate::support::depth(app.amqp_url(), queue).await, &Ok(many));
            eventually("each stands in its queue once", SOON, depth).await;
        }
        let read = async || same(app.db.count("message", &[]).await, &4);
        eventually("what waited is processed", LONG, read).await;
        assert_eq!(app.db.count("posthaste.journal WHERE attempts > 1", &[]).await, 0);
    });
}

#[test]
fn what_a_broker_that_is_away_did_not_take_is_told_once_a_group_and_comes_when_it_is_back() {
    run(async {
        let (mut app, links) = mixed().await;
        links.amqp.refuse(true);
        links.amqp.cut();
        app.not_ready(LONG).await;
        app.accept_slowly(0.3).await;
        let ids = ids("away", 200);
        let replies = join_all(ids.iter().map(|id| app.post_to("/api/journalled", id, id))).await;
        assert_eq!(statuses(&replies), [202; 200]);
        let groups = app.figure("posthaste_accept_groups_total").await;
        let told = app.log_text().matches("publish failed; the journal keeps the").count();
        assert!((1..=groups).contains(&told) && groups < 20, "{told} lines for {groups} groups");
        app.accept_fast().await;
        links.amqp.refuse(false);
        app.ready(LONG).await;
        let depth = async || same(crate::support::depth(app.amqp_url(), "journalled").await, &Ok(200));
        eventually("each stands in its queue once", LONG, depth).await;
    });
}

#[test]
fn while_the_journal_cannot_be_told_of_failed_publishes_at_most_two_groups_wait_to_tell_it() {
    run(async {
        let (mut app, links) = mixed().await;
        links.amqp.refuse(true);
        links.amqp.cut();
        app.not_ready(LONG).await;
        let (hold, _session) = app.db.session().await;
        hold.batch_execute("BEGIN; LOCK TABLE posthaste.due IN EXCLUSIVE MODE").await.unwrap();
        let telling = "pg_stat_activity WHERE datname = current_database() AND query LIKE '/* publish_failed */%'
            AND state = 'active'";
        let ids = ids("untold", 12);
        let mut most = 0;
        for id in &ids {
            // One after the other: a group each.
            assert_eq!(app.post_to("/api/journalled", id, id).await.status, 202);
            most = most.max(app.db.count(telling, &[]).await);
        }
        assert_eq!(most, 2);
        hold.batch_execute("COMMIT").await.unwrap();
        links.amqp.refuse(false);
        app.ready(LONG).await;
        let depth = async || same(crate::support::depth(app.amqp_url(), "journalled").await, &Ok(12));
        eventually("each stands in its queue once", LONG, depth).await;
    });
}
