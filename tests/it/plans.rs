//! Plans that sessions have kept, when a table is changed under them: no message pays for it (protocol §7).

use std::time::Duration;

use crate::support::{App, LONG, Options, SOON, Servers, eventually, run, same};

/// Steps whose plans a changed table breaks: by their results, and by the type of a parameter.
const ADAPTERS: &str = "adapters:
  - name: shelveAsync
    receiver: { listener: { api: { uriPattern: /shelve } }, messageLog: { slotId: shelve-req } }
    pipeline: [ { name: enqueue, amqpSender: { connection: rabbit, destinationName: shelve } } ]
  - name: shelve
    receiver: { maxRetries: 0, numThreads: 4, listener: { amqp: { connection: rabbit, destinationName: shelve } } }
    pipeline:
      - { name: put, query: { database: main, sql: 'INSERT INTO shelf (id, label) VALUES ($1, $2) RETURNING *', params: [ messageId, payload ] } }
      - { name: look, query: { database: main, sql: 'SELECT * FROM shelf WHERE id = $1', params: [ messageId ] } }
  - name: direct
    receiver: { listener: { api: { uriPattern: /direct } }, messageLog: { slotId: direct-req } }
    pipeline:
      - { name: put, query: { database: main, sql: 'INSERT INTO shelf (id, label) VALUES ($1, $2) RETURNING *', params: [ messageId, payload ] } }
  - name: brokenAsync
    receiver: { listener: { api: { uriPattern: /broken } }, messageLog: { slotId: broken-req } }
    pipeline: [ { name: enqueue, amqpSender: { connection: rabbit, destinationName: broken } } ]
  - name: broken
    receiver: { maxRetries: 1, retryScheme: 1sx1, numThreads: 1, listener: { amqp: { connection: rabbit, destinationName: broken } } }
    pipeline:
      - { name: raise, query: { database: main, sql: 'SELECT not_supported()' } }
";
const TABLES: &str = "CREATE TABLE public.shelf (id text PRIMARY KEY, label integer);
    CREATE FUNCTION public.not_supported() RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'this is not supported' USING ERRCODE = '0A000'; END $$";
/// Attempts that failed. Of one that was handed back and has no other there is a record though it succeeds.
const COUNTED: &str = "SELECT count(*) FROM posthaste.attempt WHERE outcome <> 'SUCCEEDED'";

impl App {
    async fn with_shelf() -> Self {
        let mut app = Self::lay_out(Servers::shared().await, Options::default()).await;
        app.write("configurations/plans/adapters.yml", ADAPTERS);
        app.migrate();
        app.db.batch(TABLES).await;
        app.run();
        app.ready(LONG).await;
        app
    }

    async fn shelve(&self, name: &str, count: usize, label: &str) {
        let posts = (0..count)
            .map(|number| async move { self.post_to("/api/shelve", &format!("{name}-{number}"), label).await.status });
        assert_eq!(futures_util::future::join_all(posts).await, vec![202; count]);
    }

    async fn shelved(&self, name: &str, count: usize) {
        let (like, wanted) = (format!("{name}-%"), i64::try_from(count).unwrap());
        let what = format!("all of {name} are on the shelf");
        eventually(&what, LONG, async || same(self.db.count("public.shelf WHERE id LIKE $1", &[&like]).await, &wanted))
            .await;
    }
}

#[test]
fn no_message_loses_an_attempt_when_a_table_is_changed_under_kept_plans() {
    run(async {
        let app = App::with_shelf().await;
        // Many at once, so that every session of the pool has its plans; and alone, without company.
        app.shelve("before", 60, "1").await;
        app.shelved("before", 60).await;
        for (round, change, label) in [
            ("column", "ALTER TABLE public.shelf ADD COLUMN note text", "2"),
            ("wider", "ALTER TABLE public.shelf ALTER COLUMN label TYPE bigint", "3000000000"),
            ("text", "ALTER TABLE public.shelf ALTER COLUMN label TYPE text USING label::text", "three"),
            ("bytes", "ALTER TABLE public.shelf ALTER COLUMN label TYPE bytea USING label::bytea", "bytes"),
            ("gone", "ALTER TABLE public.shelf DROP COLUMN note", "bytes"),
        ] {
            app.db.batch(change).await;
            app.shelve(round, 30, label).await;
            app.shelved(round, 30).await;
            app.shelve(&format!("{round}-alone"), 1, label).await;
            app.shelved(&format!("{round}-alone"), 1).await;
        }
        app.settled(SOON).await;
        assert_eq!(app.db.one::<i64>(COUNTED, &[]).await, 0);
        let errors = "SELECT comments::text FROM ibisstore WHERE type = 'E'";
        assert_eq!(app.db.column::<String>(errors, &[]).await, Vec::<String>::new());
    });
}

#[test]
fn a_client_is_answered_202_when_a_table_was_changed_under_kept_plans() {
    run(async {
        let app = App::with_shelf().await;
        let posts = (0..16).map(|number| {
            let app = &app;
            async move { app.post_to("/api/direct", &format!("before-{number}"), "1").await.status }
        });
        assert_eq!(futures_util::future::join_all(posts).await, vec![202; 16]);
        for (number, (change, label)) in [
            ("ALTER TABLE public.shelf ADD COLUMN note text", "2"),
            ("ALTER TABLE public.shelf ALTER COLUMN label TYPE text USING label::text", "three"),
        ]
        .into_iter()
        .enumerate()
        {
            app.db.batch(change).await;
            for again in 0..10 {
                let answer = app.post_to("/api/direct", &format!("after-{number}-{again}"), label).await;
                assert_eq!(answer.status, 202, "{answer:?}");
            }
        }
    });
}

#[test]
fn a_step_that_raises_what_a_stale_plan_would_uses_up_its_attempts() {
    run(async {
        let app = App::with_shelf().await;
        assert_eq!(app.post_to("/api/broken", "b-1", "x").await.status, 202);
        let errors = "SELECT comments::text FROM ibisstore WHERE type = 'E' AND messageid = 'b-1'";
        let said = eventually("b-1 is in the error store", Duration::from_secs(60), async || {
            let found: Vec<String> = app.db.column(errors, &[]).await;
            found.into_iter().next().ok_or_else(|| "nothing".to_owned())
        });
        assert!(said.await.contains("this is not supported"));
        let attempts = "SELECT attempts::bigint FROM ibisstore WHERE type = 'E' AND messageid = 'b-1'";
        assert_eq!(app.db.one::<i64>(attempts, &[]).await, 2);
    });
}
