//! Pages, filters, counts, one row.

use posthaste::model::{SlotId, StoreType};
use posthaste::store::{Cursor, Filter};
use serde_json::{Value, json};

use crate::home::Home;

#[tokio::test]
async fn each_row_that_was_there_stands_on_exactly_one_page_while_others_are_inserted() {
    let home = Home::start().await;
    let mut expected = Vec::new();
    for n in 0..25 {
        for (slot, kind) in [("s", "E"), ("s", "A"), ("s", "H"), ("t", "E")] {
            let (key, _) = home.stored(slot, kind, &format!("m{n}"), b"x").await;
            if slot == "s" && kind != "A" {
                expected.push(key);
            }
        }
    }
    expected.reverse();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = home.get(&format!("/api/v1/stores/s/messages?type=E,H&limit=7{cursor}")).await.json(200);
        seen.extend(page["items"].as_array().unwrap().iter().map(|row| row["key"].as_i64().unwrap()));
        // Newer rows come in between two pages, also with the same ids.
        home.stored("s", "E", "m1", b"new").await;
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, expected);
    home.end().await;
}

#[tokio::test]
async fn each_filter_keeps_what_it_says_and_nothing_else() {
    let home = Home::start().await;
    for n in 1..=4 {
        home.stored("s", "E", &format!("m{n}"), b"x").await;
    }
    let set = "UPDATE ibisstore SET correlationid = 'c-4', attempts = 9, comments = 'Disk 100% full_',
               messagedate = '2020-01-31T12:00:00Z' WHERE messageid = 'm4'";
    home.sql.execute(set, &[]).await.unwrap();
    let ids = async |query: &str| -> Vec<String> {
        let page = home.get(&format!("/api/v1/stores/s/messages?{query}")).await;
        page.items().iter().map(|row| row["messageId"].as_str().unwrap().to_owned()).collect()
    };
    for only_m4 in [
        "messageId=m4",
        "correlationId=c-4",
        "minAttempts=9",
        "text=100%25",
        "text=dISK",
        "text=full_",
        "to=2020-02-01",
        "from=2020-01-31&to=2020-01-31T12:00:01Z",
        "messageId=m4&correlationId=c-4&type=E",
    ] {
        assert_eq!(ids(only_m4).await, ["m4"], "{only_m4}");
    }
    for none in ["messageId=m5", "type=A", "minAttempts=10", "text=%25x", "to=2020-01-31", "messageId=m4&text=because"]
    {
        assert_eq!(ids(none).await, Vec::<String>::new(), "{none}");
    }
    assert_eq!(ids("from=2020-02-01").await, ["m3", "m2", "m1"]);
    assert_eq!(ids("").await, ["m4", "m3", "m2", "m1"]);
    home.get("/api/v1/stores/s/messages?status=E").await.problem(400);
    home.get("/api/v1/stores/s/messages?type=X").await.problem(400);
    home.get("/api/v1/stores/s/messages?limit=501").await.problem(400);
    home.end().await;
}

#[tokio::test]
async fn text_is_shown_as_it_is_other_bodies_in_base64_and_lists_show_none() {
    let home = Home::start().await;
    let (text, _) = home.stored("s", "E", "text", "caf\u{e9} \0".as_bytes()).await;
    let (binary, _) = home.stored("s", "E", "binary", &[0xff, 0x00]).await;
    let shown = home.get(&format!("/api/v1/stores/s/messages/{text}")).await.json(200);
    assert_eq!((&shown["message"], &shown["messageBase64"]), (&json!("caf\u{e9} \0"), &Value::Null));
    assert_eq!((&shown["key"], &shown["type"], &shown["size"]), (&json!(text), &json!("E"), &json!(7)));
    let shown = home.get(&format!("/api/v1/stores/s/messages/{binary}")).await.json(200);
    assert_eq!((&shown["message"], &shown["messageBase64"]), (&Value::Null, &json!("/wA=")));
    for row in home.get("/api/v1/stores/s/messages").await.items() {
        assert!(row.get("message").is_none() && row.get("messageBase64").is_none(), "{row}");
    }
    home.get(&format!("/api/v1/stores/other/messages/{text}")).await.problem(404);
    home.get("/api/v1/stores/s/messages/999999").await.problem(404);
    home.get("/api/v1/stores/s/messages/abc").await.problem(404);
    home.get("/api/v1/stores/%00/messages").await.problem(404);
    home.end().await;
}

#[tokio::test]
async fn a_slot_that_is_none_is_404_with_the_nearest_name_and_an_empty_one_is_empty() {
    let home = Home::start().await;
    home.stored("old", "H", "1", b"x").await;
    for path in [
        "/api/v1/stores/write-bd/messages",
        "/api/v1/stores/write-bd/messages?type=E",
        "/api/v1/stores/write-bd/messages/1",
    ] {
        let problem = home.get(path).await.problem(404);
        assert_eq!(problem["nearest"], "write-db", "{path}: {problem}");
    }
    assert_eq!(home.get("/api/v1/stores/olt/messages").await.problem(404)["nearest"], "old");
    assert!(home.get("/api/v1/stores/xyz/messages").await.problem(404).get("nearest").is_none());
    assert_eq!(home.get("/api/v1/stores/write-db/messages").await.items(), Vec::<Value>::new());
    assert_eq!(home.get("/api/v1/stores/old/messages?type=E").await.items(), Vec::<Value>::new());
    home.end().await;
}

#[tokio::test]
async fn what_would_be_ignored_in_a_query_is_refused() {
    let home = Home::start().await;
    let (key, _) = home.stored("write-db", "E", "m1", b"x").await;
    for path in [
        "/api/v1/stores?type=E",
        "/api/v1/adapters?state=STOPPED",
        "/api/v1/messages/m1?type=E",
        "/api/v1/transactions?gid=1",
        &format!("/api/v1/stores/write-db/messages/{key}?type=E"),
        "/api/v1/stores/write-db/messages?type=E&type=H",
        "/api/v1/stores/write-db/messages?messageid=m1",
    ] {
        home.get(path).await.problem(400);
    }
    home.get("/api/v1/stores?as=ann").await.json(200);
    home.end().await;
}

#[tokio::test]
async fn counts_tell_each_slot_and_type_its_receiver_and_what_nobody_claims() {
    let home = Home::start().await;
    home.stored("write-db", "E", "1", b"x").await;
    home.stored("write-db", "E", "2", b"x").await;
    home.stored("old", "H", "3", b"x").await;
    let stores = home.get("/api/v1/stores").await.items();
    let expected = json!([
        {"slotId": "old", "type": "H", "count": 1, "adapter": null, "orphaned": true},
        {"slotId": "write-db", "type": "E", "count": 2, "adapter": "writeDb"},
        {"slotId": "write-db-req", "type": "A", "count": 0, "adapter": "writeDbAsync"},
    ]);
    assert_eq!(json!(stores), expected);
    home.end().await;
}

/// 10⁵ log rows, and a handful of errors in the same slot and in another.
async fn with_many_rows() -> Home {
    let home = Home::start().await;
    let load =
        "INSERT INTO ibisstore (type, slotid, messageid, correlationid, message, tx_id, root_id, sha256, comments)
        SELECT CASE WHEN n % 20000 = 7 THEN 'E' ELSE 'A' END, CASE WHEN n % 3 = 0 THEN 'small' ELSE 'big' END,
               'm' || n, 'm' || n, convert_to(repeat('x', 100), 'UTF8'), g, g, '', 'comment ' || n
        FROM generate_series(1, 100000) AS n, LATERAL (SELECT gen_random_uuid() AS g WHERE n > 0) AS id";
    home.sql.execute(load, &[]).await.unwrap();
    home
}

/// All nodes of a plan as `node table index`.
fn nodes(plan: &Value, all: &mut Vec<String>) {
    let text = |name: &str| plan[name].as_str().unwrap_or("-");
    all.push(format!("{} {} {}", text("Node Type"), text("Relation Name"), text("Index Name")));
    for child in plan["Plans"].as_array().into_iter().flatten() {
        nodes(child, all);
    }
}

impl Home {
    /// The text of the statement that the store sent last under this name.
    async fn sent(&self, name: &str) -> Option<String> {
        let activity = "SELECT query FROM pg_stat_activity
            WHERE datname = current_database() AND starts_with(query, $1) ORDER BY query_start DESC LIMIT 1";
        let row = self.sql.query_opt(activity, &[&format!("/* {name} */")]).await.unwrap();
        row.map(|row| row.get(0))
    }

    /// The text of the first statement of a filtering page, which the second one follows at once: a lock holds it back.
    async fn floor_statement(&self, slot: &SlotId, filter: &Filter) -> String {
        self.sql.batch_execute("BEGIN; LOCK TABLE ibisstore IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let read = async {
            for _ in 0..500 {
                // Within a transaction the first look is kept for all later ones.
                self.sql.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
                if let Some(sent) = self.sent("browse_floor").await {
                    self.sql.batch_execute("ROLLBACK").await.unwrap();
                    return sent;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            panic!("it was not sent");
        };
        let (page, sent) = tokio::join!(self.store.browse_messages(slot, filter, None, 50), read);
        page.unwrap();
        sent
    }

    /// The plan of a statement for these values.
    async fn plan(&self, sent: &str, values: &str) -> Vec<String> {
        assert!(sent.len() < 16_000, "pg_stat_activity cuts longer ones: {sent}");
        self.plan_of(&format!("PREPARE sent AS {sent}; EXPLAIN (FORMAT JSON) EXECUTE sent ({values}); DEALLOCATE sent"))
            .await
    }

    async fn plan_of(&self, explain: &str) -> Vec<String> {
        let messages = self.sql.simple_query(explain).await.unwrap();
        let text: String = messages
            .iter()
            .filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            })
            .collect();
        let plan: Value = serde_json::from_str(&text).unwrap();
        let mut all = Vec::new();
        nodes(&plan[0]["Plan"], &mut all);
        all
    }
}

#[tokio::test]
async fn no_look_at_a_hundred_thousand_rows_scans_the_table() {
    let home = with_many_rows().await;
    let slot = SlotId::new("big");
    let id = posthaste::model::MessageId::parse("m77").unwrap();
    let (max, min) = (i64::MAX, i64::MIN);
    for analyzed in [false, true] {
        if analyzed {
            home.sql.batch_execute("VACUUM ANALYZE ibisstore").await.unwrap();
        }
        for (what, filter, types, value, index) in filters() {
            home.store.browse_messages(&slot, &filter, None, 50).await.unwrap();
            let values = format!("'big', '{{{types}}}', {max}, {min}, 51{value}");
            let sent = home.sent("browse_messages").await.unwrap();
            check(&home.plan(&sent, &values).await, index, what, analyzed);
        }
        let filter = Filter { min_attempts: Some(3), ..Filter::default() };
        let sent = home.floor_statement(&slot, &filter).await;
        let plan = home.plan(&sent, &format!("'big', '{{A,E,M,I,H,L}}', {max}, 19999")).await;
        check(&plan, "ibisstore_browse", "the floor", analyzed);
        home.store.slot_counts().await.unwrap();
        let sent = home.sent("slot_counts").await.unwrap();
        check(&home.plan(&sent, "100000").await, "ibisstore_browse", "counts", analyzed);
        home.store.slots().await.unwrap();
        let sent = home.sent("slots").await.unwrap();
        check(&home.plan_of(&format!("EXPLAIN (FORMAT JSON) {sent}")).await, "ibisstore_browse", "slots", analyzed);
        home.store.message_status(&slot, &id).await.unwrap();
        let sent = home.sent("message_status").await.unwrap();
        check(&home.plan(&sent, "'big', 'm77'").await, "ibisstore_dedup", "status", analyzed);
    }
    home.end().await;
}

fn check(plan: &[String], index: &str, what: &str, analyzed: bool) {
    let scanned = plan.iter().any(|node| node.starts_with("Seq Scan ibisstore"));
    assert!(!scanned, "{what}, analyzed: {analyzed}: {plan:#?}");
    assert!(plan.iter().any(|node| node.ends_with(index)), "{what}, analyzed: {analyzed}: {plan:#?}");
    // The primary key would deliver the order too, by walking over all other slots.
    assert!(!plan.iter().any(|node| node.ends_with("ibisstore_pkey")), "{what}, analyzed: {analyzed}: {plan:#?}");
}

/// A filter, its types and further values as they are bound, and the index that must serve it.
fn filters() -> Vec<(&'static str, Filter, &'static str, &'static str, &'static str)> {
    let all = Filter::default();
    let (every, browse) = ("A,E,M,I,H,L", "ibisstore_browse");
    vec![
        ("everything", all.clone(), every, "", browse),
        ("errors", Filter { types: vec![StoreType::Error], ..all.clone() }, "E", "", browse),
        ("log", Filter { types: vec![StoreType::Log], ..all.clone() }, "A", "", browse),
        ("one id", Filter { message_id: Some("m77".into()), ..all.clone() }, every, ", 'm77'", "ibisstore_dedup"),
        ("text", Filter { text: Some("ment 9".into()), ..all.clone() }, every, ", '%ment 9%'", browse),
        ("correlation", Filter { correlation_id: Some("m77".into()), ..all.clone() }, every, ", 'm77'", browse),
        ("attempts", Filter { min_attempts: Some(3), ..all }, every, ", 3", browse),
    ]
}

#[tokio::test]
async fn a_filter_that_finds_little_goes_through_all_rows_in_bounded_pages() {
    let home = with_many_rows().await;
    let slot = SlotId::new("big");
    let filter = Filter { text: Some("comment 77".into()), types: vec![StoreType::Log], ..Filter::default() };
    let expected: i64 = home
        .one("SELECT count(*) FROM ibisstore WHERE slotid = 'big' AND type = 'A' AND comments LIKE 'comment 77%'", &[])
        .await;
    let (mut found, mut pages, mut cursor) = (0, 0, None::<Cursor>);
    loop {
        let page = home.store.browse_messages(&slot, &filter, cursor, 500).await.unwrap();
        found += i64::try_from(page.messages.len()).unwrap();
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, expected);
    assert!((4..=10).contains(&pages), "66,662 rows at 20,000 a page: {pages}");
    let counts = home.store.slot_counts().await.unwrap();
    assert_eq!(counts.iter().map(|count| count.count).sum::<i64>(), 100_000);
    home.end().await;
}
