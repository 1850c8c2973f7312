//! What web pages cannot do, and the shape of every refusal.

use posthaste::console::{Part, Reason};
use reqwest::Method;
use serde_json::{Value, json};

use crate::home::{Home, Reply};

#[tokio::test]
async fn a_web_page_can_neither_delete_nor_read() {
    let home = Home::start().await;
    let (key, _) = home.stored("s", "E", "m1", b"x").await;
    let path = format!("/api/v1/stores/s/messages/{key}");
    let own = format!("http://localhost:{}", home.address.port());
    let foreign = [
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Host", "evil.example"),
        ("Host", "evil.example:8081"),
    ];
    for (name, value) in foreign {
        for method in [Method::DELETE, Method::GET] {
            Reply::of(home.request(method, &path).header(name, value)).await.problem(403);
        }
    }
    let all = home.request(Method::POST, "/api/v1/stores/s/delete").header("Origin", "http://evil.example");
    Reply::of(all.json(&json!({"filter": {}}))).await.problem(403);
    let left: i64 = home.one("SELECT count(*) FROM ibisstore", &[]).await;
    assert_eq!(left, 1);
    let host = format!("localhost:{}", home.address.port());
    let allowed = home.request(Method::DELETE, &path).header("Origin", own).header("Host", host);
    Reply::of(allowed.header("Sec-Fetch-Site", "same-origin")).await.json(200);
    home.end().await;
}

#[tokio::test]
async fn every_error_is_a_problem_and_every_answer_forbids_sniffing_and_storing() {
    let home = Home::start().await;
    let no_path = home.get("/api/v1/nothing").await;
    no_path.problem(404);
    let wrong_method = home.delete("/api/v1/stores").await;
    wrong_method.problem(405);
    assert!(wrong_method.headers["allow"].to_str().unwrap().contains("GET"), "{wrong_method:?}");
    let no_json = Reply::of(home.request(Method::POST, "/api/v1/stores/s/delete").body("{")).await;
    no_json.problem(400);
    let large =
        Reply::of(home.request(Method::POST, "/api/v1/stores/s/delete").body(vec![b' '; 1024 * 1024 + 1])).await;
    large.problem(413);
    let foreign = Reply::of(home.request(Method::GET, "/livez").header("Origin", "http://evil.example")).await;
    foreign.problem(403);
    for reply in [no_path, wrong_method, no_json, large, foreign, home.get("/api/v1/stores").await] {
        assert_eq!(reply.headers["x-content-type-options"], "nosniff");
        assert_eq!(reply.headers["cache-control"], "no-store");
    }
    home.end().await;
}

#[tokio::test]
async fn it_is_ready_exactly_when_it_accepts_whatever_is_processed() {
    let home = Home::start().await;
    let well = json!({"accepting": true, "processing": true, "reasons": []});
    assert_eq!(home.get("/readyz").await.json(200), well);
    let reason = |part| Reason { part, what: "rabbit is down".to_owned(), since: jiff::Timestamp::UNIX_EPOCH };
    {
        let mut readiness = home.readiness.lock().unwrap();
        readiness.processing = false;
        readiness.reasons = vec![reason(Part::Processing)];
    }
    assert_eq!(home.get("/readyz").await.json(200)["reasons"][0]["part"], "processing");
    {
        let mut readiness = home.readiness.lock().unwrap();
        readiness.accepting = false;
        readiness.reasons.push(reason(Part::Accepting));
    }
    let problem: Value = home.get("/readyz").await.problem(503);
    assert_eq!((&problem["accepting"], &problem["processing"]), (&json!(false), &json!(false)));
    let shown = json!({"part": "accepting", "what": "rabbit is down", "since": "1970-01-01T00:00:00Z"});
    assert_eq!(problem["reasons"][1], shown);
    assert_eq!(home.get("/livez").await.text, "ok\n");
    assert_eq!(home.get("/metrics").await.text, "posthaste_up 1\n");
    home.end().await;
}
