//! What clean-up removes, parks, and fences.

use posthaste::model::{JournalState, Mode, SlotId, StoreType, TxId};
use posthaste::store::Retention;

use super::bench::{Bench, OTHER, envelope, incarnation};
use super::postgres::{Database, Row, Stored, fresh};
use super::statements;
use crate::support::run;

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
        let mut model = Database { live: vec![true, true, false], ..Database::default() };
        assert!(bench.store.fence(incarnation(OTHER), 0).await.unwrap());
        statements::fence(&mut model, OTHER);
        let sql = "SELECT state = 'LIVE' FROM posthaste.instance ORDER BY incarnation";
        assert_eq!(bench.db.column::<bool>(sql, &[]).await, model.live);
    });
}
