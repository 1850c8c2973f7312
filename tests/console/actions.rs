//! Start, stop, delete, bulk.

use posthaste::model::AdapterName;
use posthaste::pipeline::Wanted;
use posthaste::store::Wish;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::home::{Home, Reply};

impl Home {
    async fn audits(&self) -> Vec<(String, String, String, Option<String>)> {
        let sql = "SELECT who, what, target, why FROM posthaste.audit ORDER BY id";
        let rows = self.sql.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
    }

    async fn rows(&self) -> i64 {
        self.one("SELECT count(*) FROM ibisstore", &[]).await
    }
}

fn audit(who: &str, what: &str, target: &str, why: Option<&str>) -> (String, String, String, Option<String>) {
    (who.to_owned(), what.to_owned(), target.to_owned(), why.map(ToOwned::to_owned))
}

#[tokio::test]
async fn a_stop_is_on_record_before_it_is_shown_and_a_start_undoes_it() {
    let home = Home::start().await;
    let path = "/api/v1/adapters/writeTableMessage/stop";
    let request = home.request(Method::POST, path).header("X-Posthaste-As", "ann").json(&json!({"reason": "late"}));
    assert_eq!(Reply::of(request).await.json(200)["state"], "STOPPED");
    let shown = home.get("/api/v1/adapters").await.items();
    let states: Vec<_> = shown.iter().map(|one| (one["name"].clone(), one["state"].clone())).collect();
    let pair = |name: &str, state: &str| (json!(name), json!(state));
    assert_eq!(
        states,
        [pair("writeDb", "STARTING"), pair("writeDbAsync", "STARTED"), pair("writeTableMessage", "STOPPED")]
    );
    let wishes = home.store.adapter_wishes().await.unwrap();
    assert_eq!((wishes.len(), wishes[0].wish, wishes[0].changed_by.as_str()), (1, Wish::Stopped, "ann"));

    home.post("/api/v1/adapters/writeTableMessage/start?as=bob", &json!({})).await.json(200);
    assert_eq!(home.store.adapter_wishes().await.unwrap()[0].wish, Wish::Started);
    let expected =
        [audit("ann", "stop", "writeTableMessage", Some("late")), audit("bob", "start", "writeTableMessage", None)];
    assert_eq!(home.audits().await, expected);
    home.end().await;
}

#[tokio::test]
async fn a_wish_that_cannot_be_recorded_is_503_and_changes_nothing() {
    let home = Home::start().await;
    home.sql.batch_execute("ALTER TABLE posthaste.adapter_state RENAME TO gone").await.unwrap();
    let refused = home.post("/api/v1/adapters/writeTableMessage/stop", &json!({})).await;
    assert!(refused.status.is_server_error(), "{refused:?}");
    assert!(home.registry.is_started(&AdapterName::new("writeTableMessage")));
    home.store.house.close();
    let refused = home.post("/api/v1/adapters/writeTableMessage/stop", &json!({})).await;
    refused.problem(503);
    assert_eq!(
        (&refused.headers["x-outcome"], refused.headers.contains_key("retry-after")),
        (&"none".parse().unwrap(), true)
    );
    assert!(home.registry.is_started(&AdapterName::new("writeTableMessage")));
    home.end().await;
}

#[tokio::test]
async fn an_unknown_adapter_is_404_with_the_nearest_name() {
    let home = Home::start().await;
    let problem = home.post("/api/v1/adapters/writeTableMesage/stop", &json!({})).await.problem(404);
    assert_eq!(problem["nearest"], "writeTableMessage");
    assert!(home.post("/api/v1/adapters/qqq/stop", &json!({})).await.problem(404).get("nearest").is_none());
    assert!(home.store.adapter_wishes().await.unwrap().is_empty());
    home.end().await;
}

#[tokio::test]
async fn a_supervised_adapter_that_hangs_is_504_with_its_state_and_the_wish_stands() {
    let home = Home::start().await;
    let mut wanted = home.registry.wanted(&AdapterName::new("writeDb")).unwrap();
    let problem = home.post("/api/v1/adapters/writeDb/stop", &json!({})).await.problem(504);
    assert_eq!(problem["state"], "STARTING");
    assert_eq!(*wanted.borrow_and_update(), Wanted::Stopped);
    assert_eq!(home.store.adapter_wishes().await.unwrap()[0].wish, Wish::Stopped);
    home.end().await;
}

#[tokio::test]
async fn a_deleted_row_is_gone_and_who_did_it_is_on_record_with_the_message() {
    let home = Home::start().await;
    let (key, root) = home.stored("s", "E", "m1", b"body").await;
    let path = format!("/api/v1/stores/s/messages/{key}");
    let request = home.request(Method::DELETE, &path).header("X-Posthaste-As", "ann").body("{\"reason\":\"a test\"}");
    Reply::of(request).await.json(200);
    assert_eq!(home.rows().await, 0);
    assert_eq!(home.audits().await, [audit("ann", "delete", &format!("s/{key}"), Some("a test"))]);
    let found: Uuid = home.one("SELECT root_id FROM posthaste.audit", &[]).await;
    assert_eq!(found, root);
    let detail: Value = home.one("SELECT detail FROM posthaste.audit", &[]).await;
    assert_eq!((&detail["messageId"], &detail["size"]), (&json!("m1"), &json!(4)));
    assert!(!detail.to_string().contains("body"), "no payload on record: {detail}");
    home.delete(&path).await.problem(404);
    home.end().await;
}

#[tokio::test]
async fn a_log_row_that_still_detects_repeats_goes_only_by_force() {
    let home = Home::start().await;
    let (key, _) = home.stored("s", "A", "m1", b"x").await;
    let path = format!("/api/v1/stores/s/messages/{key}");
    let problem = home.delete(&path).await.problem(409);
    assert_eq!(problem["outcome"], "refused");
    assert_eq!((home.rows().await, home.audits().await.len()), (1, 0));
    home.delete(&format!("{path}?force=true")).await.json(200);
    assert_eq!((home.rows().await, home.audits().await.len()), (0, 1));

    let (expired, _) = home.stored("s", "A", "m2", b"x").await;
    home.sql.execute("UPDATE ibisstore SET expirydate = clock_timestamp()", &[]).await.unwrap();
    home.delete(&format!("/api/v1/stores/s/messages/{expired}")).await.json(200);
    home.end().await;
}

#[tokio::test]
async fn a_log_row_whose_message_is_on_its_way_is_kept_even_by_force() {
    let home = Home::start().await;
    let (key, root) = home.stored("s", "A", "m1", b"x").await;
    home.journal(root, root, "OWN", "READY", 0).await;
    home.sql.execute("UPDATE posthaste.journal SET log_key = $1", &[&key]).await.unwrap();
    let path = format!("/api/v1/stores/s/messages/{key}?force=true");
    home.delete(&path).await.problem(409);
    assert_eq!(home.rows().await, 1);
    home.sql.execute("UPDATE posthaste.journal SET state = 'DONE'", &[]).await.unwrap();
    home.delete(&path).await.json(200);
    home.end().await;
}

#[tokio::test]
async fn a_row_that_somebody_works_on_is_409_and_stays() {
    let mut home = Home::start().await;
    let (key, _) = home.stored("s", "E", "m1", b"x").await;
    let path = format!("http://{}/api/v1/stores/s/messages/{key}", home.address);
    let http = home.http.clone();
    let claim = home.sql.transaction().await.unwrap();
    claim.execute("SELECT FROM ibisstore FOR UPDATE", &[]).await.unwrap();
    Reply::of(http.delete(path)).await.problem(409);
    claim.rollback().await.unwrap();
    assert_eq!(home.rows().await, 1);
    home.end().await;
}

#[tokio::test]
async fn a_bulk_delete_by_keys_tells_what_failed_and_why() {
    let home = Home::start().await;
    let (one, _) = home.stored("s", "E", "m1", b"x").await;
    let (two, _) = home.stored("s", "E", "m2", b"x").await;
    let (log, _) = home.stored("s", "A", "m3", b"x").await;
    let (other, _) = home.stored("t", "E", "m4", b"x").await;
    let body = json!({"keys": [one, two, two, log, other], "reason": "clean"});
    let answer = home.post("/api/v1/stores/s/delete?as=ann", &body).await.json(200);
    assert_eq!((&answer["total"], &answer["succeeded"], &answer["untouched"]), (&json!(4), &json!(2), &json!(0)));
    let failed: Vec<_> =
        answer["failed"].as_array().unwrap().iter().map(|one| (&one["key"], &one["outcome"])).collect();
    assert_eq!(failed, [(&json!(log), &json!("refused")), (&json!(other), &json!("notFound"))]);
    assert_eq!(home.rows().await, 2);
    assert_eq!(home.audits().await.len(), 2);
    home.end().await;
}

#[tokio::test]
async fn a_bulk_delete_by_filter_takes_the_error_store_unless_told_otherwise() {
    let home = Home::start().await;
    for n in 0..600 {
        home.stored("s", "E", &format!("m{n}"), b"x").await;
    }
    home.stored("s", "H", "held", b"x").await;
    home.stored("s", "A", "logged", b"x").await;
    let one = home.post("/api/v1/stores/s/delete", &json!({"filter": {"messageId": "m5"}})).await.json(200);
    assert_eq!((&one["total"], &one["succeeded"]), (&json!(1), &json!(1)));
    let all = home.post("/api/v1/stores/s/delete", &json!({"filter": {}})).await.json(200);
    assert_eq!((&all["total"], &all["succeeded"], &all["more"]), (&json!(599), &json!(599), &json!(false)));
    assert_eq!(all["failed"], json!([]));
    assert_eq!(home.rows().await, 2);
    home.end().await;
}

#[tokio::test]
async fn a_bulk_action_without_a_clear_choice_does_nothing() {
    let home = Home::start().await;
    home.stored("s", "E", "m1", b"x").await;
    let too_many: Vec<i64> = (0..10_001).collect();
    for body in [
        json!({}),
        json!({"keys": [1], "filter": {}}),
        json!({"keys": too_many}),
        json!({"filter": {"typ": "E"}}),
        json!({"filter": {"type": ["E"]}}),
        json!({"key": [1]}),
    ] {
        home.post("/api/v1/stores/s/delete", &body).await.problem(400);
    }
    assert_eq!(home.rows().await, 1);
    home.end().await;
}

#[tokio::test]
async fn a_bulk_action_that_means_no_message_or_no_slot_is_404() {
    let home = Home::start().await;
    home.stored("write-db", "E", "m1", b"x").await;
    for act in ["resend", "delete"] {
        let nothing = json!({"filter": {"messageId": "m2"}});
        let problem = home.post(&format!("/api/v1/stores/write-db/{act}"), &nothing).await.problem(404);
        assert!(problem["detail"].as_str().unwrap().contains("write-db"), "{problem}");
        home.post(&format!("/api/v1/stores/write-db/{act}"), &json!({"keys": []})).await.problem(404);
        for body in [json!({"filter": {}}), json!({"keys": [1]})] {
            let problem = home.post(&format!("/api/v1/stores/write-bd/{act}"), &body).await.problem(404);
            assert_eq!(problem["nearest"], "write-db", "{act} {body}");
        }
    }
    let single = home.post("/api/v1/stores/write-bd/messages/1/resend", &json!({})).await.problem(404);
    assert_eq!(single["nearest"], "write-db");
    assert_eq!(home.delete("/api/v1/stores/write-bd/messages/1").await.problem(404)["nearest"], "write-db");
    assert_eq!(home.rows().await, 1);
    home.end().await;
}

#[tokio::test]
async fn an_action_whose_choice_would_be_ignored_does_nothing() {
    let home = Home::start().await;
    let (key, _) = home.stored("s", "E", "m1", b"x").await;
    let all = json!({"filter": {}});
    home.post("/api/v1/stores/s/delete?type=H", &all).await.problem(400);
    home.post("/api/v1/stores/s/delete", &json!({"filter": {"messageId": null}})).await.problem(400);
    let one = format!("/api/v1/stores/s/messages/{key}");
    home.delete(&format!("{one}?messageId=m2")).await.problem(400);
    Reply::of(home.request(Method::DELETE, &one).json(&json!({"filter": {"messageId": "m2"}}))).await.problem(400);
    home.post(&format!("{one}/resend"), &json!({"keys": [key + 1]})).await.problem(400);
    assert_eq!(home.rows().await, 1);
    home.end().await;
}

#[tokio::test]
async fn a_resend_answers_the_truth() {
    let home = Home::start().await;
    let (fits, _) = home.stored("write-db", "E", "fits", b"short").await;
    let (long, _) = home.stored("write-db", "E", "long", &[b'x'; 31]).await;
    let (orphan, _) = home.stored("old", "E", "orphan", b"x").await;
    let resend = async |slot: &str, key: i64| {
        home.post(&format!("/api/v1/stores/{slot}/messages/{key}/resend?as=ann"), &json!({"reason": "again"})).await
    };
    assert_eq!(resend("write-db", fits).await.json(200), json!({"outcome": "succeeded"}));
    let failed = resend("write-db", long).await.problem(422);
    assert_eq!(failed["outcome"], "failed");
    assert!(failed["step"].as_str().unwrap().contains("insert"), "{failed}");
    assert!(failed["reason"].as_str().unwrap().contains("too long"), "{failed}");
    assert_eq!(resend("old", orphan).await.problem(409)["outcome"], "refused");
    resend("write-db", fits).await.problem(404);
    let processed: Vec<String> =
        home.sql.query("SELECT message FROM message", &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(processed, ["short"]);
    let acts = home.audits().await;
    let mine = acts.iter().filter(|act| act.0 == "ann" && act.1 == "resend" && act.3.as_deref() == Some("again"));
    assert_eq!(mine.count(), 2, "{acts:?}");
    home.end().await;
}

#[tokio::test]
async fn a_bulk_resend_takes_the_oldest_first_and_tells_what_failed_and_why() {
    let home = Home::start().await;
    for n in 0..5 {
        let body = if n == 3 { vec![b'x'; 31] } else { format!("m{n}").into_bytes() };
        home.stored("write-db", "E", &format!("m{n}"), &body).await;
    }
    let answer = home.post("/api/v1/stores/write-db/resend", &json!({"filter": {}})).await.json(200);
    assert_eq!((&answer["total"], &answer["succeeded"]), (&json!(5), &json!(4)), "{answer}");
    let [failed] = answer["failed"].as_array().unwrap().as_slice() else { panic!("{answer}") };
    assert!(failed["reason"].as_str().unwrap().contains("too long"), "{answer}");
    assert!(failed["step"].as_str().unwrap().contains("insert"), "{answer}");
    let processed: Vec<String> =
        home.sql.query("SELECT message FROM message", &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(processed, ["m0", "m1", "m2", "m4"]);
    let left: String = home.one("SELECT string_agg(messageid, ',') FROM ibisstore", &[]).await;
    assert_eq!(left, "m3");
    home.end().await;
}
