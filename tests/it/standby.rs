//! Under a synchronous standby: what is visible may be lost, and what waits may wait for ever (protocol §3).

mod reads;

use std::sync::Arc;

use crate::support::{App, LONG, Reply, SOON, Servers, Standby, WAITING, eventually, run, same, waiting};

/// An installation that waits for its standby.
async fn installed() -> (App, Standby) {
    let servers = Servers::own().await;
    let standby = Standby::of(&servers).await;
    (App::start(servers).await, standby)
}

const ACCEPTING: &str = "/* accept_%";

#[track_caller]
fn unknown(reply: &Reply) {
    reply.problem(503);
    assert_eq!(reply.header("x-outcome"), "unknown", "{reply:?}");
}

/// Accepted by the primary alone: visible there, and the standby is not up to have it.
async fn visible_and_not_durable(app: &App, standby: &mut Standby) {
    standby.stop().await;
    let servers = Arc::clone(&app.servers);
    let restarted = async {
        waiting(&app.db, ACCEPTING).await;
        servers.stop_postgres_immediately().await;
        servers.start_postgres().await;
    };
    let (reply, ()) = tokio::join!(app.post("w", "waits"), restarted);
    unknown(&reply);
    assert_eq!(app.db.count("ibisstore WHERE messageid = 'w'", &[]).await, 1, "it stands there since the restart");
    let again = app.post("w", "waits").await;
    again.problem(503);
}

#[test]
fn what_a_restart_made_visible_is_no_duplicate_before_the_standby_has_it() {
    run(async {
        let (app, mut standby) = installed().await;
        visible_and_not_durable(&app, &mut standby).await;
        standby.start().await;
        let known = async || same(app.post("w", "waits").await.status, &304);
        eventually("it is known", LONG, known).await;
        app.processed("waits", LONG).await;
        app.settled(LONG).await;
        assert_eq!(app.effects("waits").await, [1, 1]);
    });
}

#[test]
fn what_only_the_lost_primary_had_is_accepted_once_by_the_promoted_standby() {
    run(async {
        let (mut app, mut standby) = installed().await;
        visible_and_not_durable(&app, &mut standby).await;
        standby.promote().await;
        assert_eq!(app.db.count("ibisstore WHERE messageid = 'w'", &[]).await, 0, "the standby never had it");
        let moved = async || {
            let settled = app.command(&["migrate", "--home", "same"]);
            if settled.status.success() { Ok(()) } else { Err(format!("{settled:?}")) }
        };
        eventually("the home may be told where it is", SOON, moved).await;
        app.ready(LONG).await;
        assert_eq!(app.post("w", "waits").await.status, 202);
        assert_eq!(app.post("w", "waits").await.status, 304);
        app.processed("waits", LONG).await;
        app.settled(LONG).await;
        assert_eq!(app.effects("waits").await, [1, 1]);
    });
}

#[test]
fn a_commit_whose_wait_was_cancelled_is_no_acceptance() {
    run(async {
        let (app, mut standby) = installed().await;
        standby.stop().await;
        let cancelled = async {
            for pid in waiting(&app.db, ACCEPTING).await {
                assert!(app.db.one::<bool>("SELECT pg_cancel_backend($1)", &[&pid]).await);
            }
        };
        let (reply, ()) = tokio::join!(app.post("c", "cancelled"), cancelled);
        unknown(&reply);
        standby.start().await;
        eventually("it is known", LONG, async || same(app.post("c", "cancelled").await.status, &304)).await;
        app.settled(LONG).await;
        assert_eq!(app.effects("cancelled").await, [1, 1]);
    });
}

#[test]
fn while_the_standby_is_away_new_messages_are_refused_and_afterwards_everything_goes_on() {
    run(async {
        let (mut app, mut standby) = installed().await;
        assert_eq!(app.post("before", "before").await.status, 202);
        app.processed("before", SOON).await;
        let process = app.pid();
        standby.stop().await;
        unknown(&app.post("first", "first").await);
        let ready = app.not_ready(SOON).await;
        assert!(ready.body.contains("without an answer"), "{ready:?}");
        for number in 0..20 {
            let reply = app.post(&format!("next-{number}"), "next").await;
            reply.problem(503);
            assert_eq!(reply.header("x-outcome"), "none", "{reply:?}");
        }
        // Nobody can say now whether a fail-over would forget it.
        unknown(&app.post("before", "before").await);
        let left = app.db.count(WAITING, &[&"%"]).await;
        assert!(left <= 8, "{left} sessions wait");

        standby.start().await;
        app.ready(LONG).await;
        assert_eq!(app.pid(), process);
        assert_eq!(app.post("before", "before").await.status, 304);
        for number in 0..20 {
            assert_eq!(app.post(&format!("next-{number}"), &format!("next {number}")).await.status, 202);
        }
        assert!(matches!(app.post("first", "first").await.status, 202 | 304));
        app.settled(LONG).await;
        for number in 0..20 {
            assert_eq!(app.effects(&format!("next {number}")).await, [1, 1]);
        }
        assert_eq!(app.effects("first").await, [1, 1]);
        let nobody = async || same(app.db.count(WAITING, &[&"%"]).await, &0);
        eventually("nobody waits any more", SOON, nobody).await;
        assert_eq!(app.stop().await, Some(0));
    });
}
