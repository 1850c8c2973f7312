//! Imports point one way, clients of servers stay in their module, and files stay short (ARCHITECTURE.md).
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "in a test a panic is the report")]

#[path = "layering/names.rs"]
mod names;
#[path = "layering/rules.rs"]
mod rules;
#[path = "layering/tasks.rs"]
mod tasks;

use std::fs;
use std::path::{Path, PathBuf};

use rules::{MAX_LINES, violations};

#[test]
fn imports_point_one_way_and_no_file_is_long() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 50, "only {} files found", files.len());
    let mut found = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
        found.extend(violations(&path, &fs::read_to_string(&file).unwrap()));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Asserts that a planted line is found, by exactly one report that holds `what`.
#[track_caller]
fn found(path: &str, source: &str, what: &str) {
    let found = violations(path, source);
    assert_eq!(found.len(), 1, "{source}: {found:?}");
    assert!(found[0].contains(what), "{found:?}");
}

#[track_caller]
fn fine(path: &str, source: &str) {
    assert_eq!(violations(path, source), Vec::<String>::new(), "{source}");
}

#[test]
fn an_import_against_the_direction_is_found_however_it_is_written() {
    for line in [
        "use crate::broker::Broker;",
        "use crate::{broker::Broker, model::TxId};",
        "use crate::{model::{TxId, RootId}, broker};",
        "use crate::broker as b;",
        "pub use crate::broker::*;",
        "fn f() { crate::broker::Broker::start() }",
        "fn f(b: &crate::broker::Broker) {}",
        "use super::super::broker::Broker;",
        "fn f() { super::super::broker::fits() }",
        "mod tests { use super::super::super::broker::Broker; }",
        "macro_rules! m { () => { $crate::broker::fits() } }",
    ] {
        found("store/pool.rs", line, "store must not see broker");
    }
    found("model/ids.rs", "use crate::lifecycle::Lifecycle;", "model must not see lifecycle");
    found("relay/publish.rs", "use crate::pipeline::Work;", "relay must not see pipeline");
    found("inbound/api.rs", "use crate::receiver::Resender;", "inbound must not see receiver");
    found("dev/rabbit.rs", "use crate::broker::Broker;", "dev must not see broker");
    found("app.rs", "use crate::cli::Exit;", "app must not see cli");
    found("main.rs", "fn main() { posthaste::app::run() }", "main must not see app");
}

#[test]
fn an_import_along_the_direction_or_within_the_module_is_fine() {
    fine("store/pool.rs", "use crate::model::TxId; use super::StoreError; use crate::store::Store;");
    fine("inbound/request.rs", "use crate::broker::fits; fn f() { crate::pipeline::x() }");
    fine("pipeline/pipe.rs", "use crate::relay::Relay; use crate::store::Store;");
    fine("console/guard.rs", "use crate::inbound::problem::Problem;");
    fine("telemetry.rs", "use crate::store::Store;");
    fine("store/pool.rs", "mod tests { use super::*; use super::super::error::StoreError; }");
    fine("store/pool.rs", "pub(crate) fn f(settings: Settings) { settings.broker.publish() }");
}

#[test]
fn the_line_of_a_violation_is_told() {
    found("store/pool.rs", "//! Text.\n\nuse crate::{\n    model::TxId,\n    broker::Broker,\n};\n", "store/pool.rs:");
    found("store/pool.rs", "\n\nuse crate::broker::Broker;\n", "store/pool.rs:3:");
}

#[test]
fn comments_and_texts_do_not_count() {
    fine("store/pool.rs", "// use crate::broker::Broker;\n/// [`crate::broker`] and lapin\nfn f() { g(\"lapin::x\") }");
    fine("telemetry.rs", r##"fn f() -> &'static str { r#"tokio_postgres=warn, crate::cli::x"# }"##);
}

#[test]
fn a_client_of_a_server_is_named_in_its_module_alone() {
    found("relay/sweeper.rs", "use tokio_postgres::Row;", "relay names tokio_postgres, which belongs to store");
    found("app/boot.rs", "fn f(pool: deadpool_postgres::Pool) {}", "deadpool_postgres");
    found("cli/migrate.rs", "use refinery::{Runner, Report};", "refinery");
    found("receiver/worker.rs", "use lapin::{Channel, options};", "lapin");
    found("console/home.rs", "fn f(text: &str) { serde_saphyr::from_str(text) }", "serde_saphyr");
    found("dev/postgres.rs", "use ::tokio_postgres::Client;", "tokio_postgres");
    fine("store/pool.rs", "use tokio_postgres::Row; use deadpool_postgres::Pool;");
    fine("broker/wire.rs", "use lapin::types::ShortString;");
}

#[test]
fn the_whole_crate_may_not_be_taken_at_once() {
    found("cli/run.rs", "use crate::*;", "takes the whole crate");
    found("store/mod.rs", "use super::*;", "takes the whole crate");
    found("lib.rs", "pub use crate::store::Store;", "only declares modules");
}

#[test]
fn a_new_module_must_be_given_its_place() {
    found("billing/mod.rs", "", "has no place in the order of imports");
    found("store/pool.rs", "use crate::billing::Invoice;", "store must not see billing");
}

#[test]
fn a_file_of_351_lines_is_too_long() {
    fine("store/pool.rs", &"\n".repeat(MAX_LINES));
    found("store/pool.rs", &"\n".repeat(MAX_LINES + 1), "351 lines");
}
