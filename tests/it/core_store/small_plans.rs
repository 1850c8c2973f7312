//! Statements off the common path, in a session that began when the tables were small.

use std::time::Duration;

use posthaste::model::{Mode, SlotId, TxId};
use posthaste::store::{Excuse, GivenUpBy, ResendClaim, ResendRequest, ResendWay};

use super::{DAY, Home, MINUTE};
use crate::support::{SOON, eventually, run, same};

/// So often that PostgreSQL keeps a plan for all that follow.
const TIMES: usize = 8;
const MANY: i64 = 30_000;
/// Rows that were read one after the other, in sessions that have ended.
const READ: &str = "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables
    WHERE relname IN ('journal', 'ibisstore')";

impl Home {
    /// Started, excused, retried, given up, resent, and given up again.
    async fn life(&self, id: &str) {
        let (tx_id, errors) = (self.accepted(id, Mode::Own).await, SlotId::new("errors"));
        assert_eq!(self.start(tx_id).await, Some(1));
        assert!(self.store.excuse(&self.failed(tx_id, 1, "no space"), Excuse::Database).await.unwrap());
        assert!(self.store.retry(&self.failed(tx_id, 1, "no"), Duration::ZERO).await.unwrap());
        assert_eq!(self.start(tx_id).await, Some(2));
        let failed = self.failed(tx_id, 2, "no");
        let given_up = self.store.give_up(&failed, &errors, "here", GivenUpBy::Attempt);
        let request = ResendRequest {
            slot_id: &errors,
            key: given_up.await.unwrap().unwrap(),
            tx_id: TxId::mint(),
            destination: &self.queue,
            adapter: "a",
            who: "me",
            why: None,
            watch: MINUTE,
            keep: DAY,
            confirmed: false,
            way: ResendWay::Pipeline,
        };
        assert!(matches!(self.store.claim_resend(&request).await.unwrap(), ResendClaim::Claimed(_)));
        let failed = self.failed(request.tx_id, 1, "no");
        assert!(self.store.give_up(&failed, &errors, "here", GivenUpBy::Attempt).await.unwrap().is_some());
    }
}

#[test]
fn what_follows_a_failure_reads_no_whole_table_in_a_session_that_began_when_it_was_small() {
    run(async {
        let home = Home::new().await;
        for table in ["posthaste.journal", "ibisstore"] {
            home.execute(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).await;
        }
        home.life("first").await;
        home.db.batch("VACUUM ANALYZE posthaste.journal").await;
        home.db.batch("VACUUM ANALYZE ibisstore").await;
        for number in 0..TIMES {
            home.life(&format!("small-{number}")).await;
        }
        home.execute(&format!(
            "INSERT INTO posthaste.journal (tx_id, root_id, sha256, mode, destination, max_attempts, state)
             SELECT gen_random_uuid(), gen_random_uuid(), '', 'OWN', 'rabbit/q', 2, 'DONE' FROM generate_series(1, {MANY})"
        ))
        .await;
        home.execute(&format!(
            "INSERT INTO ibisstore (type, slotid, messageid, message, tx_id, root_id, sha256)
             SELECT 'A', 'log', 'many-' || n, '', gen_random_uuid(), gen_random_uuid(), '' FROM generate_series(1, {MANY}) n"
        ))
        .await;
        home.life("large").await;
        let Home { store, db, .. } = home;
        let me = format!("posthaste:{}", store.incarnation);
        drop(store);
        // A session counts for others once it has ended.
        let ended = async || same(db.count("pg_stat_activity WHERE application_name = $1", &[&me]).await, &0);
        eventually("our sessions have ended", SOON, ended).await;
        let read: i64 = db.one(READ, &[]).await;
        assert!(read < MANY / 2, "{read} rows were read one after the other");
    });
}
