//! A group under way: what clients that hang up leave behind, and who waits for its confirms (ADR 10).

use std::time::Duration;

use futures_util::future::join_all;

use super::{ids, statuses};
use crate::alarms::behind_relays;
use crate::support::{App, Direction, SOON, Servers, eventually, run, same};

#[test]
fn a_client_that_hangs_up_while_its_message_waits_has_sent_it_all_the_same() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.accept_slowly(1.0).await;
        let ids = ids("gone", 20);
        let hasty = tokio::time::timeout(Duration::from_millis(500), app.post_all(&ids)).await;
        assert!(hasty.is_err(), "{hasty:?}");
        let logged = async || same(app.logged().await.len(), &20);
        eventually("all are accepted", SOON, logged).await;
        app.accept_fast().await;
        app.each_is_processed_once(&ids).await;
    });
}

#[test]
fn of_an_undone_group_everything_is_accepted_also_when_all_clients_have_hung_up() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.accept_slowly(1.0).await;
        app.db.batch("ALTER TABLE ibisstore ADD CONSTRAINT no_poison CHECK (message <> 'poison')").await;
        let ids = ids("left", 20);
        let all: Vec<String> = ids.iter().cloned().chain(["poison".to_owned()]).collect();
        let hasty = tokio::time::timeout(Duration::from_millis(500), app.post_all(&all)).await;
        assert!(hasty.is_err(), "{hasty:?}");
        app.accept_fast().await;
        let logged = async || same(app.logged().await, &ids);
        eventually("the innocent are accepted", SOON, logged).await;
        assert!(app.figure("posthaste_accept_groups_failed_total").await >= 1);
        app.each_is_processed_once(&ids).await;
    });
}

#[test]
fn what_arrives_while_groups_are_published_makes_few_groups() {
    run(async {
        let (app, links) = behind_relays().await;
        // One after the other, each later than the statement of the one before ends, none of them confirmed: a group each, if
        // groups did not wait for confirms. A busy machine may be late, but not always.
        let mut few = 0;
        for round in 0..20 {
            links.amqp.stall(Direction::ToClient);
            let before = app.figure("posthaste_accept_groups_total").await;
            let ids = ids(&format!("round-{round:02}"), 12);
            let post = async |(number, id): (u32, &String)| {
                tokio::time::sleep(Duration::from_millis(4) * number).await;
                app.post(id, id).await
            };
            let mend = async {
                tokio::time::sleep(Duration::from_millis(150)).await;
                links.amqp.resume();
            };
            let (replies, ()) = tokio::join!(join_all((0..).zip(&ids).map(post)), mend);
            assert_eq!(statuses(&replies), [202; 12]);
            few += usize::from(app.figure("posthaste_accept_groups_total").await - before <= 6);
        }
        assert!(few >= 5, "{few} of 20");
    });
}

#[test]
fn a_group_that_waits_for_the_broker_holds_up_no_decision() {
    run(async {
        let (app, links) = behind_relays().await;
        links.amqp.stall(Direction::Both);
        // More than the groups that may be under way, and each comes when those before it wait for their confirms.
        let ids = ids("unconfirmed", 5);
        let post = async |(number, id): (u32, &String)| {
            tokio::time::sleep(Duration::from_millis(200) * number).await;
            app.post(id, id).await
        };
        let decided = async {
            let logged = eventually("all are decided", Duration::from_secs(4), async || {
                let logged = app.logged().await;
                if logged.len() == ids.len() { Ok(logged) } else { Err(format!("{logged:?}")) }
            });
            // Not one confirm was given up yet: that takes 5 s.
            assert_eq!(logged.await, ids);
            links.amqp.resume();
        };
        let (replies, ()) = tokio::join!(join_all((0..).zip(&ids).map(post)), decided);
        assert_eq!(statuses(&replies), [202; 5]);
        assert_eq!(app.figure("posthaste_accept_groups_total").await, 5);
        app.each_is_processed_once(&ids).await;
    });
}

#[test]
fn who_is_confirmed_has_his_answer_while_another_of_his_group_is_still_on_its_way() {
    run(async {
        let (app, links) = behind_relays().await;
        app.accept_slowly(1.5).await;
        links.amqp.stall_after(64 * 1024);
        // Two groups run at most, and each statement takes 1.5 s: whoever comes behind two others makes one group.
        let (others, ids) = (ids("other", 2), ids("small", 10));
        let late = async |milliseconds, id: &str, body: &str| {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            app.post(id, body).await
        };
        let before = join_all([(0, &others[0]), (50, &others[1])].map(|(wait, id)| late(wait, id, id)));
        let small = async {
            app.flushing(2).await;
            join_all(ids.iter().map(|id| app.post(id, id))).await
        };
        let body = "x".repeat(200 * 1024);
        let mut large = std::pin::pin!(late(700, "large", &body));
        // Not one confirm was given up yet: that takes 5 s from the decision, which comes after 3.
        let answered = tokio::time::timeout(Duration::from_secs(7), async { tokio::join!(before, small) });
        let answered = tokio::select! {
            reply = &mut large => panic!("before the others: {reply:?}"),
            answered = answered => answered.unwrap(),
        };
        assert_eq!((statuses(&answered.0), statuses(&answered.1)), (vec![202; 2], vec![202; 10]));
        assert_eq!(app.figure("posthaste_accept_groups_total").await, 3);
        // The large one was accepted with them.
        assert_eq!(app.logged().await.len(), 13);
        links.amqp.resume();
        assert_eq!(large.await.status, 202);
    });
}
