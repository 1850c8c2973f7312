//! Known ids that came again with another body.

use serde_json::json;

use crate::home::Home;

#[tokio::test]
async fn each_conflict_stands_on_one_page_with_the_body_that_was_accepted() {
    let home = Home::start().await;
    let (key, _) = home.stored("req", "A", "m1", b"accepted").await;
    home.sql.execute("UPDATE ibisstore SET dedup_key = messageid", &[]).await.unwrap();
    let conflicts = "INSERT INTO posthaste.conflict (slotid, dedup_key, sha256, size, times)
        SELECT slot, 'm' || n, sha256(convert_to(slot || n, 'UTF8')), n, 1
        FROM generate_series(1, 9) n, unnest(ARRAY['req', 'other']) slot";
    home.sql.execute(conflicts, &[]).await.unwrap();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = home.get(&format!("/api/v1/conflicts?limit=4{cursor}")).await.json(200);
        let name = |one: &serde_json::Value| format!("{} {}", one["slotId"], one["id"]).replace('"', "");
        seen.extend(page["items"].as_array().unwrap().iter().map(name));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<String> =
        ["other", "req"].iter().flat_map(|slot| (1..=9).map(move |n| format!("{slot} m{n}"))).collect();
    assert_eq!(seen, expected);

    let [one] = home.get("/api/v1/conflicts?slotId=req&id=m1").await.items().try_into().unwrap();
    assert_eq!((&one["accepted"]["key"], &one["accepted"]["size"]), (&json!(key), &json!(8)), "{one}");
    let [other] = home.get("/api/v1/conflicts?slotId=other&id=m1").await.items().try_into().unwrap();
    assert!(other["accepted"].is_null(), "its log row is gone: {other}");
    assert!(home.get("/api/v1/conflicts?slotId=req&id=none").await.items().is_empty());
    home.end().await;
}

#[tokio::test]
async fn a_slot_that_is_none_and_words_that_would_be_ignored_are_refused() {
    let home = Home::start().await;
    let problem = home.get("/api/v1/conflicts?slotId=write-db-rq").await.problem(404);
    assert_eq!(problem["nearest"], "write-db-req");
    assert!(home.get("/api/v1/conflicts?slotId=write-db-req").await.items().is_empty());
    for wrong in ["slot=req", "limit=0", "cursor=x", "id=a&id=b", "id=%00"] {
        home.get(&format!("/api/v1/conflicts?{wrong}")).await.problem(400);
    }
    home.end().await;
}
