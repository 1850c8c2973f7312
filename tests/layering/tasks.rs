//! Every place that spawns a task, and why none of them may die unseen.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

/// How often a file of `src/` calls `spawn`, `spawn_on` and the like, its tests included. A task that lives as long as the
/// process is watched (`lifecycle::Watch`); every other ends with its work.
const SPAWNS: &[(&str, usize, &str)] = &[
    (
        "app.rs",
        4,
        "watched: one by `spawn_watched`, both servers inside of `serve`; a sender that says once that all is ready",
    ),
    ("app/tasks.rs", 8, "watched: six by `spawn_watched`, what waits for databases and the receivers inside"),
    ("broker/link.rs", 1, "watched"),
    ("broker/publisher.rs", 1, "watched"),
    ("cli/exit.rs", 1, "a thread that tells why the process ends, waited for within a bound"),
    ("cli/output.rs", 1, "one text, whose panic is told"),
    ("dev/process.rs", 2, "processes"),
    ("inbound/accept.rs", 1, "one message's publish; its row brings it there"),
    ("inbound/api.rs", 1, "in a test"),
    ("inbound/finishing.rs", 1, "one request, whose panic is caught"),
    ("inbound/group.rs", 2, "one group, and who waits for it and tells its panic"),
    ("inbound/server.rs", 1, "one connection"),
    ("lifecycle.rs", 1, "watched: it is how one is spawned"),
    ("receiver/at_work.rs", 3, "a message or a group, by `Hand::spawn`"),
    ("receiver/process.rs", 1, "one message's publish; its row brings it there"),
    ("receiver/resend.rs", 1, "one resend, whose row brings it back"),
    ("receiver/slot.rs", 1, "one message or group, whose panic ends the session"),
    ("receiver/together.rs", 1, "the same, by `Hand::spawn`"),
    ("receiver/worker.rs", 1, "one delivery that goes back"),
    ("relay/failures.rs", 1, "one note, for a permit that a panic gives back"),
    ("relay/heartbeat.rs", 1, "one fence, which a panic lets others try again"),
    ("relay/publish.rs", 1, "the marker, watched inside"),
    ("telemetry/lines.rs", 1, "the thread that writes the log; without it lines are dropped and counted"),
    ("store/connection.rs", 1, "one connection, which is lost with it, and whose client is told"),
    ("store/durable.rs", 2, "one write for all that wait, and whoever tells them its outcome, a panic as unknown"),
    ("store/migrate.rs", 1, "one connection of a command or of a start, which ends with its client"),
    ("store/pooled.rs", 1, "one connection of a look, which ends with its client"),
    ("store/server_facts.rs", 1, "one connection of a look, which ends with its client"),
];

#[test]
fn no_task_is_spawned_but_where_somebody_has_said_what_becomes_of_its_panic() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    super::rust_files(&src, &mut files);
    let mut found = BTreeMap::new();
    for file in files {
        let spawns = spawns_in(fs::read_to_string(&file).unwrap().parse().unwrap());
        if spawns > 0 {
            let path = file.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
            // What spawns on paused time and the like is no part of the program.
            if !path.ends_with("_tests.rs") && !path.ends_with("/tests.rs") {
                found.insert(path, spawns);
            }
        }
    }
    let known: BTreeMap<String, usize> = SPAWNS.iter().map(|(path, spawns, _)| ((*path).to_owned(), *spawns)).collect();
    assert_eq!(found, known, "is a new one watched? Then say so in SPAWNS");
}

/// Calls of methods and functions whose names begin with `spawn`, but for their definitions.
fn spawns_in(tokens: TokenStream) -> usize {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut spawns = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => spawns += spawns_in(group.stream()),
            TokenTree::Ident(ident) if ident.to_string().starts_with("spawn") => {
                let defined =
                    matches!(at.checked_sub(1).map(|at| &tokens[at]), Some(TokenTree::Ident(word)) if word == "fn");
                let called = matches!(tokens.get(at + 1), Some(TokenTree::Group(_)));
                spawns += usize::from(called && !defined);
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    spawns
}

#[test]
fn a_spawn_is_found_wherever_it_stands_and_its_definition_is_none() {
    let spawns = |source: &str| spawns_in(source.parse().unwrap());
    assert_eq!(spawns("fn f() { if x { tasks.spawn(async { g() }); } tokio::spawn(h()) }"), 2);
    assert_eq!(spawns("fn f() { tasks.spawn_on(g(), &runtime); set.spawn_local(h()); spawn_blocking(i) }"), 3);
    assert_eq!(spawns("fn spawn(x: u8) {} // tasks.spawn(y)"), 0);
}

/// With it a panic would end the process at once, and nothing here would begin anew.
#[test]
fn a_panic_unwinds() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    assert!(!manifest.lines().any(|line| line.trim_start().starts_with("panic =") && line.contains("abort")));
}
