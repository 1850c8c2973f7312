//! Who needs no second phase: readers, the home alone, and two names of one database.

use super::{ledgers, other_server};
use crate::support::{App, LONG, Options, SOON, Servers, eventually, run, same};

/// One adapter that only reads in ledger A, one that touches the home alone, one that accepts in both.
const ADAPTERS: &str = "adapters:
  - name: readerAsync
    receiver: { listener: { api: { uriPattern: /reader } }, messageLog: { slotId: reader-req } }
    pipeline: [ { name: enqueue, amqpSender: { connection: rabbit, destinationName: reader } } ]
  - name: reader
    receiver: { maxRetries: 0, numThreads: 2, listener: { amqp: { connection: rabbit, destinationName: reader } } }
    pipeline:
      - { name: read, query: { database: ledgerA, sql: 'SELECT count(*) FROM account' } }
      - { name: note, query: { database: main, sql: 'INSERT INTO note VALUES ($1)', params: [ messageId ] } }
  - name: homeAsync
    receiver: { listener: { api: { uriPattern: /home } }, messageLog: { slotId: home-req } }
    pipeline: [ { name: enqueue, amqpSender: { connection: rabbit, destinationName: home } } ]
  - name: home
    receiver: { maxRetries: 0, numThreads: 2, listener: { amqp: { connection: rabbit, destinationName: home } } }
    pipeline:
      - { name: note, query: { database: main, sql: 'INSERT INTO note VALUES ($1)', params: [ messageId ] } }
  - name: opener
    receiver: { checkForDuplicates: true, listener: { api: { uriPattern: /open } }, messageLog: { slotId: open-req } }
    pipeline:
      - { name: note, query: { database: main, sql: 'INSERT INTO note VALUES ($1)', params: [ messageId ] } }
      - { name: open, query: { database: ledgerA, sql: 'INSERT INTO account VALUES ($1, 0)', params: [ messageId ] } }
";
/// Two entries for ledger A and one for the home, under other names.
const TWINS: &str = "adapters:
  - name: twinsAsync
    receiver: { listener: { api: { uriPattern: /twins } }, messageLog: { slotId: twins-req } }
    pipeline: [ { name: enqueue, amqpSender: { connection: rabbit, destinationName: twins } } ]
  - name: twins
    receiver: { maxRetries: 0, numThreads: 2, listener: { amqp: { connection: rabbit, destinationName: twins } } }
    pipeline:
      - { name: a, query: { database: ledgerA, sql: 'INSERT INTO twin VALUES ($1, 0)', params: [ messageId ] } }
      - { name: b, query: { database: alsoA, sql: 'UPDATE twin SET seen = seen + 1 WHERE id = $1', params: [ messageId ] } }
      - { name: c, query: { database: main, sql: 'INSERT INTO twin VALUES ($1, 0)', params: [ messageId ] } }
      - { name: d, query: { database: alsoMain, sql: 'UPDATE twin SET seen = seen + 1 WHERE id = $1', params: [ messageId ] } }
";
/// Decisions stay until the janitor's next round, a second later: whoever writes one is seen.
const WATCH: [&str; 3] = [
    "CREATE TABLE public.decided (gtrid uuid, branches int)",
    "CREATE FUNCTION keep_decided() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.decided VALUES (NEW.gtrid, jsonb_array_length(NEW.branches)); RETURN NEW; END $$",
    "CREATE TRIGGER keep_decided BEFORE INSERT ON posthaste.decision FOR EACH ROW EXECUTE FUNCTION keep_decided()",
];

impl App {
    async fn watch_decisions(&self) {
        for sql in WATCH {
            self.db.rows(sql, &[]).await;
        }
    }

    /// The number of branches of every decision so far.
    async fn decided(&self) -> Vec<i32> {
        self.db.column("SELECT branches FROM decided", &[]).await
    }

    pub(super) async fn post_note(&self, path: &str, id: &str) {
        assert_eq!(self.post_to(path, id, "note").await.status, 202);
    }

    pub(super) async fn noted(&self, id: &str, bound: std::time::Duration) {
        let noted = async || same(self.db.count("note WHERE note = $1", &[&id]).await, &1);
        eventually(&format!("{id} is noted"), bound, noted).await;
    }

    /// Transfers, and adapters of which one reads in ledger A and one stays at home; running.
    pub(super) async fn with_notes(options: Options) -> Self {
        let servers = match options.beside {
            Some(_) => Servers::own().await,
            None => Servers::shared().await,
        };
        let mut app = Self::lay_out(servers, options).await;
        app.write("configurations/notes/adapters.yml", ADAPTERS);
        app.edit_resources("  - name: ledgerA\n", "  - name: ledgerA\n    poolMaxSize: 20\n");
        app.migrate();
        app.db.rows("CREATE TABLE public.note (note text PRIMARY KEY)", &[]).await;
        app.run();
        app.ready(LONG).await;
        app
    }
}

#[test]
fn only_who_writes_to_another_database_takes_a_decision() {
    run(async {
        let app = App::with_notes(ledgers()).await;
        app.watch_decisions().await;
        for number in 0..5 {
            for path in ["/api/home", "/api/reader"] {
                let id = format!("{}-{number}", path.trim_start_matches("/api/"));
                app.post_note(path, &id).await;
                app.noted(&id, SOON).await;
            }
        }
        assert_eq!(app.decided().await, Vec::<i32>::new());
        assert_eq!(app.transfer("t-1", "alice", "bob", 25).await.status, 202);
        app.transferred("t-1", SOON).await;
        assert_eq!(app.decided().await, [2]);
        app.nothing_in_doubt(SOON).await;
    });
}

#[test]
fn readers_need_no_prepared_transactions_and_writers_are_told_that_there_are_none() {
    run(async {
        let other = other_server().await;
        let app = App::with_notes(Options { beside: Some(other.clone()), ..ledgers() }).await;
        {
            let mut other = other.lock().await;
            other.sql("ALTER SYSTEM SET max_prepared_transactions = 0").await.unwrap();
            other.stop().await.unwrap();
            other.start_again().await.unwrap();
        }
        app.post_note("/api/reader", "r-1").await;
        app.noted("r-1", LONG).await;
        assert_eq!(app.transfer("t-1", "alice", "bob", 25).await.status, 202);
        let row = app.in_error("t-1").await;
        assert!(row.comments.contains("prepared transactions are disabled"), "{}", row.comments);
        assert_eq!(app.moved("t-1").await, [0, 0, 0]);
    });
}

#[test]
fn two_entries_that_name_one_database_are_one_participant() {
    run(async {
        let mut app = App::lay_out(Servers::shared().await, ledgers()).await;
        let elsewhere = |url: &str| url.replace("@127.0.0.1:", "@localhost:");
        let more = format!(
            "postgres:\n  - name: alsoA\n    url: {}\n  - name: alsoMain\n    url: {}\n",
            elsewhere(&app.url_of("ledgerA")),
            elsewhere(&app.url_of("main"))
        );
        assert!(more.contains("@localhost:"), "{more}");
        app.edit_resources("postgres:\n", &more);
        app.write("configurations/twins/adapters.yml", TWINS);
        app.migrate();
        for database in [app.db.clone(), app.database("ledgerA")] {
            database.rows("CREATE TABLE public.twin (id text PRIMARY KEY, seen int)", &[]).await;
        }
        app.watch_decisions().await;
        app.run();
        app.ready(LONG).await;
        app.post_note("/api/twins", "w-1").await;
        // An update of what another transaction has inserted and not committed would find nothing.
        let seen = "SELECT coalesce(sum(seen), 0)::bigint FROM twin WHERE id = 'w-1'";
        for database in [app.db.clone(), app.database("ledgerA")] {
            let probe = async || same(database.one::<i64>(seen, &[]).await, &1);
            eventually("the second name saw what the first had written", SOON, probe).await;
        }
        assert_eq!(app.decided().await, [1]);
        app.nothing_in_doubt(SOON).await;
    });
}
