//! What clients meet beside the usual: other statuses, other headers, old and new versions of HTTP, their libraries, and
//! the OpenAPI document (docs/api-client.md).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{App, LONG, Options, Reply, Servers, client, exchange, run};
use crate::wire::python;

const OTHERS: &str = "adapters:
  - name: keyed
    description: Takes what has a key.
    receiver:
      checkForDuplicates: true
      listener:
        api:
          uriPattern: /keyed
          method: PUT
          messageIdHeaders: [ Message-Id, Idempotency-Key ]
          headerParams: [ X-Tenant ]
          duplicateStatus: 200
          conflictStatus: 409
      messageLog: { slotId: keyed-req }
    pipeline:
      - { name: send, amqpSender: { connection: rabbit, destinationName: theirQueue } }
  - name: strict
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /strict, requireMessageId: true, duplicateStatus: 409 } }
      messageLog: { slotId: strict-req }
    pipeline:
      - { name: insert, query: { database: main, sql: 'INSERT INTO message (message) VALUES ($1)', params: [ payload ] } }
";

/// What a repeat does to Python's HTTP clients.
const CLIENTS: &str = r#"
import sys, urllib.error, urllib.request
import httpx, requests

url, headers = sys.argv[1], {"Message-Id": "304"}
try:
    urllib.request.urlopen(urllib.request.Request(url, data=b"x", headers=headers))
except urllib.error.HTTPError as error:
    print("urllib raises", error.code)
answer = httpx.post(url, content=b"x", headers=headers)
try:
    answer.raise_for_status()
except httpx.HTTPStatusError:
    print("httpx raises", answer.status_code)
answer = requests.post(url, data=b"x", headers=headers)
answer.raise_for_status()
try:
    answer.json()
except requests.JSONDecodeError:
    print("requests has no JSON", answer.status_code)
"#;

async fn started() -> App {
    let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
    app.write("configurations/others/adapters.yml", OTHERS);
    app.migrate();
    app.run();
    app.ready(LONG).await;
    app
}

impl App {
    async fn put_keyed(&self, headers: &[(&str, &str)], body: &'static str) -> Reply {
        let mut request = client::request(&self.http, Method::PUT, self.api, "/api/keyed");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        client::send(request.body(body)).await
    }
}

#[test]
fn an_idempotency_key_counts_where_an_adapter_names_it_and_nowhere_else() {
    run(async {
        let app = started().await;
        let key = [("Idempotency-Key", "k-1")];
        let accepted = app.put_keyed(&key, "one").await;
        assert_eq!((accepted.status, &accepted.json()["messageId"]), (202, &json!("k-1")));
        assert_eq!(app.put_keyed(&key, "one").await.json()["outcome"], "duplicate");
        for _ in 0..2 {
            let reply = app.post_with(&key, "without an id").await;
            assert_eq!((reply.status, &reply.json()["outcome"]), (202, &json!("accepted")), "each is another message");
        }
    });
}

#[test]
fn other_statuses_of_repeats_say_what_they_are_and_conflicts_are_listed() {
    run(async {
        let app = started().await;
        let id = [("Message-Id", "m-1")];
        assert_eq!(app.put_keyed(&id, "the first").await.status, 202);
        let repeat = app.put_keyed(&id, "the first").await;
        assert_eq!((repeat.status, &repeat.json()["outcome"]), (200, &json!("duplicate")));
        assert_eq!(repeat.header("location"), "/api/messages/keyed-req/m-1");
        for _ in 0..2 {
            let conflict = app.put_keyed(&id, "another").await.problem(409);
            assert_eq!(conflict["outcome"], "conflict", "{conflict}");
        }
        assert_eq!(app.post_to("/api/strict", "s-1", "once").await.status, 202);
        assert_eq!(app.post_to("/api/strict", "s-1", "once").await.problem(409)["outcome"], "duplicate");

        let listed = app.get("/api/v1/conflicts").await;
        let [one] = listed["items"].as_array().unwrap().as_slice() else { panic!("{listed}") };
        let shown = [&one["slotId"], &one["id"], &one["times"], &one["size"], &one["accepted"]["size"]];
        assert_eq!(shown, [&json!("keyed-req"), &json!("m-1"), &json!(2), &json!(7), &json!(9)], "{one}");
        assert_ne!(one["sha256"], one["accepted"]["sha256"]);
        let table = app.command(&["conflict", "list", "keyed-req"]);
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        assert!(table.contains("keyed-req") && table.contains("m-1"), "{table}");
        let none = app.command(&["conflict", "list", "keyd-req"]);
        let said = String::from_utf8_lossy(&none.stderr).into_owned();
        assert!(none.status.code() == Some(1) && said.contains("did you mean keyed-req?"), "{none:?}");
    });
}

#[test]
fn http_1_0_is_spoken_and_http_2_is_not() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        let bound = Duration::from_secs(10);
        let old = b"POST /api/write HTTP/1.0\r\nMessage-Id: old\r\nContent-Length: 3\r\n\r\nold";
        let reply = exchange(app.api, old, bound).await;
        assert_eq!(reply.status, Some(202), "{reply:?}");
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        let reply = exchange(app.api, preface, bound).await;
        assert!(reply.closed && reply.status.is_none_or(|status| status >= 400), "{reply:?}");
    });
}

#[test]
fn libraries_make_of_304_what_the_document_says() {
    run(async {
        let app = App::start(Servers::shared().await).await;
        assert_eq!(app.post("304", "x").await.status, 202);
        let url = format!("http://{}/api/write", app.api);
        let seen = output(python(), &["-c", CLIENTS, &url]).await;
        assert!(seen.status.success(), "{seen:?}");
        let said = String::from_utf8_lossy(&seen.stdout).into_owned();
        assert_eq!(said, "urllib raises 304\nhttpx raises 304\nrequests has no JSON 304\n");

        let post = ["--silent", "--location", "--data", "x", "--header", "Message-Id: 304", &url];
        let seen =
            output(Path::new("curl"), &[&post[..], &["--output", "/dev/null", "--write-out", "%{http_code}"]].concat())
                .await;
        assert_eq!(String::from_utf8_lossy(&seen.stdout), "405", "{seen:?}");
    });
}

async fn output(program: &Path, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(program);
    tokio::time::timeout(LONG, command.args(arguments).kill_on_drop(true).output()).await.expect("it ends").unwrap()
}

/// The statuses of the table of answers.
fn documented() -> BTreeSet<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api-client.md")).unwrap();
    let cells = page.lines().filter_map(|line| line.strip_prefix("| **")?.split(" | ").next());
    let words = cells.flat_map(|cell| cell.split(|c: char| !c.is_ascii_digit())).filter(|word| word.len() == 3);
    words.map(str::to_owned).collect()
}

#[test]
fn the_openapi_document_describes_each_listener_as_it_is_configured_and_all_answers_of_the_page() {
    run(async {
        let app = started().await;
        let reply = app.api(Method::GET, "/api/openapi.json").await;
        assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
        let document = reply.json();
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().unwrap();
        let names: Vec<&String> = paths.keys().collect();
        assert_eq!(names, ["/api/keyed", "/api/messages/{slotId}/{messageId}", "/api/strict", "/api/write"]);

        let (keyed, strict, write) =
            (&paths["/api/keyed"]["put"], &paths["/api/strict"]["post"], &paths["/api/write"]["post"]);
        assert_eq!((&keyed["operationId"], &keyed["description"]), (&json!("keyed"), &json!("Takes what has a key.")));
        let headers = |operation: &Value| -> Vec<(String, bool)> {
            let all = operation["parameters"].as_array().unwrap().iter();
            all.map(|one| (one["name"].as_str().unwrap().to_owned(), one["required"].as_bool().unwrap())).collect()
        };
        let named =
            |names: &[(&str, bool)]| names.iter().map(|(name, must)| ((*name).to_owned(), *must)).collect::<Vec<_>>();
        let expected =
            [("message-id", false), ("idempotency-key", false), ("correlation-id", false), ("x-tenant", false)];
        assert_eq!(headers(keyed), named(&expected));
        assert_eq!(headers(strict), named(&[("message-id", true), ("correlation-id", false)]));

        let answers = |operation: &Value| -> BTreeSet<String> {
            operation["responses"].as_object().unwrap().keys().cloned().collect()
        };
        let always = ["202", "400", "403", "408", "413", "415", "431", "501", "503"];
        let with = |more: &[&str]| always.iter().chain(more).map(|one| (*one).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(answers(write), with(&["304"]));
        assert_eq!(answers(keyed), with(&["200", "409"]));
        assert_eq!(answers(strict), with(&["409", "422", "500"]));
        let all: BTreeSet<String> = [write, keyed, strict].into_iter().flat_map(answers).collect();
        // Whoever gets these has found no listener.
        let others = ["404", "405"].map(str::to_owned).into();
        assert_eq!(documented().difference(&others).cloned().collect::<BTreeSet<_>>(), all);
        assert!(documented().is_superset(&others));

        app.post_to("/api/openapi.json", "x", "x").await.problem(405);
    });
}
