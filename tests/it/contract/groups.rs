//! Messages that are accepted together: what is answered and left is what one statement each would have answered and left.

use std::collections::BTreeMap;
use std::sync::Arc;

use posthaste::model::{MessageId, Mode, SlotId, TxId};
use posthaste::store::{AcceptRequest, Inserted, Outgoing};
use serde_json::Value;
use tokio_postgres::NoTls;

use super::acceptance::acceptance;
use super::bench::{Bench, destination, request};
use super::postgres::{Database, fresh};
use super::statements;
use crate::support::run;

/// Everything that accepting may leave, but keys and times of the clock.
const LEFT: &str = "
SELECT 'log', to_jsonb(l) - 'messagekey' - 'messagedate' - 'expirydate'
       || jsonb_build_object('kept', round(extract(epoch FROM l.expirydate - l.messagedate)),
                             'now', l.messagedate > clock_timestamp() - interval '1 minute') FROM ibisstore l
UNION ALL
SELECT 'journal', to_jsonb(j) - 'log_key' - 'publish_after'
       || jsonb_build_object('waits', j.publish_after > clock_timestamp() + interval '1 second',
                             'logged', (SELECT l.tx_id FROM ibisstore l WHERE l.messagekey = j.log_key))
FROM posthaste.journal j
UNION ALL SELECT 'lineage', to_jsonb(k) FROM posthaste.lineage k
UNION ALL SELECT 'payload', to_jsonb(p) FROM posthaste.payload p
UNION ALL SELECT 'due', to_jsonb(d) FROM posthaste.due d
UNION ALL SELECT 'named', to_jsonb(n) FROM (SELECT unnest(tx_id || others) AS named FROM posthaste.unsettled) n
ORDER BY 1, 2";

impl Bench {
    async fn left(&self) -> Vec<(String, Value)> {
        let rows = self.client.query(LEFT, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn accept_singly(&self, requests: &[Arc<AcceptRequest>]) -> Vec<Inserted> {
        let mut answers = Vec::new();
        for request in requests {
            answers.push(self.store.accept(request).await.unwrap());
        }
        answers
    }
}

fn new(id: &str) -> Arc<AcceptRequest> {
    Arc::new(request(TxId::mint(), id))
}

/// By a process that stood still after it had made the id.
fn old(id: &str) -> Arc<AcceptRequest> {
    let two_minutes_ago = jiff::Timestamp::now().as_microsecond() - 120_000_000;
    Arc::new(request(TxId::mint_at(two_minutes_ago), id))
}

fn changed(id: &str, change: impl FnOnce(&mut AcceptRequest)) -> Arc<AcceptRequest> {
    let mut request = request(TxId::mint(), id);
    change(&mut request);
    Arc::new(request)
}

fn with_another_body(request: &mut AcceptRequest) {
    request.envelope.body = "another body".into();
    request.sha256 = request.envelope.sha256();
}

/// Every kind of message that a group may hold, in no order of slot or key.
fn of_every_kind() -> Vec<Arc<AcceptRequest>> {
    let sender = |queue, mode| Outgoing { tx_id: TxId::mint(), destination: destination(queue), mode, max_attempts: 4 };
    vec![
        new("new"),
        new("known"),
        changed("known-to-another-slot", |one| one.log.as_mut().unwrap().slot_id = SlotId::new("first")),
        new("Twice"),
        new("twice"),
        changed("twice", with_another_body),
        changed("known", with_another_body),
        old("late"),
        old("once-more"),
        new("once-more"),
        changed("to-many", |one| {
            one.outgoing.extend([sender(1, Mode::Handover), sender(0, Mode::Own)]);
        }),
        changed("known", |one| one.outgoing.push(sender(1, Mode::Own))),
        changed("unchecked", |one| one.log.as_mut().unwrap().dedup_key = None),
        changed("unchecked", |one| one.log.as_mut().unwrap().dedup_key = None),
        changed("furnished", |one| {
            one.envelope.headers = [("x-a".to_owned(), "\"ä\"".to_owned()), ("x-b".to_owned(), String::new())].into();
            one.envelope.content_type = Some("text/plain".to_owned());
            one.envelope.body = vec![0, 255, b'\'', b'\\', b','].into();
            one.log.as_mut().unwrap().retention = std::time::Duration::from_millis(3_600_250);
        }),
        changed("by-its-kin", |one| {
            let kin = MessageId::parse("kin").unwrap();
            one.envelope.correlation_id = kin.clone();
            one.log.as_mut().unwrap().dedup_key = Some(kin);
        }),
        changed("kin", |one| one.envelope.body = "".into()),
        changed("{},\"\\", |_| {}),
    ]
}

#[test]
fn a_group_answers_and_leaves_what_its_messages_would_one_by_one() {
    run(async {
        let (together, singly) = (Bench::new().await, Bench::new().await);
        let known = [new("known"), new("known-to-another-slot")];
        let messages = of_every_kind();
        for bench in [&together, &singly] {
            assert_eq!(bench.accept_singly(&known).await, [Inserted::Yes; 2]);
        }
        let answers = together.store.accept_group(&messages).await.unwrap();
        assert_eq!(answers, singly.accept_singly(&messages).await);
        let left = together.left().await;
        assert_eq!(left, singly.left().await);
        // What is compared is there.
        let (yes, no) = (Inserted::Yes, Inserted::Conflict);
        let wanted = [yes, no, yes, yes, yes, no, no, yes, yes, no, yes, no, yes, yes, yes, yes, no, yes];
        assert_eq!(answers, wanted);
        let mut tables: BTreeMap<&str, usize> = BTreeMap::new();
        for (table, _) in &left {
            *tables.entry(table.as_str()).or_default() += 1;
        }
        assert_eq!(tables, BTreeMap::from([("log", 14), ("journal", 16), ("lineage", 2), ("named", 16)]));
        for id in ["twice", "once-more", "known", "kin", "late"] {
            for slot in ["log", "first"].map(SlotId::new) {
                let winners = [&together, &singly].map(|bench| bench.store.winner(&slot, id));
                let winners = futures_util::future::join_all(winners).await;
                assert_eq!(winners[0].as_ref().unwrap(), winners[1].as_ref().unwrap(), "{id}");
            }
        }
    });
}

#[test]
fn a_group_is_its_messages_one_after_the_other_as_in_the_model() {
    run(async {
        let bench = Bench::new().await;
        let mut model = Database { live: vec![true], ..Database::default() };
        let ids: Vec<TxId> = (0..6).map(|_| TxId::mint()).collect();
        let slot = SlotId::new("log");
        // New, the same id in the same group, in the next, and among new ones.
        for group in [&[(0_u8, 2_u8), (1, 1), (2, 2)][..], &[(3, 2), (4, 1)], &[(5, 3)]] {
            let request = |(tx, id): &(u8, u8)| Arc::new(request(ids[usize::from(*tx)], &id.to_string()));
            let real = bench.store.accept_group(&group.iter().map(request).collect::<Vec<_>>()).await.unwrap();
            for ((tx, id), real) in group.iter().zip(real) {
                let inserted = statements::accept_logged(&mut model, acceptance(*tx, *id)).unwrap();
                statements::commit_acceptance(&mut model, *tx);
                assert_eq!(real == Inserted::Yes, inserted, "{tx} {id}");
            }
        }
        for (tx, real) in (0..).zip(&ids) {
            let wanted = model.row(tx).cloned();
            let like = wanted.clone().unwrap_or_else(|| fresh(tx, 5, Mode::Own, 0, 2));
            assert_eq!(bench.read(*real, &like).await, wanted, "{tx}");
        }
        for id in 1..=3 {
            let winner = match bench.store.winner(&slot, &id.to_string()).await.unwrap() {
                Some(seen) => Some(bench.store.outlasting(seen).await.unwrap().tx_id),
                None => None,
            };
            assert_eq!(winner, statements::winner(&model, id).map(|row| ids[usize::from(row.tx)]), "{id}");
        }
    });
}

#[test]
fn a_group_with_one_undecided_id_does_nothing_at_all_and_says_so_soon() {
    run(async {
        let bench = Bench::new().await;
        let (client, connection) = tokio_postgres::connect(&bench.url, NoTls).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(connection);
        let held = "BEGIN; INSERT INTO ibisstore (type, slotid, messageid, message, dedup_key, tx_id, root_id, sha256)
            VALUES ('A', 'log', 'held', 'body', 'held', gen_random_uuid(), gen_random_uuid(), 'x')";
        client.batch_execute(held).await.unwrap();
        let group: Vec<_> = ["before", "held", "later"].map(new).into_iter().collect();
        let started = std::time::Instant::now();
        let refused = bench.store.accept_group(&group).await.unwrap_err();
        assert_eq!(refused.sqlstate(), Some("55P03"), "{refused}");
        // Alone it would have waited for two seconds.
        assert!(started.elapsed().as_millis() < 1500, "{:?}", started.elapsed());
        assert_eq!(bench.left().await, []);

        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(bench.store.accept_group(&group).await.unwrap(), [Inserted::Yes; 3]);
    });
}

#[test]
fn a_group_with_data_that_postgres_does_not_take_does_nothing_at_all() {
    run(async {
        let bench = Bench::new().await;
        let bad = changed("bad", |one| one.envelope.headers = [("x".to_owned(), "a\0b".to_owned())].into());
        let refused = bench.store.accept_group(&[new("before"), bad, new("later")]).await.unwrap_err();
        assert_eq!(refused.sqlstate(), Some("22P05"), "{refused}");
        assert_eq!(bench.left().await, []);
    });
}
