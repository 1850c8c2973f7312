//! What a step may do in a branch, and what becomes of what it may not.

use std::time::Duration;

use super::ledgers;
use crate::support::{App, SOON, Servers, eventually, run, same};

/// Beside the transfers: an adapter whose step in ledger A does what its message says, and one that accepts in both.
const ADAPTERS: &str = "adapters:
  - name: oddAsync
    receiver: { listener: { api: { uriPattern: /odd } }, messageLog: { slotId: odd-req } }
    pipeline: [ { name: enqueue, amqpSender: { connection: rabbit, destinationName: odd } } ]
  - name: odd
    receiver: { maxRetries: 0, numThreads: 2, transactionTimeout: 3s, listener: { amqp: { connection: rabbit, destinationName: odd } } }
    pipeline:
      - { name: note, query: { database: main, sql: 'INSERT INTO note VALUES ($1)', params: [ messageId ] } }
      - { name: do, query: { database: ledgerA, sql: 'SELECT odd($1)', params: [ payload ] } }
      - { name: check, query: { database: main, sql: 'SELECT 1 / length(note) FROM note' } }
  - name: both
    receiver: { checkForDuplicates: true, listener: { api: { uriPattern: /both } }, messageLog: { slotId: both-req } }
    pipeline:
      - { name: here, query: { database: main, sql: 'INSERT INTO note VALUES ($1)', params: [ payload ] } }
      - { name: there, query: { database: ledgerA, sql: 'INSERT INTO note VALUES ($1)', params: [ payload ] } }
";
const NOTE: &str = "CREATE TABLE public.note (note text PRIMARY KEY)";
const ODD: &str = "CREATE FUNCTION public.odd(what text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    CASE what
        WHEN 'temporary' THEN CREATE TEMPORARY TABLE scratch (x int);
        WHEN 'notify' THEN INSERT INTO note VALUES ('loud'); PERFORM pg_notify('ears', 'loud');
        WHEN 'whisper' THEN PERFORM pg_notify('ears', 'quiet');
        WHEN 'listen' THEN INSERT INTO note VALUES ('ears'); LISTEN ears;
        WHEN 'disguise' THEN
            INSERT INTO note VALUES (gen_random_uuid() || ' ' || current_user);
            PERFORM set_config('role', 'pg_monitor', false), set_config('search_path', 'pg_catalog', false);
        WHEN 'deceive' THEN
            INSERT INTO note VALUES (gen_random_uuid() || ' ' || current_user);
            PERFORM set_config('search_path', 'evil, pg_catalog', false);
        WHEN 'sleep' THEN INSERT INTO note VALUES ('tired'); PERFORM pg_sleep(60);
    END CASE;
END $$";
/// Says of every session that it is what it was, to whoever asks without naming the schema.
const EVIL: [&str; 2] = [
    "CREATE SCHEMA evil",
    "CREATE FUNCTION evil.concat_ws(text, VARIADIC text[]) RETURNS text LANGUAGE sql
    AS $$ SELECT current_setting('posthaste.session') $$",
];
/// The home's COMMIT refuses the note of w-2.
const LATE: [&str; 2] = [
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'too late'; END $$",
    "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON note DEFERRABLE INITIALLY DEFERRED
     FOR EACH ROW WHEN (NEW.note = 'w-2') EXECUTE FUNCTION refuse()",
];

impl App {
    async fn with_odd_steps() -> Self {
        let mut app = Self::lay_out(Servers::shared().await, ledgers()).await;
        app.write("configurations/odd/adapters.yml", ADAPTERS);
        app.edit_resources("  - name: ledgerA\n", "  - name: ledgerA\n    poolMaxSize: 20\n");
        app.migrate();
        app.db.rows(NOTE, &[]).await;
        for sql in [NOTE, ODD] {
            app.database("ledgerA").rows(sql, &[]).await;
        }
        app.run();
        app.ready(SOON).await;
        app
    }

    /// Rows of `note` in the home and in ledger A.
    async fn notes(&self) -> [i64; 2] {
        [self.db.count("note", &[]).await, self.database("ledgerA").count("note", &[]).await]
    }
}

#[test]
fn what_cannot_be_prepared_ends_in_the_error_store_with_postgresqls_own_reason() {
    run(async {
        let app = App::with_odd_steps().await;
        for (what, reason) in [
            ("temporary", "cannot PREPARE a transaction that has operated on temporary objects"),
            ("notify", "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"),
            ("listen", "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"),
        ] {
            assert_eq!(app.post_to("/api/odd", what, what).await.status, 202);
            let row = eventually("it is in the error store", SOON, async || {
                let rows = app.error_rows().await;
                rows.into_iter().find(|row| row.message_id == what).ok_or_else(|| "nothing there".to_owned())
            })
            .await;
            assert!(row.comments.contains("step commit of odd") && row.comments.contains(reason), "{}", row.comments);
        }
        assert_eq!(app.notes().await, [0, 0]);
        app.nothing_in_doubt(SOON).await;
        // The sessions that were refused serve on.
        assert_eq!(app.transfer("t-1", "alice", "bob", 25).await.status, 202);
        app.transferred("t-1", SOON).await;
    });
}

#[test]
fn a_step_in_a_branch_that_takes_too_long_is_ended_there_and_undone() {
    run(async {
        let app = App::with_odd_steps().await;
        assert_eq!(app.post_to("/api/odd", "slow", "sleep").await.status, 202);
        let row = app.in_error("slow").await;
        assert!(row.comments.contains("transactionTimeout") && row.comments.contains("3s"), "{}", row.comments);
        let asleep = "pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
        let a = app.database("ledgerA");
        eventually("the statement ends in its server", SOON, async || same(a.count(asleep, &[]).await, &0)).await;
        assert_eq!(app.notes().await, [0, 0]);
        app.nothing_in_doubt(SOON).await;
    });
}

#[test]
fn a_notification_of_a_branch_that_wrote_nothing_is_sent_after_the_decision_and_not_without_it() {
    run(async {
        let app = App::with_odd_steps().await;
        let (ears, mut heard) = app.database("ledgerA").listen("ears").await;
        // A note of no letters: the last step divides by its length.
        app.db.rows("INSERT INTO note VALUES ('')", &[]).await;
        assert_eq!(app.post_to("/api/odd", "w-1", "whisper").await.status, 202);
        let row = app.in_error("w-1").await;
        assert!(row.comments.contains("division by zero"), "{}", row.comments);
        app.db.rows("DELETE FROM note", &[]).await;
        for sql in LATE {
            app.db.rows(sql, &[]).await;
        }
        assert_eq!(app.post_to("/api/odd", "w-2", "whisper").await.status, 202);
        eventually("both are in the error store", SOON, async || same(app.error_rows().await.len(), &2)).await;
        assert_eq!(app.post_to("/api/odd", "w-3", "whisper").await.status, 202);
        let first = tokio::time::timeout(SOON, heard.recv()).await.unwrap();
        assert_eq!(first.as_deref(), Some("quiet"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(heard.try_recv().is_err(), "failed attempts were heard, too");
        assert_eq!(app.notes().await, [1, 0]);
        drop(ears);
    });
}

#[test]
fn an_accepting_pipeline_accepts_in_both_databases_or_answers_422_none() {
    run(async {
        let app = App::with_odd_steps().await;
        let accepted = app.post_to("/api/both", "b-1", "one").await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        assert_eq!(app.notes().await, [1, 1]);
        assert_eq!(app.post_to("/api/both", "b-1", "one").await.status, 304);

        app.db.rows("DELETE FROM note", &[]).await;
        let refused = app.post_to("/api/both", "b-2", "one").await;
        let problem = refused.problem(422);
        assert_eq!(refused.header("x-outcome"), "none");
        assert!(problem["detail"].as_str().unwrap().contains("SQLSTATE 23505"), "{problem}");
        assert!(!problem.to_string().contains("note_pkey"), "tables are nobody's business: {problem}");
        // It is for the operator.
        app.log_has("note_pkey").await;
        assert_eq!(app.notes().await, [0, 1]);
        assert_eq!(app.db.count("ibisstore WHERE messageid = 'b-2'", &[]).await, 0);
        app.nothing_in_doubt(SOON).await;

        app.database("ledgerA").rows("DELETE FROM note", &[]).await;
        assert_eq!(app.post_to("/api/both", "b-2", "one").await.status, 202);
        assert_eq!(app.notes().await, [1, 1]);
        app.nothing_in_doubt(SOON).await;
    });
}

#[test]
fn a_role_or_search_path_that_a_step_takes_on_neither_owns_what_is_prepared_nor_outlives_it() {
    run(async {
        let app = App::with_odd_steps().await;
        // More than there are sessions: each serves several.
        for number in 0..8 {
            assert_eq!(app.post_to("/api/odd", &format!("d-{number}"), "disguise").await.status, 202);
        }
        eventually("all are done", SOON, async || same(app.notes().await, &[8, 8])).await;
        let strangers = "note WHERE note NOT LIKE '% ' || current_user";
        assert_eq!(app.database("ledgerA").count(strangers, &[]).await, 0);
        assert_eq!(app.error_rows().await, []);
        for sql in EVIL {
            app.database("ledgerA").rows(sql, &[]).await;
        }
        for number in 0..8 {
            assert_eq!(app.post_to("/api/odd", &format!("e-{number}"), "deceive").await.status, 202);
        }
        eventually("all are done", SOON, async || same(app.notes().await, &[16, 16])).await;
        assert_eq!(app.error_rows().await, []);
        app.nothing_in_doubt(SOON).await;
    });
}
