//! Messages that share a transaction, and answer for themselves all the same (protocol §7).

mod rows;

use crate::support::{App, LONG, Options, SOON, Servers, eventually, run};

const ADAPTER: &str = "writeDb";
/// Which transaction wrote what into which table, in which order.
const WITNESS: &str = "CREATE TABLE public.seen (at bigserial, transaction xid8, place text, message text);
    CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.seen (transaction, place, message) VALUES (pg_current_xact_id(), TG_TABLE_NAME, NEW.message);
        RETURN NULL; END $$;
    CREATE TRIGGER witness AFTER INSERT ON message FOR EACH ROW EXECUTE FUNCTION witness();
    CREATE TRIGGER witness AFTER INSERT ON \"otherMessage\" FOR EACH ROW EXECUTE FUNCTION witness();";
/// As the witness counts them.
const SHARED: &str = "SELECT count(DISTINCT transaction) FROM public.seen WHERE message LIKE $1";
/// Longer than the column is wide.
const TOO_LONG: &str = "0123456789012345678901234567890";

/// An installation whose receiver knows by now that its messages are fast.
async fn warm() -> App {
    warm_with("maxRetries: 5").await
}

/// The same with other retries.
async fn warm_with(retries: &str) -> App {
    let mut app = App::install(Servers::shared().await, Options::default()).await;
    let file = "configurations/write-db/adapters.yml";
    let text = std::fs::read_to_string(app.folder().join(file)).unwrap();
    assert!(text.contains("maxRetries: 5"), "{text}");
    app.write(file, &text.replace("maxRetries: 5", retries));
    app.db.batch(WITNESS).await;
    app.run();
    app.ready(LONG).await;
    app.learned(SHARED).await;
    app
}

impl App {
    /// Sends piles of messages until they share transactions; `transactions`: how many have written those like `$1`. How fast
    /// messages are is learned, on a crowded machine not at the first try.
    async fn learned(&self, transactions: &str) {
        let mut pile = 0;
        eventually("messages share transactions", LONG, async || {
            pile += 1;
            let name = format!("warm{pile}");
            self.pile_up(&numbered(&name, 40), async || {}).await;
            self.settled(LONG).await;
            let transactions: i64 = self.db.one(transactions, &[&format!("{name}-%")]).await;
            if transactions <= 20 { Ok(()) } else { Err(format!("{transactions} for 40")) }
        })
        .await;
    }

    /// Lets messages pile up in the queue, each its own text under this id, does something to them, and lets them go.
    async fn pile_up(&self, messages: &[(String, String)], then: impl AsyncFnOnce()) {
        self.stop_adapter(ADAPTER).await;
        for (id, text) in messages {
            assert_eq!(self.post(id, text).await.status, 202, "{id}");
        }
        then().await;
        self.start_adapter(ADAPTER).await;
    }

    /// How many transactions wrote these messages.
    async fn transactions(&self, like: &str) -> i64 {
        self.db.one(SHARED, &[&like]).await
    }

    /// Everybody but those in `but` took effect once, at the first attempt and without a record of any failure.
    async fn untouched(&self, messages: &[(String, String)], but: &[&str]) {
        let journal = "SELECT concat_ws(' ', j.state, j.attempts, (SELECT count(*) FROM posthaste.attempt a
                WHERE a.tx_id = j.tx_id))
            FROM posthaste.journal j JOIN ibisstore l ON l.messagekey = j.log_key WHERE l.messageid = $1";
        for (id, text) in messages.iter().filter(|(id, _)| !but.contains(&id.as_str())) {
            self.processed(text, LONG).await;
            assert_eq!(self.db.column::<String>(journal, &[id]).await, ["DONE 1 0"], "{id}");
        }
    }
}

fn numbered(name: &str, count: usize) -> Vec<(String, String)> {
    (0..count).map(|number| format!("{name}-{number:03}")).map(|text| (text.clone(), text)).collect()
}

#[test]
fn messages_that_wait_share_transactions_and_are_done_one_after_the_other() {
    run(async {
        let app = warm().await;
        let messages = numbered("many", 100);
        app.pile_up(&messages, async || {}).await;
        app.untouched(&messages, &[]).await;
        app.settled(SOON).await;
        let transactions = app.transactions("many-%").await;
        assert!(transactions <= 60, "{transactions} transactions for {} messages", messages.len());

        // Within each transaction: the first message's steps, then the second's, in the order of the queue.
        let seen = app.db.rows(
            "SELECT transaction::text, place, message FROM public.seen WHERE message LIKE 'many-%' ORDER BY at",
            &[],
        );
        let mut by_transaction: std::collections::BTreeMap<String, Vec<(String, String)>> =
            std::collections::BTreeMap::new();
        for row in seen.await {
            by_transaction.entry(row.get(0)).or_default().push((row.get(1), row.get(2)));
        }
        for steps in by_transaction.values() {
            let mut last = String::new();
            for pair in steps.chunks(2) {
                let [(first, message), (second, same)] = pair else { panic!("{steps:?}") };
                assert_eq!((first.as_str(), second.as_str()), ("message", "otherMessage"), "{steps:?}");
                assert_eq!(message, same, "{steps:?}");
                assert!(*message > last, "{steps:?}");
                last.clone_from(message);
            }
        }
    });
}

#[test]
fn messages_that_share_a_transaction_are_acknowledged_together() {
    run(async {
        let app = warm().await;
        let messages = numbered("ack", 100);
        let commands = async || app.servers.commands(app.amqp_url(), app.application.queue()).await;
        let mut before = 0;
        app.pile_up(&messages, async || before = commands().await).await;
        app.untouched(&messages, &[]).await;
        app.settled(SOON).await;
        let transactions = app.transactions("ack-%").await;
        let commands = commands().await - before;
        assert!(commands <= transactions + 20, "{commands} commands to the queue for {transactions} transactions");
    });
}

#[test]
fn one_poison_among_32_harms_no_neighbour_and_each_of_its_attempts_counts_once() {
    run(async {
        let app = warm().await;
        let mut messages = numbered("good", 32);
        messages[16] = ("poison".to_owned(), TOO_LONG.to_owned());
        app.pile_up(&messages, async || {}).await;
        let row = app.in_error("poison").await;
        assert!(row.comments.contains("value too long for type character varying(30)"), "{}", row.comments);
        assert_eq!(app.effects(TOO_LONG).await, [0, 0]);
        let attempts = app.attempts("poison").await;
        assert_eq!(attempts.iter().map(|attempt| attempt.n).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        for attempt in &attempts {
            assert_eq!((attempt.outcome.as_str(), attempt.step.as_str()), ("FAILED", "insert"), "{attempt:?}");
            assert!(attempt.error.starts_with("step insert of writeDb > writeTableMessage: "), "{attempt:?}");
        }
        app.untouched(&messages, &["poison"]).await;
        let transactions = app.transactions("good-%").await;
        assert!(transactions < 31, "{transactions}");
    });
}

#[test]
fn of_two_that_violate_a_constraint_together_the_second_alone_is_to_blame() {
    run(async {
        let app = warm().await;
        app.db.batch("CREATE UNIQUE INDEX once ON message (message)").await;
        let mut messages = numbered("twin", 20);
        messages[13].1 = messages[12].1.clone();
        app.pile_up(&messages, async || {}).await;
        // Whichever came second: the two may have been in different transactions.
        let row = eventually("one of the two is in the error store", SOON, async || {
            match app.error_rows().await.as_slice() {
                [row] if ["twin-012", "twin-013"].contains(&row.message_id.as_str()) => Ok(row.clone()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert!(row.comments.contains("\"once\""), "{}", row.comments);
        assert_eq!(app.attempts(&row.message_id).await.len(), 6);
        app.untouched(&messages, &[&row.message_id]).await;
        let transactions = app.transactions("twin-%").await;
        assert!(transactions < 19, "{transactions}");
    });
}

#[test]
fn a_connection_that_is_killed_amid_a_group_loses_nothing_doubles_nothing_and_counts_for_nobody() {
    run(async {
        let app = warm().await;
        // The first message that is not the first of its transaction; a sequence remembers, whatever is rolled back.
        app.db
            .batch(
                "CREATE SEQUENCE public.shots;
                CREATE FUNCTION shoot() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF coalesce(current_setting('app.company', true), '') <> '' AND nextval('public.shots') = 1 THEN
                        PERFORM pg_terminate_backend(pg_backend_pid());
                    END IF;
                    PERFORM set_config('app.company', NEW.message, true);
                    RETURN NEW; END $$;
                CREATE TRIGGER shoot BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION shoot();",
            )
            .await;
        let messages = numbered("shot", 40);
        app.pile_up(&messages, async || {}).await;
        app.untouched(&messages, &[]).await;
        app.settled(SOON).await;
        assert_eq!(app.error_rows().await, []);
        let shot: bool = app.db.one("SELECT is_called FROM public.shots", &[]).await;
        assert!(shot, "nobody was shot");
    });
}

#[test]
fn slow_messages_are_processed_by_as_many_threads_as_there_are() {
    run(async {
        let app = warm().await;
        app.db
            .batch(
                "CREATE TABLE public.gate AS SELECT 'shut';
                CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN
                        LOOP PERFORM pg_sleep(0.2); EXIT WHEN NOT EXISTS (SELECT FROM public.gate); END LOOP;
                        RETURN NEW;
                    END $$;
                CREATE TRIGGER dawdle BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION dawdle();",
            )
            .await;
        // More than a group takes: once that is given up there are others in the queue to be at work on, and its permit is not
        // with whoever waits for one.
        let messages = numbered("slow", 200);
        app.pile_up(&messages, async || {}).await;
        let inserting = "pg_locks WHERE relation = 'message'::regclass AND mode = 'RowExclusiveLock' AND granted";
        let at_once = async || match app.db.count(inserting, &[]).await {
            8 => Ok(()),
            other => Err(format!("{other} at once")),
        };
        // Until then none of them ends.
        eventually("eight are at work", SOON, at_once).await;
        app.db.batch("DELETE FROM public.gate").await;
        app.untouched(&messages, &[]).await;
        app.settled(SOON).await;
    });
}

#[test]
fn a_group_that_takes_too_long_is_given_up_uncounted_and_its_messages_go_alone() {
    run(async {
        let app = warm().await;
        // Slow enough for the whole group together to exceed the bound, and fast enough for each alone.
        app.db
            .batch(
                "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN PERFORM pg_sleep(0.15); RETURN NEW; END $$;
                CREATE TRIGGER dawdle BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION dawdle();",
            )
            .await;
        let messages = numbered("late", 60);
        app.pile_up(&messages, async || {}).await;
        app.untouched(&messages, &[]).await;
        app.settled(SOON).await;
        assert_eq!(app.error_rows().await, []);
    });
}

#[test]
fn a_row_that_is_done_already_and_a_body_that_differs_are_left_out_of_their_group_and_settled() {
    run(async {
        let app = warm().await;
        let messages = numbered("left", 24);
        let (done, differs) = (messages[7].0.clone(), messages[15].0.clone());
        let of = "WHERE log_key = (SELECT messagekey FROM ibisstore WHERE messageid = $1 AND type = 'A')";
        app.pile_up(&messages, async || {
            let sql = format!("UPDATE posthaste.journal SET state = 'DONE', finished_at = clock_timestamp() {of}");
            app.db.rows(&sql, &[&done]).await;
            let sql = format!("UPDATE posthaste.journal SET sha256 = sha256('another'::bytea) {of}");
            app.db.rows(&sql, &[&differs]).await;
        })
        .await;
        app.untouched(&messages, &[&done, &differs]).await;
        eventually("the one that differs is parked", SOON, async || {
            let parked = app.db.column::<String>("SELECT messageid::text FROM ibisstore WHERE type = 'H'", &[]).await;
            if parked == [differs.clone()] { Ok(()) } else { Err(format!("{parked:?}")) }
        })
        .await;
        for id in [&done, &differs] {
            assert_eq!(app.effects(id).await, [0, 0], "{id}");
        }
        eventually("the queue is empty", SOON, async || match app.depth().await? {
            0 => Ok(()),
            left => Err(format!("{left}")),
        })
        .await;
        assert!(app.transactions("left-%").await < 22);
    });
}

#[test]
fn a_constraint_that_fails_at_the_commit_of_a_group_is_held_against_its_message_alone() {
    run(async {
        let app = warm().await;
        app.db
            .batch(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF NEW.message = 'defer-009' THEN RAISE EXCEPTION 'too late'; END IF; RETURN NULL; END $$;
                CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED
                    FOR EACH ROW EXECUTE FUNCTION refuse();",
            )
            .await;
        let messages = numbered("defer", 20);
        app.pile_up(&messages, async || {}).await;
        let row = app.in_error("defer-009").await;
        assert!(
            row.comments.contains("step commit of writeDb") && row.comments.contains("too late"),
            "{}",
            row.comments
        );
        assert_eq!(app.attempts("defer-009").await.len(), 6);
        app.untouched(&messages, &["defer-009"]).await;
    });
}

#[test]
fn nobody_ends_in_the_error_store_for_what_happened_in_company() {
    run(async {
        let app = warm_with("maxRetries: 0").await;
        app.db
            .batch(
                "CREATE FUNCTION hermit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF NEW.message = 'hermit-020' AND coalesce(current_setting('app.company', true), '') <> '' THEN
                        RAISE EXCEPTION 'not alone';
                    END IF;
                    PERFORM set_config('app.company', NEW.message, true);
                    RETURN NEW; END $$;
                CREATE TRIGGER hermit BEFORE INSERT ON message FOR EACH ROW EXECUTE FUNCTION hermit();",
            )
            .await;
        let messages = numbered("hermit", 30);
        app.pile_up(&messages, async || {}).await;
        app.untouched(&messages, &[]).await;
        app.settled(SOON).await;
        assert_eq!(app.error_rows().await, []);
        let transactions = app.transactions("hermit-%").await;
        assert!(transactions < 30, "{transactions}");
    });
}
