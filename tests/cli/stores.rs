//! What `posthaste store` refuses, and exports.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Fake, command, ended};

#[tokio::test]
async fn what_means_nothing_ends_with_1_and_says_so() {
    let fake = Fake::answering(200, json!({"items": []})).await;
    for ignored in [&["store", "list", "--type", "E"][..], &["store", "list", "--limit", "3"]] {
        let said = ended(&fake.run(ignored).await, 1);
        assert!(said.contains("name the slot"), "{said}");
    }
    assert_eq!(fake.asked(), []);
    let fake = Fake::answering(404, json!({"detail": "there is no slot; did you mean write-db?"})).await;
    let file = fake.folder.path().join("new.jsonl");
    for words in [
        &["store", "list", "write-bd"][..],
        &["store", "resend", "write-bd", "--all"],
        &["store", "delete", "write-bd", "1", "2"],
        &["store", "export", "write-bd", "--to-file", "new.jsonl"],
    ] {
        assert_eq!(ended(&fake.run(words).await, 1), "posthaste: there is no slot; did you mean write-db?\n");
    }
    assert!(!file.exists(), "no file is left behind");
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
