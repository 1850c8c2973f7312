//! One message's whole life, and what its sender may know of it.

use posthaste::model::{MessageId, SlotId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::home::Home;

impl Home {
    async fn status(&self, slot: &str, id: &str) -> Option<&'static str> {
        let id = MessageId::parse(id).unwrap();
        self.store.message_status(&SlotId::new(slot), &id).await.unwrap().map(|status| status.state.as_str())
    }

    async fn trace(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/messages/{id}")).await.json(200)
    }

    async fn set(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }

    async fn failed_attempt(&self, tx_id: Uuid, n: i32, second: i64, outcome: &str) {
        let sql =
            "INSERT INTO posthaste.attempt (tx_id, n, adapter, step, started_at, finished_at, outcome, error, instance)
            VALUES ($1, $2, 'writeDb', 'insert', to_timestamp($3::bigint), NULL, $4, 'full', $1)";
        self.sql.execute(sql, &[&tx_id, &n, &second, &outcome]).await.unwrap();
    }
}

#[tokio::test]
async fn a_message_is_followed_from_acceptance_over_its_resend_to_the_end() {
    let home = Home::start().await;
    let (_, root) = home.stored("req", "A", "1001", b"x").await;
    assert_eq!(home.status("req", "1001").await, Some("processed"), "cleaned from the journal long ago");
    home.journal(root, root, "OWN", "READY", 0).await;
    assert_eq!(home.status("req", "1001").await, Some("accepted"));
    assert_eq!(home.trace("1001").await["state"], "accepted");
    home.set("UPDATE posthaste.journal SET state = 'PUBLISHED'").await;
    assert_eq!(
        (home.trace("1001").await["state"].clone(), home.status("req", "1001").await),
        ("accepted".into(), Some("accepted")),
        "the same word for whoever asks"
    );
    home.failed_attempt(root, 1, 100, "FAILED").await;
    home.set("UPDATE posthaste.journal SET state = 'READY', attempts = 1").await;
    assert_eq!(home.status("req", "1001").await, Some("retrying"));
    home.failed_attempt(root, 2, 200, "FAILED").await;
    home.set("UPDATE posthaste.journal SET state = 'ERROR', attempts = 2").await;
    let key = home.stored_of("err", "E", "1001", b"x", root).await;
    assert_eq!(home.status("req", "1001").await, Some("error"));
    assert_eq!(home.trace("1001").await["state"], "error");

    let resend = Uuid::now_v7();
    home.set("DELETE FROM ibisstore WHERE type = 'E'").await;
    let lineage = "INSERT INTO posthaste.lineage (root_id, tx_id, parent_id, cause) VALUES ($1, $2, $1, 'RESEND')";
    home.sql.execute(lineage, &[&root, &resend]).await.unwrap();
    home.journal(resend, root, "DIRECT", "READY", 0).await;
    let audit = "INSERT INTO posthaste.audit (who, what, target, root_id) VALUES ('ann', 'resend', $2, $1)";
    home.sql.execute(audit, &[&root, &format!("err/{key}")]).await.unwrap();
    assert_eq!(home.status("req", "1001").await, Some("retrying"));
    home.set("UPDATE posthaste.journal SET state = 'DONE', attempts = 1, finished_at = to_timestamp(300) WHERE mode = 'DIRECT'").await;
    assert_eq!(home.status("req", "1001").await, Some("processed"));

    let trace = home.trace("1001").await;
    assert_eq!((&trace["messageId"], &trace["state"]), (&json!("1001"), &json!("processed")));
    let message = &trace["messages"][0];
    let shown: Vec<_> =
        message["attempts"].as_array().unwrap().iter().map(|one| (&one["txId"], &one["n"], &one["outcome"])).collect();
    let (root, resend) = (json!(root), json!(resend));
    let (failed, succeeded) = (json!("FAILED"), json!("SUCCEEDED"));
    assert_eq!(shown, [(&root, &json!(1), &failed), (&root, &json!(2), &failed), (&resend, &json!(1), &succeeded)]);
    assert_eq!(trace["attempts"], message["attempts"]);
    assert_eq!(message["audit"][0]["who"], "ann");
    assert_eq!(message["journal"][1]["cause"], "RESEND");
    assert_eq!(message["store"][0]["type"], "A");
    assert!(!trace.to_string().contains("\"message\":"), "no body: {trace}");
    home.end().await;
}

#[tokio::test]
async fn a_message_of_others_is_found_by_the_id_in_its_payload() {
    let home = Home::start().await;
    let root = Uuid::now_v7();
    home.journal(root, root, "DIRECT", "DONE", 1).await;
    let payload = "INSERT INTO posthaste.payload (tx_id, message_id, message) VALUES ($1, 'foreign', 'x')";
    home.sql.execute(payload, &[&root]).await.unwrap();
    let trace = home.trace("foreign").await;
    assert_eq!((&trace["state"], &trace["messages"][0]["rootId"]), (&json!("processed"), &json!(root)));
    assert_eq!(trace["attempts"][0]["outcome"], "SUCCEEDED");
    home.end().await;
}

#[tokio::test]
async fn a_message_that_was_deleted_says_so_to_whoever_asks() {
    let home = Home::start().await;
    let (_, root) = home.stored("req", "A", "gone", b"x").await;
    home.journal(root, root, "OWN", "ERROR", 6).await;
    let key = home.stored_of("write-db", "E", "gone", b"x", root).await;
    let states = async || (home.trace("gone").await["state"].clone(), home.status("req", "gone").await);
    assert_eq!(states().await, ("error".into(), Some("error")));
    home.delete(&format!("/api/v1/stores/write-db/messages/{key}")).await.json(200);
    assert_eq!(states().await, ("deleted".into(), Some("deleted")));

    let (log, held) = home.stored("req", "A", "log", b"x").await;
    home.journal(held, held, "OWN", "DONE", 1).await;
    home.delete(&format!("/api/v1/stores/req/messages/{log}?force=true")).await.json(200);
    home.stored_of("req", "A", "log", b"x", held).await;
    assert_eq!(home.status("req", "log").await, Some("processed"), "deleting a log row deletes no message");
    home.end().await;
}

#[tokio::test]
async fn an_attempt_whose_instance_is_gone_has_crashed() {
    let home = Home::start().await;
    let (_, root) = home.stored("req", "A", "1", b"x").await;
    home.journal(root, root, "OWN", "PUBLISHED", 1).await;
    home.failed_attempt(root, 1, 100, "RUNNING").await;
    assert_eq!(home.trace("1").await["attempts"][0]["outcome"], "CRASHED", "nobody knows the instance");
    let live = "INSERT INTO posthaste.instance (incarnation, name, host, pid, configuration_hash) VALUES ($1, 'n', 'h', 1, '')";
    home.sql.execute(live, &[&root]).await.unwrap();
    assert_eq!(home.trace("1").await["attempts"][0]["outcome"], "RUNNING");
    home.set("UPDATE posthaste.instance SET state = 'FENCED'").await;
    assert_eq!(home.trace("1").await["attempts"][0]["outcome"], "CRASHED");
    home.set("UPDATE posthaste.instance SET stopping_at = now()").await;
    assert_eq!(home.trace("1").await["attempts"][0]["outcome"], "STOPPED", "it was told to");
    home.end().await;
}

#[tokio::test]
async fn the_same_id_in_two_slots_is_told_apart() {
    let home = Home::start().await;
    let (_, one) = home.stored("a", "A", "7", b"x").await;
    let (_, two) = home.stored("b", "A", "7", b"x").await;
    home.journal(one, one, "HANDOVER", "DONE", 0).await;
    home.journal(two, two, "OWN", "READY", 0).await;
    assert_eq!((home.status("a", "7").await, home.status("b", "7").await), (Some("enqueued"), Some("accepted")));
    let trace = home.trace("7").await;
    assert_eq!((trace["messages"].as_array().unwrap().len(), &trace["state"]), (2, &json!("accepted")));
    assert_eq!(home.status("c", "7").await, None);
    home.get("/api/v1/messages/8").await.problem(404);
    home.get("/api/v1/messages/a%20b").await.problem(404);
    home.end().await;
}
