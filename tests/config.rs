//! What users read when their files are wrong, and what the program reads when they are right.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "config/secrets.rs"]
mod secrets;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use posthaste::config::{self, ConfigError, Settings};
use posthaste::inbound::DuplicateKey;
use posthaste::model::{Mode, TransactionAttribute};
use posthaste::pipeline::{Input, Param, StepKind};

fn nothing_set(_: &str) -> Option<String> {
    None
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A valid resources.yml and adapters.yml in a folder of their own, to be changed text by text.
struct Files {
    folder: tempfile::TempDir,
    resources: String,
    adapters: String,
}

impl Files {
    fn valid() -> Self {
        let base = root().join("tests/golden/config/base");
        Self {
            folder: tempfile::tempdir().unwrap(),
            resources: fs::read_to_string(base.join("resources.yml")).unwrap(),
            adapters: fs::read_to_string(base.join("configurations/demo/adapters.yml")).unwrap(),
        }
    }

    #[must_use]
    fn resources(mut self, old: &str, new: &str) -> Self {
        assert!(self.resources.contains(old), "{old}");
        self.resources = self.resources.replacen(old, new, 1);
        self
    }

    #[must_use]
    fn adapters(mut self, old: &str, new: &str) -> Self {
        assert!(self.adapters.contains(old), "{old}");
        self.adapters = self.adapters.replacen(old, new, 1);
        self
    }

    fn load_with(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, ConfigError> {
        let configuration = self.folder.path().join("configurations/demo");
        fs::create_dir_all(&configuration).unwrap();
        fs::write(self.folder.path().join("resources.yml"), &self.resources).unwrap();
        fs::write(configuration.join("adapters.yml"), &self.adapters).unwrap();
        config::load(&self.folder.path().join("resources.yml"), &self.folder.path().join("configurations"), env)
    }

    fn load(&self) -> Settings {
        self.load_with(&nothing_set).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refusal(&self) -> ConfigError {
        self.load_with(&nothing_set).expect_err("a refusal")
    }
}

/// Every folder of tests/golden/config is a case: its files, its variables in `env`, and what the user reads. What a
/// case lacks is taken from `base`, unless its name starts with `missing-`. `UPDATE_GOLDEN=1` rewrites the texts.
#[test]
fn every_mistake_is_shown_as_its_golden_text() {
    let golden = root().join("tests/golden/config");
    let mut cases: Vec<PathBuf> = fs::read_dir(&golden).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir() && !path.ends_with("base"));
    cases.sort();
    assert!(cases.len() >= 25, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let shown = shown(&golden, case);
        let expected = case.join("expected.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &shown).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != shown {
            wrong.push(format!("--- {} now reads\n{shown}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 accepts these texts", wrong.join("\n"));
}

fn shown(golden: &Path, case: &Path) -> String {
    let bare = case.file_name().unwrap().to_string_lossy().starts_with("missing-");
    let part = |name: &str| {
        let own = case.join(name);
        if own.exists() || bare { own } else { golden.join("base").join(name) }
    };
    let variables: BTreeMap<String, String> = fs::read_to_string(case.join("env"))
        .unwrap_or_default()
        .lines()
        .map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap())
        .collect();
    let env = |name: &str| variables.get(name).cloned();
    let error = config::load(&part("resources.yml"), &part("configurations"), &env)
        .expect_err(&format!("{} has no mistake", case.display()));
    let prefix = |path: &Path| format!("{}/", path.display());
    format!("{error}\n").replace(&prefix(case), "").replace(&prefix(golden), "")
}

#[test]
fn the_files_of_this_repository_are_without_mistakes() {
    let settings = config::load(&root().join("resources.yml"), &root().join("configurations"), &nothing_set)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(settings.instance.home, "main");
    assert_eq!(settings.api.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.console.listen.to_string(), "127.0.0.1:8081");
    assert_eq!(settings.adapters.len(), 4);
    let migrations = &settings.configurations[0].migrations["main"];
    assert!(migrations[0].ends_with("V1__message_tables.sql"));

    let inbound = &settings.inbound[0];
    assert_eq!((inbound.uri_pattern.as_str(), inbound.duplicate_status.as_u16()), ("/write", 304));
    assert_eq!(inbound.check_for_duplicates, Some(DuplicateKey::MessageId));
    let log = inbound.message_log.as_ref().unwrap();
    assert_eq!((log.slot_id.as_str(), log.retention), ("write-db-req", Duration::from_secs(30 * 86400)));

    let receiver = &settings.receivers[0];
    assert_eq!((receiver.max_retries, receiver.max_attempts(), receiver.num_threads), (5, 6, 8));
    assert_eq!(receiver.error_slot.as_str(), "write-db");
    assert_eq!(receiver.retry_delays, [1, 2, 5].map(Duration::from_secs));

    let StepKind::AmqpSender(sender) = &settings.adapters[0].steps[0].kind else { panic!("a sender") };
    assert_eq!((sender.mode, sender.max_attempts), (Mode::Own, 6));
    assert_eq!(settings.adapters[1].steps[1].input, Input::OriginalMessage);
    assert_eq!(settings.adapters[2].transaction_attribute, TransactionAttribute::Mandatory);
    let StepKind::Query(query) = &settings.adapters[2].steps[0].kind else { panic!("a query") };
    assert_eq!(query.params, [Param::Payload]);
}

#[test]
fn a_receiver_that_says_little_gets_the_documented_defaults() {
    let settings = Files::valid().load();
    let receiver = &settings.receivers[0];
    assert_eq!(receiver.max_retries, 3);
    assert_eq!(receiver.retry_delays, [1, 5, 30].map(Duration::from_secs));
    assert!(receiver.retry_permanent_errors);
    assert_eq!(receiver.transaction_timeout, Duration::from_secs(30));
    assert_eq!(receiver.error_slot.as_str(), "consume", "a slot named after the adapter");
    assert_eq!(settings.adapters[1].transaction_attribute, TransactionAttribute::Required, "its receiver's");
    assert_eq!(settings.adapters[2].transaction_attribute, TransactionAttribute::Supports);
    assert_eq!(settings.instance.lease, Duration::from_secs(5));
    assert_eq!(settings.instance.stop_timeout, Duration::from_secs(20));
    assert_eq!(settings.postgres[0].pool_max_size, 16);
    assert!(!settings.amqp[0].create_destination);
}

#[test]
fn a_retry_scheme_sets_waits_and_count_until_someone_says_otherwise() {
    let scheme =
        |more: &str| Files::valid().adapters("      listener: { amqp:", &format!("{more}      listener: {{ amqp:"));
    let receiver = scheme("      retryScheme: 1mx5,1hx24,1dx7\n").load().receivers[0].clone();
    assert_eq!(receiver.max_retries, 36);
    assert_eq!(receiver.retry_delays.len(), 36);
    assert_eq!(receiver.delay_after(6), Duration::from_secs(3600));

    let receiver = scheme("      retryScheme: 1mx5\n      maxRetries: 2\n").load().receivers[0].clone();
    assert_eq!((receiver.max_retries, receiver.retry_delays.len()), (2, 5));

    let files = scheme("      retryScheme: 1mx5\n").resources("{ name: work }", "{ name: work, retryDelays: [2s] }");
    let receiver = files.load().receivers[0].clone();
    assert_eq!(receiver.retry_delays, [Duration::from_secs(2)], "the administrator owns the intervals");
    assert_eq!(receiver.max_retries, 5);
}

#[test]
fn a_queue_that_no_receiver_reads_is_handed_over_after_at_most_ten_attempts() {
    let files = Files::valid()
        .adapters("destinationName: work } }\n  - name: consume", "destinationName: others } }\n  - name: consume");
    let settings = files.load();
    let StepKind::AmqpSender(sender) = &settings.adapters[0].steps[0].kind else { panic!("a sender") };
    assert_eq!((sender.mode, sender.max_attempts), (Mode::Handover, 10));
}

#[test]
fn a_number_may_come_from_a_variable_or_its_default_plain_or_quoted() {
    for value in ["${env:POOL:-24}", "\"${env:POOL:-24}\"", "'24'"] {
        let files = Files::valid().resources("username: u", &format!("poolMaxSize: {value}"));
        assert_eq!(files.load().postgres[0].pool_max_size, 24, "{value}");
        let set = |name: &str| (name == "POOL").then(|| "32".to_owned());
        let pool = files.load_with(&set).unwrap().postgres[0].pool_max_size;
        assert_eq!(pool, if value == "'24'" { 24 } else { 32 }, "{value}");
    }
}

#[test]
fn a_value_from_a_variable_never_becomes_yaml() {
    let files = Files::valid().resources("username: u", "username: ${env:DB_USER}");
    let set = |_: &str| Some("a\nname: [other, {x: 1}] # y".to_owned());
    let settings = files.load_with(&set).unwrap();
    assert_eq!(settings.postgres[0].username.as_deref(), Some("a\nname: [other, {x: 1}] # y"));
}

#[test]
fn sql_and_keys_are_never_substituted() {
    let files = Files::valid().adapters("INSERT INTO t VALUES ($1)", "\"SELECT '${env:X} $${' || $1\"");
    let settings = files.load();
    let StepKind::Query(query) = &settings.adapters[2].steps[0].kind else { panic!("a query") };
    assert_eq!(query.sql, "SELECT '${env:X} $${' || $1");

    let refusal = Files::valid().resources("username: u", "${env:KEY:-username}: u").refusal();
    assert!(refusal.to_string().contains("unknown key `${env:KEY:-username}`"), "{refusal}");
}

#[test]
fn the_hash_follows_meaning_and_neither_comments_nor_order_nor_secrets() {
    let hash = |files: Files| files.load().hash;
    let base = hash(Files::valid());
    assert_eq!(base.len(), 64);
    assert_eq!(base, hash(Files::valid().resources("password: hunter2", "password: other")));
    assert_eq!(base, hash(Files::valid().adapters("adapters:\n", "# a comment\nadapters:\n")));
    assert_eq!(
        base,
        hash(Files::valid().adapters("      listener: { amqp", "      maxRetries: 3\n      listener: { amqp"))
    );
    let mut moved = Files::valid();
    let at = moved.adapters.find("  - name: insert").unwrap();
    let last = moved.adapters.split_off(at);
    moved.adapters = moved.adapters.replacen("adapters:\n", &format!("adapters:\n{last}"), 1);
    assert_eq!(base, hash(moved));
    assert_ne!(
        base,
        hash(Files::valid().adapters("      listener: { amqp", "      maxRetries: 4\n      listener: { amqp"))
    );
    assert_ne!(base, hash(Files::valid().adapters("VALUES ($1)", "VALUES ($1 )")));
}

#[test]
fn an_error_knows_file_line_and_column_in_json_too() {
    let error = Files::valid().resources("username: u", "usrname: u").refusal();
    let json = serde_json::to_value(&error).unwrap();
    let first = &json[0];
    assert!(first["file"].as_str().unwrap().ends_with("resources.yml"));
    assert_eq!((first["line"].as_u64(), first["column"].as_u64()), (Some(6), Some(5)));
    assert_eq!(first["message"], "unknown key `usrname` in a postgres entry");
    assert_eq!(first["help"], "did you mean `username`?");
    assert_eq!(first["snippet"], "   6 |     usrname: u\n     |     ^");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_change_nothing() {
    let mut files = Files::valid();
    files.resources = format!("\u{feff}{}", files.resources.replace('\n', "\r\n"));
    files.load();
    let error = files.resources("username: u", "usrname: u").refusal();
    assert!(error.to_string().contains(":6:5: unknown key"), "{error}");
}

#[test]
fn every_key_that_is_read_is_in_the_documentation() {
    let text = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let mut missing = Vec::new();
    for shape in config::SHAPES {
        let heading = format!("`{}`", shape.path);
        let Some((_, section)) = text.split_once(&format!("## {heading}\n")) else {
            missing.push(format!("section {heading}"));
            continue;
        };
        let section = section.split("\n## ").next().unwrap();
        let absent = shape.keys.iter().filter(|key| !section.contains(&format!("| `{key}` |")));
        missing.extend(absent.map(|key| format!("{}.{key}", shape.path)));
    }
    assert!(missing.is_empty(), "docs/configuration.md lacks {missing:#?}");
}
