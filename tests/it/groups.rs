//! Messages that are accepted together: each is answered for itself, whatever befalls the group (protocol §7).

mod mixed;
mod under_way;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{App, LONG, Options, Reply, SOON, Servers, eventually, run};

/// Every statement that inserts into the message log takes so long, and whoever comes meanwhile waits for the next.
const SLOW: &str = "
    CREATE TABLE public.slow (seconds float8 NOT NULL);
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(coalesce((SELECT max(seconds) FROM public.slow), 0)); RETURN NULL; END $$;
    CREATE TRIGGER slow BEFORE INSERT ON ibisstore FOR EACH STATEMENT EXECUTE FUNCTION slow()";
const FLUSHING: &str = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
    AND state = 'active' AND query LIKE '/* accept_group */%'";

impl App {
    async fn accept_slowly(&self, seconds: f64) {
        self.db.batch(SLOW).await;
        self.db.rows("INSERT INTO public.slow VALUES ($1)", &[&seconds]).await;
    }

    async fn accept_fast(&self) {
        self.db.rows("DELETE FROM public.slow", &[]).await;
    }

    /// Each of them under its own id, which is its body, all at once.
    async fn post_all(&self, ids: &[String]) -> Vec<Reply> {
        join_all(ids.iter().map(|id| self.post(id, id))).await
    }

    /// A figure of `/metrics` that has no labels.
    async fn figure(&self, name: &str) -> usize {
        let page = self.console(reqwest::Method::GET, "/metrics").await.body;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    /// The ids in the message log, each as often as it stands there.
    async fn logged(&self) -> Vec<String> {
        sorted(self.db.column("SELECT messageid::text FROM ibisstore WHERE type = 'A'", &[]).await)
    }

    async fn each_is_processed_once(&self, ids: &[String]) {
        self.settled(LONG).await;
        let wanted = sorted(ids.to_vec());
        assert_eq!(self.logged().await, wanted);
        assert_eq!(sorted(self.db.column("SELECT message::text FROM message", &[]).await), wanted);
    }

    async fn flushing(&self, many: usize) -> Vec<i32> {
        eventually("groups are under way", SOON, async || {
            let pids: Vec<i32> = self.db.column(FLUSHING, &[]).await;
            if pids.len() >= many { Ok(pids) } else { Err(format!("{pids:?}")) }
        })
        .await
    }
}

async fn stop_in_place(pids: &[i32]) {
    for pid in pids {
        posthaste::dev::stop_in_place(pid.cast_unsigned()).await.unwrap();
    }
}

fn go_on(pids: &[i32]) {
    pids.iter().for_each(|pid| kill(Pid::from_raw(*pid), Signal::SIGCONT).unwrap());
}

fn ids(name: &str, many: usize) -> Vec<String> {
    (0..many).map(|number| format!("{name}-{number:04}")).collect()
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort_unstable();
    ids
}

fn statuses(replies: &[Reply]) -> Vec<u16> {
    replies.iter().map(|reply| reply.status).collect()
}

#[track_caller]
fn refused(reply: &Reply) {
    reply.problem(503);
    assert_eq!(reply.header("x-outcome"), "none", "{reply:?}");
    assert!(reply.header("retry-after").parse::<u32>().is_ok(), "{reply:?}");
}

#[test]
fn messages_that_come_at_once_share_commits() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.accept_slowly(0.1).await;
        let ids = ids("shared", 200);
        assert_eq!(statuses(&app.post_all(&ids).await), [202; 200]);
        let commits = app.db.one::<i64>("SELECT count(DISTINCT xmin::text) FROM ibisstore", &[]).await;
        assert!(commits <= 40, "{commits} commits");
        let commits = usize::try_from(commits).unwrap();
        assert_eq!(app.figure("posthaste_accept_groups_total").await, commits);
        assert_eq!(app.figure("posthaste_accept_group_messages_total").await, 200);
        assert_eq!(app.figure("posthaste_accept_groups_failed_total").await, 0);
        app.accept_fast().await;
        app.each_is_processed_once(&ids).await;
    });
}

#[test]
fn a_repeated_id_in_one_group_is_accepted_once_and_every_other_is_a_duplicate() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.accept_slowly(0.1).await;
        let pairs: Vec<(&str, &str)> = (0..60).map(|n| [("a", "a"), ("b", "b"), ("a", "another")][n % 3]).collect();
        let replies = join_all(pairs.iter().map(|(id, body)| app.post(id, body))).await;
        for id in ["a", "b"] {
            let of_id = pairs.iter().zip(&replies).filter(|((of, _), _)| *of == id);
            let mut answers: Vec<u16> = of_id.map(|(_, reply)| reply.status).collect();
            answers.sort_unstable();
            assert_eq!((answers[0], answers[1..].iter().all(|status| *status == 304)), (202, true), "{answers:?}");
        }
        // They were not sixty tries of their own.
        assert!(app.figure("posthaste_accept_groups_total").await <= 20);
        assert_eq!(app.figure("posthaste_accept_group_messages_total").await, 60);
        app.settled(SOON).await;
        assert_eq!(app.logged().await, ["a", "b"]);
        assert_eq!(app.db.count("message", &[]).await, 2);
        let conflicts: Vec<String> = app.db.column("SELECT dedup_key::text FROM posthaste.conflict", &[]).await;
        assert_eq!(conflicts, ["a"]);
    });
}

#[test]
fn what_postgres_refuses_in_a_group_harms_no_neighbour() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.accept_slowly(0.1).await;
        app.db
            .batch(
                "ALTER TABLE ibisstore ADD CONSTRAINT no_poison CHECK (message <> 'poison-0000');
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF NEW.messageid = 'poison-0001' THEN RAISE EXCEPTION 'not this one'; END IF;
                    RETURN NEW; END $$;
                CREATE TRIGGER refuse BEFORE INSERT ON ibisstore FOR EACH ROW EXECUTE FUNCTION refuse()",
            )
            .await;
        let (innocent, poison) = (ids("innocent", 60), ids("poison", 2));
        let all: Vec<String> = innocent[..30].iter().chain(&poison).chain(&innocent[30..]).cloned().collect();
        let replies = app.post_all(&all).await;
        for (id, reply) in all.iter().zip(&replies) {
            if poison.contains(id) { refused(reply) } else { assert_eq!(reply.status, 202, "{id}: {reply:?}") }
        }
        // The client is told which kind of error it was, and the log what the database said.
        for (reply, sqlstate, said) in [(&replies[30], "23514", "no_poison"), (&replies[31], "P0001", "not this one")] {
            assert!(reply.body.contains(sqlstate) && !reply.body.contains(said), "{reply:?}");
            app.log_has(said).await;
        }
        assert!(app.figure("posthaste_accept_groups_failed_total").await >= 1);
        app.accept_fast().await;
        app.each_is_processed_once(&innocent).await;

        app.db.batch("ALTER TABLE ibisstore DROP CONSTRAINT no_poison; DROP TRIGGER refuse ON ibisstore").await;
        assert_eq!(statuses(&app.post_all(&poison).await), [202; 2]);
        assert_eq!(statuses(&app.post_all(&all).await), [304; 62]);
        app.each_is_processed_once(&all).await;
    });
}

#[test]
fn a_group_whose_connection_is_killed_is_accepted_after_all_and_once() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.accept_slowly(1.0).await;
        let ids = ids("cut", 40);
        let kill = async {
            let pids = app.flushing(2).await;
            app.accept_fast().await;
            app.db.rows("SELECT pg_terminate_backend(pid) FROM unnest($1::int4[]) pid", &[&pids]).await;
        };
        let (replies, ()) = tokio::join!(app.post_all(&ids), kill);
        assert_eq!(statuses(&replies), [202; 40]);
        assert!(app.figure("posthaste_accept_groups_failed_total").await >= 2);
        assert_eq!(statuses(&app.post_all(&ids).await), [304; 40]);
        app.each_is_processed_once(&ids).await;
    });
}

#[test]
fn groups_of_two_instances_with_the_same_ids_in_other_orders_never_deadlock() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        // Sooner than the lock time-out of a group, so that a deadlock would be seen as one.
        let soon = format!(r#"ALTER DATABASE "{}" SET deadlock_timeout = '10ms'"#, app.db.name());
        app.db.rows(&soon, &[]).await;
        // Two groups take their keys at the same time, not one after the other.
        app.db
            .batch(
                "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END $$;
                CREATE TRIGGER linger BEFORE INSERT ON ibisstore FOR EACH ROW EXECUTE FUNCTION linger()",
            )
            .await;
        let mut instances = [app.sibling(), app];
        for instance in &mut instances {
            instance.run();
            instance.ready(LONG).await;
        }
        let mut all = Vec::new();
        for round in 0..15 {
            let ascending = ids(&format!("round-{round:02}"), 40);
            let descending: Vec<String> = ascending.iter().rev().cloned().collect();
            let (one, other) = tokio::join!(instances[0].post_all(&ascending), instances[1].post_all(&descending));
            for (id, (one, other)) in ascending.iter().zip(one.iter().zip(other.iter().rev())) {
                let both = BTreeSet::from([one.status, other.status]);
                assert_eq!(both, BTreeSet::from([202, 304]), "{id}: {one:?} {other:?}");
            }
            all.extend(ascending);
        }
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        assert_eq!(instances[0].db.one::<i64>(deadlocks, &[]).await, 0);
        instances[0].each_is_processed_once(&all).await;
    });
}

#[test]
fn beyond_a_full_queue_messages_are_refused_at_once_and_leave_nothing() {
    run(async {
        let options = Options { api: &["maxConnections: 2048"], ..Options::default() };
        let app = App::start_with(Servers::shared().await, options).await;
        app.accept_slowly(3.0).await;
        let ids = ids("many", 1300);
        let started = Instant::now();
        let posts = ids.iter().map(async |id| (app.post(id, id).await, started.elapsed()));
        let (replies, _) = tokio::join!(join_all(posts), async {
            app.flushing(2).await;
            app.accept_fast().await;
        });
        let mut accepted = Vec::new();
        let mut full = Vec::new();
        for (id, (reply, after)) in ids.iter().zip(&replies) {
            if reply.status == 202 {
                accepted.push(id.clone());
                continue;
            }
            refused(reply);
            if reply.body.contains("1024 messages wait") {
                full.push(*after);
            }
        }
        assert!(full.len() > 100 && accepted.len() > 500, "{} full, {} accepted", full.len(), accepted.len());
        let first = full.iter().min().unwrap();
        assert!(*first < Duration::from_secs(3), "the first was refused after {first:?}");
        app.each_is_processed_once(&accepted).await;
    });
}

#[test]
fn whoever_gets_no_turn_is_refused_and_whoever_hangs_in_a_group_is_accepted_once() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.accept_slowly(1.0).await;
        let waiting = ids("waiting", 20);
        // A group each.
        let second = async {
            app.flushing(1).await;
            app.post("second", "second").await
        };
        let hang = async {
            let pids = app.flushing(2).await;
            stop_in_place(&pids).await;
            app.accept_fast().await;
            let started = Instant::now();
            let replies = app.post_all(&waiting).await;
            // The sessions come back while their clients look for what became of them.
            tokio::time::sleep(Duration::from_secs(8).saturating_sub(started.elapsed())).await;
            go_on(&pids);
            replies
        };
        let (first, second, waited) = tokio::join!(app.post("first", "first"), second, hang);
        waited.iter().for_each(refused);
        assert_eq!(statuses(&[first, second]), [202; 2]);
        app.each_is_processed_once(&["first".to_owned(), "second".to_owned()]).await;
        assert_eq!(statuses(&app.post_all(&waiting).await), [202; 20]);
    });
}

#[test]
fn a_group_that_hangs_holds_up_nobody_else() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        app.accept_slowly(1.0).await;
        let others = async {
            let hanging = app.flushing(1).await;
            stop_in_place(&hanging).await;
            app.accept_fast().await;
            // Each posts when its last post is answered: nobody comes who could wake those that wait.
            let client = async |client: usize| {
                let mut replies = Vec::new();
                for number in 0..25 {
                    let id = format!("other-{client}-{number}");
                    replies.push(app.post(&id, &id).await);
                }
                statuses(&replies)
            };
            let statuses = join_all((0..8).map(client)).await.concat();
            hanging.iter().for_each(|pid| kill(Pid::from_raw(*pid), Signal::SIGCONT).unwrap());
            statuses
        };
        let (first, others) = tokio::join!(app.post("first", "first"), others);
        assert_eq!(others, [202; 200]);
        assert_eq!(first.status, 202);
        let ids = (0..8).flat_map(|client| (0..25).map(move |number| format!("other-{client}-{number}")));
        app.each_is_processed_once(&ids.chain(["first".to_owned()]).collect::<Vec<_>>()).await;
    });
}

#[test]
fn what_waits_for_its_turn_when_the_process_stops_is_accepted_first() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        app.accept_slowly(1.0).await;
        let ids = ids("last", 40);
        let (http, api) = (app.http.clone(), app.api);
        let posts = join_all(ids.iter().map(|id| {
            let request = http.post(format!("http://{api}/api/write")).header("Message-Id", id);
            request.body(id.clone()).send()
        }));
        let stop = async {
            app.flushing(2).await;
            app.stop().await
        };
        let (replies, status) = tokio::join!(posts, stop);
        assert_eq!(status, Some(0));
        let statuses: Vec<u16> = replies.into_iter().map(|reply| reply.unwrap().status().as_u16()).collect();
        assert_eq!(statuses, [202; 40]);
        app.accept_fast().await;
        app.run();
        app.ready(LONG).await;
        app.each_is_processed_once(&ids).await;
    });
}
