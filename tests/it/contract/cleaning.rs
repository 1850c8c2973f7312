//! What clean-up removes, parks, and fences.

use posthaste::model::{JournalState, Mode, SlotId, StoreType, TxId};
use posthaste::store::{Part, Retention};

use super::bench::{Bench, OTHER, envelope, incarnation};
use super::postgres::{Database, Row, Stored, fresh};
use super::statements;
use crate::support::{App, LONG, Options, Servers, eventually, run, same};

/// Every kind of stored row, expired or not, with each kind of kin in the journal and beside it.
fn situations() -> Vec<(StoreType, bool, JournalState, bool, Option<StoreType>)> {
    let mut all = Vec::new();
    for kind in StoreType::ALL.iter().copied() {
        for expired in [true, false] {
            for state in JournalState::ALL.iter().copied() {
                for past_keep in [true, false] {
                    for kin in [None, Some(StoreType::Error), Some(StoreType::Hold), Some(StoreType::SenderLog)] {
                        all.push((kind, expired, state, past_keep, kin));
                    }
                }
            }
        }
    }
    all
}

async fn store(bench: &Bench, kind: StoreType, tx: TxId, expired: bool) {
    let sql = "INSERT INTO ibisstore (type, slotid, messageid, message, tx_id, root_id, sha256, expirydate)
        VALUES ($1::text::char(1), 'log', 'm', 'body', $2, $2, 'x', clock_timestamp() + $3::int8 * interval '1 day')";
    let days = if expired { -1_i64 } else { 1 };
    bench.client.execute(sql, &[&kind.as_str(), &tx.0, &days]).await.unwrap();
}

#[test]
fn clean_up_is_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let situations = situations();
        let row = |state: JournalState, past_keep| {
            let past_keep = past_keep && matches!(state, JournalState::Done | JournalState::Error);
            Row { state, past_keep, ..fresh(0, 5, Mode::Own, 0, 2) }
        };
        let rows = situations.iter().map(|(_, _, state, past_keep, _)| row(*state, *past_keep)).collect();
        let mut placed = bench.place(rows).await;
        for (one, (kind, expired, _, _, kin)) in placed.iter_mut().zip(&situations) {
            for (kind, expired) in kin.iter().map(|kin| (*kin, false)).chain([(*kind, *expired)]) {
                store(&bench, kind, one.tx, expired).await;
                let key = one.model.next_key;
                one.model.next_key += 1;
                one.model.store.push(Stored { key, kind, tx: 0, root: 0, body: 5, dedup_key: None, expired });
            }
        }
        bench.store.clean_up(Retention::default()).await.unwrap().unwrap();
        let (mut gone, mut kept) = (0, 0);
        for (one, situation) in placed.iter_mut().zip(&situations) {
            statements::clean_log(&mut one.model);
            statements::clean_journal(&mut one.model);
            let sql = "SELECT type::text FROM ibisstore WHERE root_id = $1 ORDER BY messagekey";
            let left: Vec<String> =
                bench.client.query(sql, &[&one.tx.0]).await.unwrap().iter().map(|row| row.get(0)).collect();
            let wanted: Vec<&str> = one.model.store.iter().map(|row| row.kind.as_str()).collect();
            assert_eq!(left, wanted, "{situation:?}");
            let like = fresh(0, 5, Mode::Own, 0, 2);
            let row = bench.read(one.tx, &like).await;
            assert_eq!(row.is_some(), one.model.row(0).is_some(), "{situation:?}");
            if row.is_some() { kept += 1 } else { gone += 1 }
        }
        assert!(gone > 10 && kept > 10, "{gone} gone, {kept} kept");
    });
}

#[test]
fn parking_is_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let mut model = Database::default();
        let ids = [TxId::mint(), TxId::mint()];
        for tx in [0_u8, 0, 1] {
            let envelope = envelope(ids[usize::from(tx)], "m");
            bench.store.park(&envelope, &SlotId::new("errors"), "here", "why").await.unwrap();
            statements::park(&mut model, tx, 5);
            let held = bench.db.count("ibisstore WHERE type = 'H'", &[]).await;
            assert_eq!(usize::try_from(held).unwrap(), model.store.len());
        }
        assert_eq!(model.store.len(), 2);
    });
}

#[test]
fn fencing_is_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let mut model = Database { live: vec![true, true, false, false], ..Database::default() };
        assert!(bench.store.fence(incarnation(OTHER), 0).await.unwrap());
        statements::fence(&mut model, OTHER);
        let sql = "SELECT state = 'LIVE' FROM posthaste.instance ORDER BY incarnation";
        assert_eq!(bench.db.column::<bool>(sql, &[]).await, model.live);
    });
}

/// Log rows of one slot, in this order, each with a settled journal row: expired or not.
async fn settled(bench: &Bench, slot: &str, expired: &[bool]) -> Vec<TxId> {
    let rows =
        expired.iter().map(|_| Row { state: JournalState::Done, past_keep: true, ..fresh(0, 5, Mode::Own, 0, 2) });
    let rows = rows.map(|row| Row { log_key: Some(2), ..row }).collect();
    let placed: Vec<TxId> = bench.place(rows).await.into_iter().map(|one| one.tx).collect();
    for (tx, expired) in placed.iter().zip(expired) {
        store(bench, StoreType::Log, *tx, *expired).await;
    }
    bench.client.execute("UPDATE ibisstore SET slotid = $1 WHERE slotid = 'log'", &[&slot]).await.unwrap();
    placed
}

async fn left(bench: &Bench, table: &str) -> i64 {
    bench.db.count(table, &[]).await
}

async fn hold(bench: &Bench, tx: TxId) {
    store(bench, StoreType::Error, tx, false).await;
    bench.client.execute("UPDATE ibisstore SET slotid = 'errors' WHERE type = 'E'", &[]).await.unwrap();
}

#[test]
fn clean_up_neither_waits_for_rows_that_a_transaction_holds_nor_holds_it_up() {
    run(async {
        let bench = Bench::new().await;
        let placed = settled(&bench, "one", &[true; 3]).await;
        let held = placed[1].0;
        bench.client.batch_execute("BEGIN").await.unwrap();
        for sql in [
            "SELECT FROM ibisstore WHERE tx_id = $1 FOR NO KEY UPDATE",
            "SELECT FROM posthaste.journal WHERE tx_id = $1 FOR NO KEY UPDATE",
        ] {
            assert_eq!(bench.client.execute(sql, &[&held]).await.unwrap(), 1);
        }
        // A wait would end in an error.
        let removed = bench.store.clean_up(Retention::default()).await.unwrap().unwrap();
        assert_eq!((removed.log, removed.journal), (2, 2), "{removed:?}");
        for sql in [
            "UPDATE ibisstore SET comments = 'mine' WHERE tx_id = $1",
            "UPDATE posthaste.journal SET publishes = 7 WHERE tx_id = $1",
        ] {
            assert_eq!(bench.client.execute(sql, &[&held]).await.unwrap(), 1);
        }
        bench.client.batch_execute("COMMIT").await.unwrap();
        let removed = bench.store.clean_up(Retention::default()).await.unwrap().unwrap();
        assert_eq!((removed.log, removed.journal), (1, 1), "{removed:?}");
    });
}

#[test]
fn each_batch_of_clean_up_is_a_transaction_of_its_own() {
    run(async {
        let bench = Bench::new().await;
        settled(&bench, "one", &[true; 5]).await;
        settled(&bench, "two", &[true; 2]).await;
        bench
            .client
            .batch_execute(
                "CREATE TABLE public.deleted (what text, xid xid8, rows bigint);
                 CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     INSERT INTO public.deleted SELECT TG_TABLE_NAME, pg_current_xact_id(), count(*) FROM gone;
                     RETURN NULL; END $$;
                 CREATE TRIGGER note AFTER DELETE ON ibisstore REFERENCING OLD TABLE AS gone
                     FOR EACH STATEMENT EXECUTE FUNCTION public.note();
                 CREATE TRIGGER note AFTER DELETE ON posthaste.journal REFERENCING OLD TABLE AS gone
                     FOR EACH STATEMENT EXECUTE FUNCTION public.note();",
            )
            .await
            .unwrap();
        let by_twos = Retention { batch: 2, ..Retention::default() };
        let removed = bench.store.clean_up(by_twos).await.unwrap().unwrap();
        assert_eq!((removed.log, removed.journal), (7, 7), "{removed:?}");
        assert_eq!(left(&bench, "public.deleted WHERE rows > 2").await, 0);
        let (batches, transactions) =
            ("public.deleted WHERE rows > 0", "(SELECT DISTINCT xid FROM public.deleted WHERE rows > 0) x");
        assert_eq!(left(&bench, batches).await, 3 + 1 + 4);
        assert_eq!(left(&bench, transactions).await, 3 + 1 + 4);
    });
}

/// One round of each part as the process makes it.
async fn round(bench: &Bench, parts: &mut [Part]) -> u64 {
    let mut removed = 0;
    for part in parts {
        while {
            let batch = bench.store.clean(part, Retention::default(), 2).await.unwrap().unwrap();
            removed += batch.removed;
            batch.more
        } {}
        part.end_round();
    }
    removed
}

#[test]
fn clean_up_goes_on_where_it_stopped_and_passes_by_what_waits_until_it_looks_again() {
    run(async {
        let bench = Bench::new().await;
        let placed = settled(&bench, "one", &[true, true, true, true, true, false, false, false]).await;
        // A whole batch waits for a person.
        for tx in &placed[0..3] {
            hold(&bench, *tx).await;
        }
        let mut parts = bench.store.parts_to_clean().await.unwrap();
        // Of the log the fourth and the fifth, of the journal all that nothing holds.
        assert_eq!(round(&bench, &mut parts).await, 2 + 5);
        bench.client.execute("DELETE FROM ibisstore WHERE type = 'E'", &[]).await.unwrap();
        assert_eq!(round(&bench, &mut parts).await, 0, "what was passed by is not read again");
        bench
            .client
            .execute("UPDATE ibisstore SET expirydate = now() WHERE tx_id = $1", &[&placed[5].0])
            .await
            .unwrap();
        assert_eq!(round(&bench, &mut parts).await, 1, "it goes on at the first row that was too young");
        parts.iter_mut().for_each(Part::look_again);
        assert_eq!(round(&bench, &mut parts).await, 3 + 3);
        assert_eq!((left(&bench, "ibisstore").await, left(&bench, "posthaste.journal").await), (2, 0));
    });
}

#[test]
fn rows_of_every_slot_leave_and_one_that_stays_longer_holds_up_no_other_slot() {
    run(async {
        let bench = Bench::new().await;
        settled(&bench, "a", &[false, false, false, true]).await;
        settled(&bench, "b", &[true, true, true]).await;
        settled(&bench, "c", &[true, false, true]).await;
        let by_twos = Retention { batch: 2, ..Retention::default() };
        // The last row of `a` waits for those before it; `c` is read to its end, since each batch ends with an expired row.
        assert_eq!(bench.store.clean_up(by_twos).await.unwrap().unwrap().log, 3 + 1);
        assert_eq!(bench.store.clean_up(Retention::default()).await.unwrap().unwrap().log, 2);
        let left = "SELECT slotid::text FROM ibisstore ORDER BY messagekey";
        assert_eq!(bench.db.column::<String>(left, &[]).await, ["a", "a", "a", "c"]);
    });
}

#[test]
fn a_process_removes_what_is_past_its_time_and_nothing_else() {
    run(async {
        let mut app = App::install(Servers::shared().await, Options::default()).await;
        let rows = "INSERT INTO ibisstore (type, slotid, messageid, message, tx_id, root_id, sha256, expirydate)
            SELECT 'A', 'write-db-req', n::text, 'body', gen_random_uuid(), gen_random_uuid(), 'x',
                   now() + CASE WHEN n > 2500 THEN 1 ELSE -1 END * interval '1 day' FROM generate_series(1, 2510) n";
        app.db.rows(rows, &[]).await;
        app.run();
        app.ready(LONG).await;
        eventually("what has expired is gone", LONG, async || {
            let left = app.db.count("ibisstore WHERE expirydate < now()", &[]).await;
            same(left, &0)
        })
        .await;
        assert_eq!(app.db.count("ibisstore", &[]).await, 10);
    });
}

#[test]
fn what_never_expires_keeps_nothing_behind_it() {
    run(async {
        let bench = Bench::new().await;
        let for_ever = "INSERT INTO ibisstore (type, slotid, messageid, message, tx_id, root_id, sha256)
            SELECT 'A', 'log', 'm', 'body', id, id, 'x' FROM (SELECT gen_random_uuid() id FROM generate_series(1, 30)) n";
        bench.client.execute(for_ever, &[]).await.unwrap();
        for _ in 0..5 {
            store(&bench, StoreType::Log, TxId::mint(), true).await;
        }
        let removed = bench.store.clean_up(Retention { batch: 10, ..Retention::default() }).await.unwrap().unwrap();
        assert_eq!(removed.log, 5);
        let left: i64 = bench.client.query_one("SELECT count(*) FROM ibisstore", &[]).await.unwrap().get(0);
        assert_eq!(left, 30);
    });
}
