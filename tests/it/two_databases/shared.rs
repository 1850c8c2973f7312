//! Messages that share a transaction over several databases, and answer for themselves all the same (protocol §7).

use std::collections::BTreeSet;

use super::{ledgers, other_server};
use crate::support::{App, LONG, Options, SOON, Servers, eventually, run, same};

const ADAPTER: &str = "transfer";
/// Every decision, with the messages that it names. The table itself forgets them soon.
const WATCH: &str = "CREATE TABLE public.decided (gtrid uuid, message text);
    CREATE FUNCTION keep_decided() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.decided SELECT NEW.gtrid, l.messageid FROM unnest(NEW.tx_id || NEW.others) one(tx_id)
            JOIN posthaste.journal j ON j.tx_id = one.tx_id JOIN ibisstore l ON l.messagekey = j.log_key;
        RETURN NEW; END $$;
    CREATE TRIGGER keep_decided BEFORE INSERT ON posthaste.decision FOR EACH ROW
        WHEN (NEW.outcome = 'COMMIT') EXECUTE FUNCTION keep_decided();";
/// The transfer that is named so takes its time when the home commits it first.
const SLOW_COMMIT: &str = "CREATE SEQUENCE public.naps;
    CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('public.naps') = 1 THEN PERFORM pg_sleep(3); END IF; RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON history DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.transfer = 'slow') EXECUTE FUNCTION dawdle();";
/// One that inserts a row in the home and in ledger A; and one that comes back home afterwards.
const ROWS: &str = "adapters:
  - name: notesAsync
    receiver: { listener: { api: { uriPattern: /notes } }, messageLog: { slotId: notes-req } }
    pipeline: [ { name: enqueue, amqpSender: { connection: rabbit, destinationName: notes } } ]
  - name: notes
    receiver: { maxRetries: 1, numThreads: 4, listener: { amqp: { connection: rabbit, destinationName: notes } } }
    pipeline:
      - { name: here, query: { database: main, sql: 'INSERT INTO note VALUES ($1)', params: [ messageId ] } }
      - { name: there, query: { database: ledgerA, sql: 'INSERT INTO note VALUES ($1)', params: [ messageId ] } }
  - name: returnsAsync
    receiver: { listener: { api: { uriPattern: /returns } }, messageLog: { slotId: returns-req } }
    pipeline: [ { name: enqueue, amqpSender: { connection: rabbit, destinationName: returns } } ]
  - name: returns
    receiver: { maxRetries: 1, numThreads: 4, listener: { amqp: { connection: rabbit, destinationName: returns } } }
    pipeline:
      - { name: here, query: { database: main, sql: 'INSERT INTO note VALUES ($1)', params: [ messageId ] } }
      - { name: there, query: { database: ledgerA, sql: 'INSERT INTO note VALUES ($1)', params: [ messageId ] } }
      - { name: again, query: { database: main, sql: 'UPDATE note SET note = note WHERE note = $1', params: [ messageId ] } }
";
const NOTE: &str = "CREATE TABLE public.note (note text PRIMARY KEY)";

/// `two-databases` with a receiver that knows by now that its messages are fast.
async fn warm(options: Options) -> App {
    let servers = match options.beside {
        Some(_) => Servers::own().await,
        None => Servers::shared().await,
    };
    let mut app = App::lay_out(servers, options).await;
    app.write("configurations/notes/adapters.yml", ROWS);
    app.edit_resources("  - name: ledgerA\n", "  - name: ledgerA\n    poolMaxSize: 20\n");
    app.migrate();
    app.db.batch(WATCH).await;
    for database in [app.db.clone(), app.database("ledgerA")] {
        database.batch(NOTE).await;
    }
    app.run();
    app.ready(LONG).await;
    let mut pile = 0;
    eventually("transfers share decisions", LONG, async || {
        pile += 1;
        let name = format!("warm{pile}");
        let ids = numbered(&name, 40);
        app.pile_of_transfers(&ids, async || {}).await;
        app.settled(LONG).await;
        let decisions = app.decisions(&name).await;
        if decisions <= 20 { Ok(()) } else { Err(format!("{decisions} for 40")) }
    })
    .await;
    app
}

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{number:03}")).collect()
}

impl App {
    /// Lets transfers of one pile up in the queue, does something, and lets them go. Who is called `poison` pays to an account
    /// that is not there.
    async fn pile_of_transfers(&self, ids: &[String], then: impl AsyncFnOnce()) {
        self.stop_adapter(ADAPTER).await;
        for id in ids {
            let to = if id == "poison" { "carol" } else { "bob" };
            assert_eq!(self.transfer(id, "alice", to, 1).await.status, 202, "{id}");
        }
        then().await;
        self.start_adapter(ADAPTER).await;
    }

    /// How many decisions name messages that are called so.
    async fn decisions(&self, name: &str) -> i64 {
        let sql = "SELECT count(DISTINCT gtrid) FROM public.decided WHERE message LIKE $1 || '-%'";
        self.db.one(sql, &[&name]).await
    }

    /// Who shared the decision that a message had.
    async fn company(&self, id: &str) -> BTreeSet<String> {
        let sql =
            "SELECT message FROM public.decided WHERE gtrid IN (SELECT gtrid FROM public.decided WHERE message = $1)";
        self.db.column::<String>(sql, &[&id]).await.into_iter().collect()
    }

    /// Each took effect once in every database, and nothing failed.
    async fn moved_once(&self, ids: &[String]) {
        for id in ids {
            self.transferred(id, LONG).await;
        }
        assert_eq!(self.books().await, Vec::<String>::new());
        self.nothing_in_doubt(LONG).await;
    }

    /// They took effect at the first attempt and without a record of any failure.
    async fn moved_at_first(&self, ids: &[String]) {
        self.moved_once(ids).await;
        let journal = "SELECT concat_ws(' ', j.state, j.attempts, (SELECT count(*) FROM posthaste.attempt a
                WHERE a.tx_id = j.tx_id))
            FROM posthaste.journal j JOIN ibisstore l ON l.messagekey = j.log_key WHERE l.messageid = $1";
        for id in ids {
            assert_eq!(self.db.column::<String>(journal, &[id]).await, ["DONE 1 0"], "{id}");
        }
    }

    /// Waits until a branch of a transaction with this message is prepared, and its home commits.
    async fn commits_slowly(&self) {
        eventually("a group is prepared", LONG, async || {
            let asleep = "pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
            let (prepared, asleep) = (self.prepared().await.len(), self.db.count(asleep, &[]).await);
            if prepared > 0 && asleep == 1 { Ok(()) } else { Err(format!("{prepared} prepared, {asleep} asleep")) }
        })
        .await;
    }
}

#[test]
fn transfers_that_wait_share_decisions_which_name_each_of_them() {
    run(async {
        let app = warm(ledgers()).await;
        let ids = numbered("many", 100);
        app.pile_of_transfers(&ids, async || {}).await;
        app.moved_at_first(&ids).await;
        let decisions = app.decisions("many").await;
        assert!(decisions <= 60, "{decisions} decisions for {} transfers", ids.len());
        let named: Vec<String> =
            app.db.column("SELECT message FROM public.decided WHERE message LIKE 'many-%' ORDER BY 1", &[]).await;
        assert_eq!(named, ids, "each by one decision");
        // What shares a decision shares a transaction in each of the databases.
        for (database, table) in [("main", "history"), ("ledgerA", "booking"), ("ledgerB", "booking")] {
            let sql = format!("SELECT count(DISTINCT xmin::text) FROM {table} WHERE transfer LIKE 'many-%'");
            assert_eq!(app.database(database).one::<i64>(&sql, &[]).await, decisions, "{database}");
        }
    });
}

#[test]
fn one_poison_among_32_transfers_fails_alone_and_harms_no_neighbour() {
    run(async {
        let app = warm(ledgers()).await;
        let mut ids = numbered("good", 32);
        ids[16] = "poison".to_owned();
        app.pile_of_transfers(&ids, async || {}).await;
        let row = app.in_error("poison").await;
        assert!(row.comments.contains("step book of transfer > giveToB"), "{}", row.comments);
        assert!(row.comments.contains("booking_account_fkey"), "{}", row.comments);
        ids.retain(|id| id != "poison");
        app.moved_at_first(&ids).await;
        assert_eq!((app.moved("poison").await, app.attempts("poison").await.len()), ([0, 0, 0], 1));
        let decisions = app.decisions("good").await;
        assert!(decisions < 31, "{decisions}");
    });
}

#[test]
fn a_constraint_that_fails_at_the_prepare_of_a_group_is_held_against_its_message_alone() {
    run(async {
        let app = warm(ledgers()).await;
        let deferred = "ALTER TABLE booking ALTER CONSTRAINT booking_account_fkey DEFERRABLE INITIALLY DEFERRED";
        app.database("ledgerB").batch(deferred).await;
        let mut ids = numbered("late", 20);
        ids[9] = "poison".to_owned();
        app.pile_of_transfers(&ids, async || {}).await;
        let row = app.in_error("poison").await;
        assert!(row.comments.contains("step commit of transfer"), "{}", row.comments);
        ids.retain(|id| id != "poison");
        app.moved_at_first(&ids).await;
        assert_eq!((app.moved("poison").await, app.attempts("poison").await.len()), ([0, 0, 0], 1));
    });
}

#[test]
fn a_process_that_is_killed_amid_the_commit_of_a_group_leaves_nothing_torn() {
    run(async {
        let mut app = warm(ledgers()).await;
        app.db.batch(SLOW_COMMIT).await;
        let mut ids = numbered("kill", 40);
        ids[20] = "slow".to_owned();
        app.pile_of_transfers(&ids, async || {}).await;
        app.commits_slowly().await;
        app.kill9().await;
        app.run();
        app.ready(LONG).await;
        app.moved_once(&ids).await;
        let company = app.company("slow").await;
        assert!(company.len() > 1, "{company:?}");
        assert_eq!(app.error_rows().await, []);
    });
}

#[test]
fn a_home_session_that_is_killed_amid_the_commit_of_a_group_counts_against_nobody() {
    run(async {
        let app = warm(ledgers()).await;
        app.db.batch(SLOW_COMMIT).await;
        let mut ids = numbered("cut", 40);
        ids[20] = "slow".to_owned();
        app.pile_of_transfers(&ids, async || {}).await;
        app.commits_slowly().await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE wait_event = 'PgSleep' AND datname = current_database()";
        app.db.rows(end, &[]).await;
        for id in &ids {
            app.transferred(id, LONG).await;
        }
        assert_eq!((app.books().await, app.error_rows().await), (vec![], vec![]));
        // Of the group, its coordinator has written that it is undone.
        eventually("one ABORT is left of it all", LONG, async || {
            let outcomes: Vec<String> = app.db.column("SELECT outcome FROM posthaste.decision", &[]).await;
            same((outcomes, app.prepared().await), &(vec!["ABORT".to_owned()], vec![]))
        })
        .await;
        let failed = "posthaste.attempt WHERE outcome = 'FAILED'";
        assert_eq!(app.db.count(failed, &[]).await, 0);
    });
}

#[test]
fn a_database_that_is_down_fails_nobody_of_a_group() {
    run(async {
        let other = other_server().await;
        let app = warm(Options { beside: Some(other.clone()), ..ledgers() }).await;
        let ids = numbered("down", 40);
        app.pile_of_transfers(&ids, async || other.lock().await.stop().await.unwrap()).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let counted = "posthaste.journal WHERE destination = 'rabbit/transfers' AND state <> 'DONE' AND attempts > 0";
        assert_eq!(app.db.count(counted, &[]).await, 0);
        other.lock().await.start_again().await.unwrap();
        app.moved_once(&ids).await;
        assert_eq!(app.error_rows().await, []);
    });
}

#[test]
fn rows_of_many_messages_go_in_few_statements_in_each_database_whose_table_cannot_tell() {
    run(async {
        let app = warm(ledgers()).await;
        let pile = async |name: &str| {
            app.stop_adapter("notes").await;
            for id in numbered(name, 60) {
                assert_eq!(app.post_to("/api/notes", &id, "").await.status, 202);
            }
            app.start_adapter("notes").await;
            app.settled(LONG).await;
            assert_eq!(app.error_rows().await, []);
            let statements = "SELECT count(DISTINCT (xmin::text, cmin::text)) FROM note WHERE note LIKE $1 || '-%'";
            let mut counted = Vec::new();
            for database in [app.db.clone(), app.database("ledgerA")] {
                assert_eq!(database.count("note WHERE note LIKE $1 || '-%'", &[&name]).await, 60);
                counted.push(database.one::<i64>(statements, &[&name]).await);
            }
            counted
        };
        let mut piles = 0;
        eventually("few statements in both", LONG, async || {
            piles += 1;
            let counted = pile(&format!("few{piles}")).await;
            if counted.iter().all(|count| *count <= 40) { Ok(()) } else { Err(format!("{counted:?}")) }
        })
        .await;
        let trigger = "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
            CREATE TRIGGER look AFTER INSERT ON note FOR EACH STATEMENT EXECUTE FUNCTION look()";
        app.database("ledgerA").batch(trigger).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let counted = pile("watched").await;
        assert_eq!(counted[1], 60, "each row by itself where a trigger counts them");
        assert!(counted[0] <= 40, "{counted:?}");
    });
}

#[test]
fn messages_that_come_back_to_a_database_after_another_go_alone() {
    run(async {
        let app = warm(ledgers()).await;
        app.stop_adapter("returns").await;
        for id in numbered("back", 40) {
            assert_eq!(app.post_to("/api/returns", &id, "").await.status, 202);
        }
        app.start_adapter("returns").await;
        app.settled(LONG).await;
        assert_eq!((app.decisions("back").await, app.error_rows().await), (40, vec![]));
        app.nothing_in_doubt(SOON).await;
    });
}

#[test]
fn a_transfer_that_is_done_already_is_left_out_of_its_group() {
    run(async {
        let app = warm(ledgers()).await;
        let ids = numbered("left", 24);
        let done = ids[7].clone();
        app.pile_of_transfers(&ids, async || {
            let sql = "UPDATE posthaste.journal SET state = 'DONE', finished_at = clock_timestamp()
                WHERE log_key = (SELECT messagekey FROM ibisstore WHERE messageid = $1 AND type = 'A')";
            app.db.rows(sql, &[&done]).await;
        })
        .await;
        let others: Vec<String> = ids.iter().filter(|id| **id != done).cloned().collect();
        app.moved_at_first(&others).await;
        assert_eq!(app.moved(&done).await, [0, 0, 0]);
        eventually("the queue is empty", SOON, async || same(app.depth().await?, &0)).await;
    });
}
