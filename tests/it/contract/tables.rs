//! What steady load leaves of the tables, and the settings that keep them small.

use std::sync::Arc;
use std::time::Duration;

use posthaste::model::{Mode, TxId};
use posthaste::store::{
    AcceptRequest, Claim, FailedAttempt, Inserted, LogEntry, Mark, PostgresSettings, Retention, SessionTimeouts, Start,
    StartRequest, Store, Wanted,
};

use super::bench::{Bench, ME, WATCH, destination, incarnation, request};
use crate::support::{SOON, eventually, run, same};

const MESSAGES: usize = 1500;
const GROUP: usize = 250;
/// One of so many fails in its first attempt.
const FAILS: usize = 50;

/// What has been done to the journal since the beginning.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    inserted: i64,
    updated: i64,
    deleted: i64,
}

/// The number of the attempt that a start began.
async fn begun(store: &Store, tx_id: TxId, sha256: &[u8]) -> Option<i32> {
    let (destination, adapter, watch) = (&destination(0), "adapter", WATCH);
    let request = StartRequest { tx_id, destination, sha256, adapter, watch, max_attempts: 2, alone: true };
    match store.start(&request).await.unwrap() {
        Start::Begun { n, .. } => Some(n),
        Start::NotNow | Start::Alone => None,
    }
}

/// Another process: its connections end with it, and what they have counted is told when they end.
fn process(bench: &Bench) -> Store {
    let settings = PostgresSettings {
        name: "main".to_owned(),
        url: bench.url.clone().into(),
        username: None,
        password: None,
        role: None,
        pool_max_size: 2,
        branches: 0,
    };
    Store::new(std::slice::from_ref(&settings), "main", incarnation(ME), SessionTimeouts::default()).unwrap()
}

/// Expired when it is accepted: removed as soon as it is done.
fn short_lived(message_id: &str) -> Arc<AcceptRequest> {
    let mut request = request(TxId::mint(), message_id);
    request.log = request.log.map(|log| LogEntry { retention: Duration::ZERO, ..log });
    Arc::new(request)
}

async fn accept(store: &Store, cycle: usize, done: &mut Done) -> Vec<TxId> {
    let messages: Vec<_> = (0..MESSAGES).map(|n| short_lived(&format!("{cycle}-{n}"))).collect();
    for group in messages.chunks(GROUP) {
        let inserted = store.accept_group(group).await.unwrap();
        assert!(inserted.iter().all(|one| *one == Inserted::Yes));
    }
    done.inserted += i64::try_from(MESSAGES).unwrap();
    messages.iter().map(|message| message.envelope.tx_id).collect()
}

async fn process_all(store: &Store, open: &[TxId], done: &mut Done) {
    let (queue, sha256) = (destination(0), [5; 32]);
    let (failing, others): (Vec<_>, Vec<_>) = open.iter().enumerate().partition(|(n, _)| n % FAILS == 0);
    for group in others.chunks(GROUP) {
        let wanted: Vec<_> = group.iter().map(|(_, tx_id)| Wanted { tx_id: **tx_id, sha256: &sha256 }).collect();
        let transaction = store.begin_work().await.unwrap();
        assert_eq!(transaction.take_group(store, &queue, &wanted).await.unwrap().len(), group.len());
        transaction.commit(store).await.unwrap();
        done.updated += i64::try_from(group.len()).unwrap();
    }
    for (_, tx_id) in failing {
        let start = async |attempt| {
            assert_eq!(begun(store, *tx_id, &sha256).await, Some(attempt));
        };
        start(1).await;
        let failed = FailedAttempt {
            tx_id: *tx_id,
            destination: &queue,
            seen: 1,
            n: 1,
            adapter: "adapter",
            step: Some("step"),
            error: "the other side has said no, and has given no reason for it",
            took: Duration::ZERO,
        };
        assert!(store.retry(&failed, Duration::ZERO).await.unwrap());
        start(2).await;
        let claim = Claim { tx_id: *tx_id, destination: &queue, attempts: 2, started: true, sha256: &sha256 };
        let transaction = store.begin_work().await.unwrap();
        assert!(transaction.take(store, claim).await.unwrap().is_some());
        transaction.commit(store).await.unwrap();
        done.updated += 4;
    }
}

/// What autovacuum would do, if it came by now.
async fn vacuum(bench: &Bench) -> usize {
    let due = "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_stat_user_tables s ON s.relid = c.oid,
            LATERAL (SELECT coalesce(max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_threshold'),
                                     current_setting('autovacuum_vacuum_threshold'))::float8 AS threshold,
                            coalesce(max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_scale_factor'),
                                     current_setting('autovacuum_vacuum_scale_factor'))::float8 AS scale
                     FROM pg_options_to_table(c.reloptions)) set
        WHERE s.n_dead_tup > set.threshold + set.scale * greatest(c.reltuples, 0)";
    let tables: Vec<String> = bench.db.column(due, &[]).await;
    for table in &tables {
        bench.db.batch(&format!("VACUUM (ANALYZE) {table}")).await;
    }
    tables.len()
}

/// Bytes of each table and each index that grows with the load.
async fn sizes(bench: &Bench) -> Vec<(String, i64)> {
    let sql = "SELECT relname::text, pg_relation_size(oid) FROM pg_class
        WHERE relname ~ '^(journal|ibisstore|due)(_|$)' AND relkind IN ('r', 'i') AND relname !~ 'waiting'
        ORDER BY relname";
    bench.db.rows(sql, &[]).await.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn tables_stay_bounded_at_steady_load() {
    run(async {
        let bench = Bench::new().await;
        let at_once = Retention { journal: Duration::ZERO, ..Retention::default() };
        let (mut done, mut open, mut vacuumed) = (Done::default(), Vec::new(), 0);
        let mut early: Vec<(String, i64)> = Vec::new();
        for cycle in 0..18 {
            let store = process(&bench);
            let accepted = accept(&store, cycle, &mut done).await;
            process_all(&store, &open, &mut done).await;
            open = accepted;
            done.deleted += i64::try_from(store.clean_up(at_once).await.unwrap().unwrap().journal).unwrap();
            drop(store);
            let told = "SELECT n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE relname = 'journal'";
            eventually("the server has counted what was done", SOON * 3, async || {
                let row = bench.db.rows(told, &[]).await.remove(0);
                same(Done { inserted: row.get(0), updated: row.get(1), deleted: row.get(2) }, &done)
            })
            .await;
            vacuumed += vacuum(&bench).await;
            // A page of an index that one vacuuming has emptied is used again after the next; by now there were some.
            if cycle == 8 {
                early = sizes(&bench).await;
            }
        }
        assert!(vacuumed > 5 && early.len() > 8, "{vacuumed}, {early:?}");
        let most = i64::try_from(2 * MESSAGES).unwrap();
        assert!(bench.db.count("posthaste.journal", &[]).await <= most);
        assert!(bench.db.count("ibisstore", &[]).await <= most);
        let late = sizes(&bench).await;
        for ((name, before), (_, after)) in early.iter().zip(&late) {
            // Twice as many messages; what is not vacuumed has twice the size.
            let bound = before + (before / 2).max(8 * 8192);
            assert!(*after <= bound, "{name}: {before} bytes, then {after}; early {early:?}, late {late:?}");
        }
        let share = "SELECT n_tup_hot_upd::float8 / n_tup_upd FROM pg_stat_user_tables WHERE relname = $1";
        for table in ["journal", "attempt"] {
            let hot: f64 = bench.db.one(share, &[&table]).await;
            assert!(hot >= 0.95, "{table}: {hot} of the updates were heap-only");
        }
    });
}

#[test]
fn every_table_that_grows_with_the_load_has_settings_of_its_own() {
    run(async {
        let bench = Bench::new().await;
        let options = "SELECT array_to_string(reloptions, ' ') FROM pg_class WHERE oid = $1::text::regclass";
        let large = "autovacuum_vacuum_scale_factor=0.02 autovacuum_vacuum_threshold=5000 vacuum_truncate=off";
        let small = "autovacuum_vacuum_scale_factor=0 autovacuum_vacuum_threshold=1000 \
                     autovacuum_vacuum_cost_delay=0 vacuum_truncate=off";
        let wide =
            "SELECT array_to_string(t.reloptions, ' ') FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid
            WHERE c.oid = $1::text::regclass";
        for table in ["ibisstore", "posthaste.payload", "posthaste.attempt"] {
            assert_eq!(bench.db.one::<String>(wide, &[&table]).await, "vacuum_truncate=off", "{table}");
        }
        for (table, wanted) in [
            ("ibisstore", large.to_owned()),
            ("posthaste.journal", format!("fillfactor=50 {large}")),
            ("posthaste.payload", large.to_owned()),
            ("posthaste.lineage", large.to_owned()),
            ("posthaste.inbox", large.to_owned()),
            ("posthaste.attempt", format!("fillfactor=85 {large}")),
            ("posthaste.due", small.to_owned()),
            ("posthaste.unsettled", small.to_owned()),
            ("posthaste.decision", small.to_owned()),
        ] {
            assert_eq!(bench.db.one::<String>(options, &[&table]).await, wanted, "{table}");
        }
    });
}

#[test]
fn no_statement_that_was_prepared_on_a_small_journal_reads_all_of_a_large_one() {
    run(async {
        let bench = Bench::new().await;
        let store = process(&bench);
        let everything = async |name: String| {
            let message = short_lived(&name);
            let tx_id = message.envelope.tx_id;
            assert_eq!(store.accept_group(&[message]).await.unwrap(), [Inserted::Yes]);
            store.postpone(&[tx_id.0], Duration::ZERO).await.unwrap();
            let rows = store.due_rows(10).await.unwrap();
            assert_eq!(store.claim(&rows, Duration::from_secs(60)).await.unwrap().len(), 1);
            let mark = Mark { tx_id, attempts: 0, mode: Mode::Own, published_at: 1 };
            assert_eq!(store.mark(&[mark], Duration::from_secs(60)).await.unwrap(), 1);
            assert_eq!(begun(&store, tx_id, &[5; 32]).await, Some(1));
            store.clean_up(Retention::default()).await.unwrap().unwrap();
        };
        // After five times a plan may be kept.
        for n in 0..8 {
            everything(n.to_string()).await;
        }
        let many = "INSERT INTO posthaste.journal
                (tx_id, root_id, sha256, mode, destination, max_attempts, state, attempts, finished_at)
            SELECT gen_random_uuid(), gen_random_uuid(), 'x', 'OWN', 'rabbit/mine', 2, 'DONE', 1, clock_timestamp()
            FROM generate_series(1, 300000)";
        bench.client.execute(many, &[]).await.unwrap();
        everything("last".to_owned()).await;
        drop(store);
        let read = "SELECT n_tup_upd, seq_tup_read FROM pg_stat_user_tables WHERE relname = 'journal'";
        let read = eventually("the server has counted what was done", SOON * 3, async || {
            let row = bench.db.rows(read, &[]).await.remove(0);
            let updated: i64 = row.get(0);
            same(updated, &(9 * 3)).map(|()| row.get::<_, i64>(1))
        })
        .await;
        assert!(read < 300_000, "{read} rows of the journal were read one after the other");
    });
}

#[test]
fn a_compare_and_set_that_was_planned_on_an_empty_journal_looks_rows_up_by_their_key() {
    run(async {
        let bench = Bench::new().await;
        let store = process(&bench);
        // With statistics of an empty table the planner may well want all of it.
        bench.client.batch_execute("VACUUM ANALYZE posthaste.journal").await.unwrap();
        let take = async |tx_id: TxId| {
            let transaction = store.begin_work().await.unwrap();
            let wanted = [Wanted { tx_id, sha256: &[5; 32] }];
            let taken = transaction.take_group(&store, &destination(0), &wanted).await.unwrap().len();
            transaction.commit(&store).await.unwrap();
            taken
        };
        assert_eq!(take(TxId::mint()).await, 0);
        let many = "INSERT INTO posthaste.journal
                (tx_id, root_id, sha256, mode, destination, max_attempts, state, attempts, finished_at)
            SELECT gen_random_uuid(), gen_random_uuid(), 'x', 'OWN', 'rabbit/mine', 2, 'DONE', 1, clock_timestamp()
            FROM generate_series(1, 100000)";
        bench.client.execute(many, &[]).await.unwrap();
        for n in 0..3 {
            let message = short_lived(&n.to_string());
            let tx_id = message.envelope.tx_id;
            assert_eq!(store.accept_group(&[message]).await.unwrap(), [Inserted::Yes]);
            assert_eq!(take(tx_id).await, 1);
        }
        drop(store);
        let read = "SELECT n_tup_upd, seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'journal'";
        let read = eventually("the server has counted what was done", SOON * 3, async || {
            let row = bench.db.rows(read, &[]).await.remove(0);
            same(row.get::<_, i64>(0), &3).map(|()| row.get::<_, i64>(1))
        })
        .await;
        assert!(read < 1000, "{read} rows of the journal were read");
    });
}
