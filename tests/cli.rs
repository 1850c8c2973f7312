//! The command line as users meet it: help, tables, JSON, exit statuses. A fake console answers.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use posthaste::lifecycle::Lifecycle;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the fake console was asked: method, path with query, body.
type Asked = Arc<Mutex<Vec<(String, String, String)>>>;

/// A fake console, and a folder whose resources.yml says where it is, and nothing else.
struct Fake {
    folder: TempDir,
    asked: Asked,
    tasks: Lifecycle,
}

impl Fake {
    /// Answers every request with this status and body.
    async fn answering(status: u16, body: Value) -> Self {
        let asked = Asked::default();
        let tasks = Lifecycle::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = (StatusCode::from_u16(status).unwrap(), body.to_string());
        let router = Router::new().fallback(fallback).with_state((Arc::clone(&asked), answer));
        drop(tasks.tasks.spawn(async move { axum::serve(listener, router).await }));
        Self { folder: folder(address), asked, tasks }
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let (folder, arguments) = (self.folder.path().to_owned(), arguments.to_vec());
        let mut command = command(&folder, &arguments);
        self.tasks.tasks.spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    fn asked(&self) -> Vec<(String, String, String)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn fallback(
    State((asked, answer)): State<(Asked, (StatusCode, String))>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> impl IntoResponse {
    let body = String::from_utf8(body.to_vec()).unwrap();
    asked.lock().unwrap().push((method.to_string(), uri.to_string(), body));
    let mut headers = HeaderMap::new();
    headers.insert("x-outcome", "none".parse().unwrap());
    (answer.0, headers, answer.1)
}

fn folder(console: SocketAddr) -> TempDir {
    let folder = TempDir::new().unwrap();
    let resources = format!("http: {{ console: {{ listen: '{console}' }} }}\npostgres: '${{env:NOWHERE_SET}}'\n");
    std::fs::write(folder.path().join("resources.yml"), resources).unwrap();
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).env("COLUMNS", "100");
    for name in ["RESOURCES", "CONFIGURATIONS", "LOG", "LOG_FORMAT", "DEV_POSTGRES", "DEV_AMQP"] {
        command.env_remove(format!("POSTHASTE_{name}"));
    }
    command
}

/// Compares with tests/golden/cli; `INSTA_UPDATE=always cargo test --test cli` writes them anew.
fn golden(name: &str, text: &[u8]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden/cli");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, String::from_utf8_lossy(text)));
}

#[track_caller]
fn ended(output: &Output, status: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{}{said}", String::from_utf8_lossy(&output.stdout));
    said
}

#[test]
fn the_help_of_every_command_is_as_it_was() {
    let folder = TempDir::new().unwrap();
    let commands: &[&[&str]] = &[
        &[],
        &["run"],
        &["dev"],
        &["dev", "stop"],
        &["check"],
        &["migrate"],
        &["adapter"],
        &["adapter", "list"],
        &["adapter", "start"],
        &["adapter", "stop"],
        &["store"],
        &["store", "list"],
        &["store", "show"],
        &["store", "resend"],
        &["store", "delete"],
        &["store", "export"],
        &["trace"],
        &["prove"],
        &["doctor"],
        &["send"],
    ];
    for words in commands {
        let output = command(folder.path(), &[*words, &["--help"]].concat()).output().unwrap();
        ended(&output, 0);
        let name = ["help"].iter().chain(*words).copied().collect::<Vec<_>>().join("-");
        golden(&name, &output.stdout);
    }
}

#[test]
fn the_version_names_the_schema() {
    let output = command(Path::new("."), &["--version"]).output().unwrap();
    let schema = posthaste::store::migrate::SCHEMA_VERSION;
    let expected = format!("posthaste {} (schema {schema})\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[tokio::test]
async fn adapters_are_a_table_or_the_apis_own_json() {
    let adapters = json!({"items": [
        {"name": "writeDb", "configuration": "write-db", "listener": "rabbit/myQueue", "state": "STARTING",
         "since": "2026-11-21T10:00:00.123Z", "reason": "rabbit is\ndown"},
        {"name": "writeTable", "configuration": "write-db", "state": "STARTED", "since": "2026-11-21T10:00:00Z"},
    ]});
    let fake = Fake::answering(200, adapters.clone()).await;
    let table = fake.run(&["adapter", "list"]).await;
    ended(&table, 0);
    golden("adapter-list", &table.stdout);
    let output = fake.run(&["--output", "json", "adapter", "list"]).await;
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), adapters);
}

#[tokio::test]
async fn who_acts_and_why_go_along() {
    let fake = Fake::answering(200, json!({"name": "a b", "state": "STOPPED"})).await;
    let output = fake.run(&["adapter", "stop", "a b", "--reason", "late", "--as", "Zoë"]).await;
    ended(&output, 0);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a b is STOPPED\n");
    let path = "/api/v1/adapters/a%20b/stop?as=Zo%C3%AB".to_owned();
    assert_eq!(fake.asked(), [("POST".to_owned(), path, "{\"reason\":\"late\"}".to_owned())]);
}

fn row(key: i64) -> Value {
    json!({"key": key, "slotId": "write-db", "type": "E", "messageId": format!("m{key}"), "correlationId": null,
        "messageDate": "2026-11-21T10:00:00Z", "comments": "step insert: value too long\u{1b}[31m", "attempts": 6,
        "size": 31, "txId": "t", "rootId": "r", "headers": {}, "context": {}, "sha256": "00", "message": "a\u{7}\nb"})
}

#[tokio::test]
async fn stores_messages_and_one_message_are_as_they_were() {
    let counts = json!({"items": [
        {"slotId": "old", "type": "H", "count": 1, "adapter": null, "orphaned": true},
        {"slotId": "write-db", "type": "E", "count": 100_000, "atLeast": true, "adapter": "writeDb"},
    ]});
    let fake = Fake::answering(200, counts).await;
    golden("store-list", &fake.run(&["store", "list"]).await.stdout);
    let fake = Fake::answering(200, json!({"items": [row(2), row(1)], "next": null})).await;
    golden("store-list-slot", &fake.run(&["store", "list", "write-db", "--text", "a&b", "--type", "E"]).await.stdout);
    let asked = "/api/v1/stores/write-db/messages?as=cli&text=a%26b&type=E&limit=50";
    assert_eq!(fake.asked()[0].1, asked);
    let fake = Fake::answering(200, row(2)).await;
    golden("store-show", &fake.run(&["store", "show", "write-db", "2"]).await.stdout);
}

#[tokio::test]
async fn a_list_follows_pages_up_to_its_limit_and_says_that_there_is_more() {
    let fake = Fake::answering(200, json!({"items": [row(2), row(1)], "next": "abc"})).await;
    let output = fake.run(&["store", "list", "write-db", "--limit", "4", "--output", "json"]).await;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((answer["items"].as_array().unwrap().len(), &answer["more"]), (4, &json!(true)));
    let paths: Vec<_> = fake.asked().into_iter().map(|(_, path, _)| path).collect();
    assert_eq!(paths.len(), 2);
    assert!(paths[0].ends_with("limit=4") && paths[1].ends_with("limit=2&cursor=abc"), "{paths:?}");
}

#[tokio::test]
async fn a_bulk_resend_that_failed_in_part_ends_with_1_and_tells_why() {
    let summary = json!({"total": 3, "succeeded": 2, "untouched": 0, "more": true, "running": [],
        "failed": [{"key": 7, "outcome": "failed", "step": "insert", "reason": "value too long"}]});
    let fake = Fake::answering(200, summary).await;
    let output = fake.run(&["store", "resend", "write-db", "--all", "--reason", "fixed", "--as", "ann"]).await;
    assert_eq!(ended(&output, 1), "posthaste: resend failed for 1 of 3 messages\n");
    golden("store-resend", &output.stdout);
    let (method, path, body) = fake.asked().remove(0);
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/api/v1/stores/write-db/resend?as=ann"));
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, json!({"filter": {}, "reason": "fixed", "confirmed": false}));
}

#[tokio::test]
async fn a_single_resend_has_the_truth_of_its_own_answer() {
    let fake = Fake::answering(200, json!({"outcome": "succeeded"})).await;
    let output = fake.run(&["store", "resend", "write-db", "7", "--as", "ann"]).await;
    ended(&output, 0);
    assert_eq!(fake.asked()[0].1, "/api/v1/stores/write-db/messages/7/resend?as=ann");
    let problem =
        json!({"title": "Unprocessable Entity", "status": 422, "detail": "value too long", "outcome": "failed"});
    let fake = Fake::answering(422, problem.clone()).await;
    let output = fake.run(&["store", "resend", "write-db", "7", "--output", "json"]).await;
    assert_eq!(ended(&output, 1), "posthaste: value too long\n");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), problem);
}

#[tokio::test]
async fn a_trace_tells_the_whole_story() {
    let attempt = |n, outcome: &str| {
        json!({"n": n, "startedAt": "2026-11-21T10:00:01Z", "finishedAt": "2026-11-21T10:00:02Z", "outcome": outcome,
            "adapter": "writeDb", "step": "insert", "error": "full"})
    };
    let trace = json!({"messageId": "1001", "state": "error", "messages": [{
        "rootId": "01a2", "state": "error", "store": [row(5)],
        "journal": [{"cause": "ACCEPTED", "destination": "rabbit/q", "mode": "OWN", "state": "ERROR", "attempts": 2,
                     "maxAttempts": 2, "notBefore": null}],
        "attempts": [attempt(1, "FAILED"), attempt(2, "CRASHED")],
        "audit": [{"at": "2026-11-21T11:00:00Z", "who": "ann", "what": "resend", "target": "write-db/5",
                   "why": null, "outcome": "failed"}],
    }]});
    let fake = Fake::answering(200, trace).await;
    let output = fake.run(&["trace", "1001"]).await;
    ended(&output, 0);
    golden("trace", &output.stdout);
}

#[tokio::test]
async fn each_kind_of_failure_has_its_status_and_says_what_to_do() {
    let nobody = folder("127.0.0.1:1".parse().unwrap());
    let output = command(nobody.path(), &["adapter", "list"]).output().unwrap();
    let said = ended(&output, 69);
    assert!(said.contains("127.0.0.1:1") && said.contains("posthaste run") && said.lines().count() == 2, "{said}");

    let empty = TempDir::new().unwrap();
    let said = ended(&command(empty.path(), &["adapter", "list"]).output().unwrap(), 78);
    assert!(said.contains("resources.yml"), "{said}");
    ended(&command(empty.path(), &["check"]).output().unwrap(), 78);

    for (status, exit) in [(404, 1), (409, 1), (503, 75), (504, 75), (500, 70)] {
        let fake = Fake::answering(status, json!({"detail": "because"})).await;
        assert_eq!(ended(&fake.run(&["trace", "1"]).await, exit), "posthaste: because\n");
    }

    let fake = Fake::answering(200, json!({})).await;
    for usage in [
        &["store", "resend", "write-db"][..],
        &["store", "delete", "write-db", "7", "--text", "x"],
        &["store", "list", "write-db", "--from", "yesterday"],
        &["store", "show", "write-db", "seven"],
        &["adapter", "stop"],
        &["nothing"],
    ] {
        ended(&fake.run(usage).await, 2);
    }
    assert_eq!(fake.asked(), []);
}

#[tokio::test]
async fn an_export_writes_one_document_per_line_and_never_over_a_file() {
    let fake = Fake::answering(200, json!({"items": [{"key": 1}, {"key": 2}], "next": null, "message": "x"})).await;
    let output = fake.run(&["store", "export", "write-db"]).await;
    ended(&output, 0);
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    ended(&fake.run(&["store", "export", "write-db", "--to-file", "new.jsonl"]).await, 0);
    let mode = std::fs::metadata(fake.folder.path().join("new.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "messages are not for everybody");
    let written = std::fs::read(fake.folder.path().join("new.jsonl")).unwrap();
    assert_eq!(written, output.stdout);
    let said = ended(&fake.run(&["store", "export", "write-db", "--to-file", "new.jsonl"]).await, 1);
    assert!(said.contains("new.jsonl"), "{said}");
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_an_export_without_a_complaint() {
    let items: Vec<_> = (0..400).map(|key| json!({"key": key, "comments": "x".repeat(4000)})).collect();
    // Without an end: only the closed pipe can stop it.
    let fake = Fake::answering(200, json!({"items": items, "next": "more"})).await;
    let mut command = command(fake.folder.path(), &["store", "export", "write-db"]);
    let ended = fake.tasks.tasks.spawn_blocking(move || {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        drop(out);
        (first, child.wait_with_output().unwrap())
    });
    let (first, output) = ended.await.unwrap();
    assert!(first.starts_with('{'), "{first}");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[tokio::test]
async fn send_posts_to_the_adapters_own_route_with_its_ids() {
    let fake = Fake::answering(202, json!({"messageId": "7", "slotId": "s"})).await;
    let api = std::fs::read_to_string(fake.folder.path().join("resources.yml")).unwrap();
    let address = api.split('\'').nth(1).unwrap().to_owned();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let resources = repository.join("resources.yml");
    let mut command = command(repository, &["send", "writeDbAsync", "-", "--message-id", "7", "--correlation-id", "c"]);
    command.arg("--resources").arg(resources).env("API_LISTEN", address).stdin(Stdio::piped());
    let sent = fake.tasks.tasks.spawn_blocking(move || {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"hello").unwrap();
        child.wait_with_output().unwrap()
    });
    let output = sent.await.unwrap();
    ended(&output, 0);
    let expected = "202 Accepted\noutcome: none\nmessageId: 7\nslotId: s\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(fake.asked(), [("POST".to_owned(), "/api/write".to_owned(), "hello".to_owned())]);
}
