//! `--console`: which instance a command acts on.

use serde_json::json;
use tempfile::TempDir;

use super::{Fake, command, ended};

#[tokio::test]
async fn a_console_that_is_given_is_asked_and_no_file_is_read() {
    let fake = Fake::answering(200, json!({"items": []})).await;
    let resources = std::fs::read_to_string(fake.folder.path().join("resources.yml")).unwrap();
    let console = format!("http://{}", resources.split('\'').nth(1).unwrap());
    std::fs::remove_file(fake.folder.path().join("resources.yml")).unwrap();
    ended(&fake.run(&["adapter", "list"]).await, 78);
    for words in [&["--console", &console, "adapter", "list"][..], &["store", "list", "--console", &console]] {
        ended(&fake.run(words).await, 0);
    }
    assert_eq!(fake.asked().len(), 2);
}

#[test]
fn a_console_that_cannot_be_meant_is_refused() {
    let folder = TempDir::new().unwrap();
    let run = |words: &[&str]| command(folder.path(), words).output().unwrap();
    for wrong in ["127.0.0.1:8081", "https://127.0.0.1:8081", "http://127.0.0.1:8081/api/v1"] {
        let said = ended(&run(&["adapter", "list", "--console", wrong]), 2);
        assert!(said.contains("http://127.0.0.1:8081"), "{said}");
    }
    for command in ["run", "check", "dev"] {
        let said = ended(&run(&[command, "--console", "http://127.0.0.1:8081"]), 2);
        assert!(said.contains("--console"), "{said}");
    }
    let said = ended(&run(&["adapter", "list", "--console", "http://127.0.0.1:1"]), 69);
    assert!(said.contains("127.0.0.1:1") && said.contains("given with --console"), "{said}");
}

#[test]
fn servers_are_not_asked_when_another_instance_was_meant() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let temp = TempDir::new().unwrap();
    for words in [&["prove"][..], &["doctor"], &["migrate", "--plan"]] {
        let mut command = command(repository, &[words, &["--console", "http://127.0.0.1:1"]].concat());
        let said = ended(&command.env("TMPDIR", temp.path()).output().unwrap(), 1);
        assert!(said.contains("no `posthaste dev` of yours has its console at 127.0.0.1:1"), "{said}");
    }
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "looking makes nothing");
}

#[test]
fn a_range_that_holds_nothing_is_a_mistake() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let words = ["prove", "--since", "2026-02-01", "--until", "2026-01-31"];
    let said = ended(&command(repository, &words).output().unwrap(), 2);
    assert!(said.contains("exchange them"), "{said}");
}
