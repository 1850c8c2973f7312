//! How messages come in, and back: accepting, adopting, claiming a resend.

use std::time::Duration;

use posthaste::model::{JournalState, Mode, SlotId, StoreType, TxId};
use posthaste::store::{Inserted, ResendClaim, ResendRequest, ResendWay, StoreError};
use tokio_postgres::NoTls;

use super::bench::{Bench, ME, destination, envelope, request};
use super::postgres::{Acceptance, Database, Row, fresh};
use super::statements::{self, Waits};
use crate::support::run;

const DAY: Duration = Duration::from_secs(86_400);

async fn accept(bench: &Bench, tx_id: TxId, id: &str) -> Result<Inserted, StoreError> {
    bench.store.accept(&request(tx_id, id)).await
}

pub fn acceptance(tx: u8, id: u8) -> Acceptance {
    Acceptance { tx, id, body: 5, mode: Mode::Own, queue: 0, max_attempts: 2, owner: ME }
}

#[test]
fn accepting_and_its_conflict_are_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let mut model = Database { live: vec![true], ..Database::default() };
        let ids: Vec<TxId> = (0..3).map(|_| TxId::mint()).collect();
        let slot = SlotId::new("log");
        // A new id, the same request again, another request with the same id, another id.
        for (tx, id) in [(0_u8, 1_u8), (0, 1), (1, 1), (2, 2)] {
            let real = accept(&bench, ids[usize::from(tx)], &id.to_string()).await.unwrap();
            let inserted = statements::accept_logged(&mut model, acceptance(tx, id)).unwrap();
            assert_eq!(real == Inserted::Yes, inserted, "{tx} {id}");
            statements::commit_acceptance(&mut model, tx);
            let winner = match bench.store.winner(&slot, &id.to_string()).await.unwrap() {
                Some(seen) => Some(bench.store.outlasting(seen).await.unwrap().tx_id),
                None => None,
            };
            assert_eq!(winner, statements::winner(&model, id).map(|row| ids[usize::from(row.tx)]));
        }
        assert_eq!(bench.store.winner(&slot, "3").await.unwrap(), None);
        assert!(statements::winner(&model, 3).is_none());
        for (tx, real) in (0..).zip(&ids) {
            let wanted = model.row(tx).cloned();
            let like = wanted.clone().unwrap_or_else(|| fresh(tx, 5, Mode::Own, 0, 2));
            assert_eq!(bench.read(*real, &like).await, wanted, "{tx}");
        }
    });
}

#[test]
fn accepting_waits_for_another_that_is_undecided_as_in_the_model() {
    run(async {
        let bench = Bench::new().await;
        let mut model = Database { live: vec![true], ..Database::default() };
        let (client, connection) = tokio_postgres::connect(&bench.url, NoTls).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(connection);
        let held = "BEGIN; INSERT INTO ibisstore (type, slotid, messageid, message, dedup_key, tx_id, root_id, sha256)
            VALUES ('A', 'log', '1', 'body', '1', gen_random_uuid(), gen_random_uuid(), 'x')";
        client.batch_execute(held).await.unwrap();
        assert_eq!(statements::accept_logged(&mut model, acceptance(0, 1)), Ok(true));

        let tx = TxId::mint();
        let refused = accept(&bench, tx, "1").await.unwrap_err();
        assert_eq!(refused.sqlstate(), Some("55P03"), "{refused}");
        assert_eq!(statements::accept_logged(&mut model, acceptance(1, 1)), Err(Waits));
        // What is not committed wins nothing.
        assert_eq!(bench.store.winner(&SlotId::new("log"), "1").await.unwrap(), None);
        assert!(statements::winner(&model, 1).is_none());

        client.batch_execute("ROLLBACK").await.unwrap();
        model.pending.clear();
        assert_eq!(accept(&bench, tx, "1").await.unwrap(), Inserted::Yes);
        assert_eq!(statements::accept_logged(&mut model, acceptance(1, 1)), Ok(true));
    });
}

#[test]
fn adopting_and_its_inbox_are_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let mut model = Database { live: vec![true], ..Database::default() };
        let mut adopted = Vec::new();
        // New, again, the same id on another queue, and twice without any id.
        for (tx, (queue, id)) in
            (0_u8..).zip([(0, Some(1_u8)), (0, Some(1)), (1, Some(1)), (0, Some(2)), (0, None), (0, None)])
        {
            let real_tx = TxId::mint();
            let (envelope, foreign) = (envelope(real_tx, "m"), id.map(|id| id.to_string()));
            let real = bench.store.adopt(&envelope, foreign.as_deref(), &destination(queue), 2).await.unwrap();
            let body = envelope.sha256()[0];
            let known = statements::adopt(&mut model, ME, id, &fresh(tx, body, Mode::Own, queue, 2));
            assert_eq!(real, known, "{queue} {id:?}");
            let like = fresh(tx, body, Mode::Own, queue, 2);
            assert_eq!(bench.read(real_tx, &like).await, model.row(tx).cloned(), "{queue} {id:?}");
            adopted.push(real);
        }
        assert_eq!(adopted, [true, false, true, true, true, true]);
    });
}

#[test]
fn claiming_a_resend_is_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        for kind in StoreType::ALL.iter().copied() {
            let given_up =
                Row { state: JournalState::Error, attempts: 2, log_key: None, ..fresh(0, 5, Mode::Own, 0, 2) };
            let mut placed = bench.place(vec![given_up.clone()]).await.remove(0);
            let sql = "INSERT INTO ibisstore (type, slotid, messageid, message, tx_id, root_id, sha256, attempts)
                       VALUES ($1::text::char(1), 'errors', 'm', 'body', $2, $2, $3, 2) RETURNING messagekey";
            let stored = bench.client.query_one(sql, &[&kind.as_str(), &placed.tx.0, &vec![5_u8]]).await.unwrap();
            let key = posthaste::model::MessageKey(stored.get(0));
            let model_key = placed.model.keep(kind, &given_up);
            // The first claims it; the second comes too late.
            for tx in [1_u8, 2] {
                let tx_id = TxId::mint();
                let slot_id = SlotId::new("errors");
                let request = ResendRequest {
                    slot_id: &slot_id,
                    key,
                    tx_id,
                    destination: &destination(0),
                    adapter: "a",
                    who: "operator",
                    why: None,
                    watch: DAY,
                    keep: DAY,
                    confirmed: false,
                    way: ResendWay::Pipeline,
                };
                let real = matches!(bench.store.claim_resend(&request).await.unwrap(), ResendClaim::Claimed(_));
                let model = statements::claim_resend(&mut placed.model, ME, model_key, tx, 0).is_some();
                assert_eq!(real, model, "{kind} {tx}");
                let wanted = placed.model.row(tx).cloned();
                let like = wanted.clone().unwrap_or_else(|| fresh(tx, 5, Mode::Direct, 0, 1));
                assert_eq!(bench.read(tx_id, &like).await, wanted, "{kind} {tx}");
            }
            let left = bench.db.count("ibisstore WHERE messagekey = $1", &[&key.0]).await;
            assert_eq!(usize::try_from(left).unwrap(), placed.model.store.len(), "{kind}");
        }
    });
}
