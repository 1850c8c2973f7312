//! What the core answers from reads, and what it leaves behind, on a real home whose standby is away.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use posthaste::dev::fresh_name;
use posthaste::model::{Destination, Envelope, Headers, Incarnation, MessageId, SlotId, TxId};
use posthaste::store::migrate::migrate;
use posthaste::store::{PostgresSettings, SessionTimeouts, Store, StoreError};
use posthaste::txn::Gtrid;
use posthaste::txn::ports::DecisionLog;
use uuid::Uuid;

use crate::support::{Database, LONG, Servers, Standby, WAITING, eventually, run, same, waiting};

const WATCH: Duration = Duration::from_secs(60);

/// A migrated home without any process, whose commits wait for a standby.
async fn home(statement: Duration) -> (Store, Database, Standby) {
    let servers = Servers::own().await;
    let url = servers.postgres.lock().await.create_database(&fresh_name("standby")).await.unwrap();
    let settings = PostgresSettings {
        name: "main".to_owned(),
        url: url.clone().into(),
        username: None,
        password: None,
        role: None,
        pool_max_size: 4,
        branches: 0,
    };
    migrate(&settings, true, &[], &mut Vec::new()).await.unwrap();
    let timeouts = SessionTimeouts { statement, ..SessionTimeouts::default() };
    let store = Store::new(std::slice::from_ref(&settings), "main", Incarnation::mint(), timeouts).unwrap();
    let standby = Standby::of(&servers).await;
    (store, Database::new(url.parse().unwrap()), standby)
}

const READ: &str = "
INSERT INTO ibisstore (type, slotid, messageid, message, dedup_key, tx_id, root_id, sha256, headers)
VALUES ('A', 'log', 'm', 'x', 'm', '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', 'h', '{}');
INSERT INTO posthaste.journal (tx_id, root_id, sha256, mode, destination, max_attempts, state, attempts)
VALUES ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', 'h', 'OWN', 'rabbit/q', 1, 'DONE', 1);
INSERT INTO posthaste.inbox (queue, message_id, tx_id) VALUES ('rabbit/q', 'f', '00000000-0000-0000-0000-000000000001');
INSERT INTO posthaste.decision (gtrid, incarnation, outcome, tx_id, branches)
VALUES ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', 'COMMIT',
        '00000000-0000-0000-0000-000000000001', '[]');";

/// Each way in which the core answers from something that it has read.
async fn ask_all(store: &Store) -> Vec<(&'static str, Result<(), StoreError>)> {
    let (id, slot) = (TxId(Uuid::from_u128(1)), SlotId::new("log"));
    let (message_id, queue) = (MessageId::parse("m").unwrap(), Destination::queue("rabbit", "q"));
    let envelope = Envelope {
        tx_id: TxId::mint(),
        root_id: TxId::mint().into(),
        message_id: message_id.clone(),
        correlation_id: message_id.clone(),
        content_type: None,
        headers: Headers::new(),
        body: "x".into(),
    };
    let winner = async {
        let seen = store.winner(&slot, "m").await?.expect("it is there");
        store.outlasting(seen).await
    };
    let gtrid = Gtrid(Uuid::from_u128(1));
    let asked = tokio::join!(
        winner,
        store.journal_row(id, WATCH),
        store.message_status(&slot, &message_id),
        store.adopt(&envelope, Some("f"), &queue, 1),
        store.outcomes(std::slice::from_ref(&gtrid)),
        store.committed(),
    );
    vec![
        ("winner", asked.0.map(drop)),
        ("journal_row", asked.1.map(|row| assert!(row.is_some()))),
        ("message_status", asked.2.map(|status| assert!(status.is_some()))),
        ("adopt", asked.3.map(|adopted| assert!(!adopted))),
        ("outcomes", asked.4.map(|outcomes| assert_eq!(outcomes.len(), 1))),
        ("committed", asked.5.map(|decisions| assert_eq!(decisions.len(), 1))),
    ]
}

#[test]
fn nothing_that_was_read_is_answered_with_before_a_write_of_our_own_is_on_the_standby() {
    run(async {
        let (store, db, mut standby) = home(SessionTimeouts::default().statement).await;
        db.batch(READ).await;
        for (what, answer) in ask_all(&store).await {
            assert!(answer.is_ok(), "{what}: {answer:?}");
        }
        standby.stop().await;
        let many = async { join_all((0..50).map(|_| ask_all(&store))).await };
        let one = async {
            waiting(&db, "/* durable */%").await;
            db.count(WAITING, &[&"%"]).await
        };
        let (answers, writes) = tokio::join!(many, one);
        assert_eq!(writes, 1, "one write for all that wait");
        for (what, answer) in answers.into_iter().flatten() {
            assert!(matches!(answer, Err(StoreError::Unknown(_))), "{what}: {answer:?}");
        }
        standby.start().await;
        for (what, answer) in ask_all(&store).await {
            assert!(answer.is_ok(), "{what}: {answer:?}");
        }
    });
}

#[test]
fn no_more_than_twice_a_pool_s_sessions_wait_for_a_standby_that_is_away() {
    run(async {
        let (store, db, mut standby) = home(Duration::from_millis(100)).await;
        let store = Arc::new(store);
        standby.stop().await;
        let slot = SlotId::new("log");
        let mut number = 0;
        // Each of them waits until its client gives it up.
        let refused = loop {
            let posts = (0..8).map(|one| {
                let (store, slot, key) = (Arc::clone(&store), slot.clone(), format!("{number}-{one}"));
                async move { store.record_conflict(&slot, &key, b"h", 1).await }
            });
            let answers = join_all(posts).await;
            assert!(answers.iter().all(Result::is_err), "{answers:?}");
            number += 1;
            let left = db.count(WAITING, &[&"/* record_conflict */%"]).await;
            assert!(left <= 16, "{left} sessions wait after {number} rounds");
            if let Some(Err(error @ StoreError::Unreachable(_))) = answers.into_iter().find(unreachable) {
                break error;
            }
        };
        assert!(refused.to_string().contains("still at work"), "{refused}");
        standby.start().await;
        let again = async || store.record_conflict(&slot, "again", b"h", 1).await.map_err(|error| error.to_string());
        eventually("there are places again", LONG, again).await;
        eventually("and nobody waits", LONG, async || same(db.count(WAITING, &[&"%"]).await, &0)).await;
    });
}

fn unreachable(answer: &Result<(), StoreError>) -> bool {
    matches!(answer, Err(StoreError::Unreachable(_)))
}
