//! `posthaste conflict list`.

use serde_json::{Value, json};

use super::{Fake, ended, golden};

fn conflict(id: &str, accepted: Value) -> Value {
    json!({"slotId": "write-db-req", "id": id, "sha256": "ab".repeat(32), "size": 7, "times": 2,
        "firstSeen": "2026-11-21T10:00:00Z", "lastSeen": "2026-11-21T11:00:00Z", "accepted": accepted})
}

#[tokio::test]
async fn conflicts_are_listed_with_the_body_that_was_accepted() {
    let accepted = json!({"key": 4, "messageId": "m1", "messageDate": "2026-11-21T10:00:00Z", "sha256": "cd".repeat(32),
        "size": 9});
    let items = [conflict("m1", accepted), conflict("m2", Value::Null)];
    let fake = Fake::answering(200, json!({"items": items, "next": null})).await;
    let output = fake.run(&["conflict", "list", "write-db-req", "--id", "a b"]).await;
    ended(&output, 0);
    golden("conflict-list", &output.stdout);
    assert_eq!(fake.asked()[0].1, "/api/v1/conflicts?as=cli&limit=50&slotId=write-db-req&id=a%20b");
}

#[tokio::test]
async fn without_a_conflict_it_says_so_and_pages_are_followed_up_to_the_limit() {
    let fake = Fake::answering(200, json!({"items": [], "next": null})).await;
    let output = fake.run(&["conflict", "list"]).await;
    ended(&output, 0);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no id came again with another body\n");
    let fake = Fake::answering(200, json!({"items": [conflict("m1", Value::Null)], "next": "more"})).await;
    let output = fake.run(&["conflict", "list", "--limit", "2", "--output", "json"]).await;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((answer["items"].as_array().unwrap().len(), &answer["more"]), (2, &json!(true)));
    assert!(fake.asked()[1].1.ends_with("limit=1&cursor=more"), "{:?}", fake.asked());
}
