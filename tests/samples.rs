//! What the documents say is so: their commands are run, their samples are the files that are run, their links lead
//! somewhere, and the data model is the schema.
#![expect(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is the report")]
#![expect(clippy::disallowed_methods, reason = "these tests have no runtime: they wait for commands, as a person does")]

#[path = "samples/commands.rs"]
mod commands;
#[path = "samples/dev.rs"]
mod dev;
#[path = "samples/exercise.rs"]
mod exercise;
#[path = "samples/markdown.rs"]
mod markdown;
#[path = "samples/schema.rs"]
mod schema;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use dev::{Dev, text};
use markdown::{Block, Document, documents, read, root};

fn document(path: &str) -> Document {
    Document { path: path.to_owned(), text: read(path) }
}

#[test]
fn the_readmes_exercise_shows_what_it_says_when_it_is_run_as_it_stands() {
    let steps = exercise::steps(&document("README.md"));
    assert!(steps.len() > 15, "{steps:?}");
    let dev = Dev::start();
    for step in steps {
        step.run(&dev);
    }
}

#[test]
fn every_example_does_what_its_readme_shows() {
    for example in examples() {
        let steps = exercise::steps(&document(&format!("examples/{example}/README.md")));
        assert!(steps.len() > 5, "{example}: {steps:?}");
        let dev = Dev::start_example(&example);
        for step in steps {
            step.run(&dev);
        }
    }
}

fn examples() -> Vec<String> {
    let found = std::fs::read_dir(root().join("examples")).unwrap();
    let mut names: Vec<String> = found.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.contains(&"two-databases".to_owned()), "{names:?}");
    names
}

#[test]
fn a_step_is_a_command_with_what_it_shows_and_a_wrong_order_is_not_shown() {
    let text = "```sh run fails\nposthaste x \\\n  --y\n# one … two\nz\n# three\n```\n";
    let steps = exercise::steps(&Document { path: String::new(), text: text.to_owned() });
    let commands: Vec<&str> = steps.iter().map(|step| step.command.as_str()).collect();
    assert_eq!(commands, ["posthaste x \\\n  --y", "z"]);
    assert!(steps[0].fails && steps[0].shows == ["one", "two"] && steps[1].shows == ["three"], "{steps:?}");
    assert!(exercise::shows("one, then two", &steps[0].shows));
    assert!(!exercise::shows("two, then one", &steps[0].shows));
}

#[test]
fn the_sample_client_ends_in_exactly_one_acceptance_although_rabbitmq_was_stopped() {
    let dev = Dev::start();
    assert!(dev.run("posthaste dev stop rabbitmq").status.success());
    let send = "docs/samples/send.sh http://127.0.0.1:8080/api/write 2001 <(printf 'Sent by the sample')";
    // A file, since it is read again with each try.
    let send = send.replace("<(printf 'Sent by the sample')", "\"$TMPDIR/body\"");
    dev.run("printf 'Sent by the sample' >\"$TMPDIR/body\"");
    let mut client = dev.command(&send).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut notes = BufReader::new(client.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(notes.next().unwrap(), "2001: 503, again in 1 s");
    assert_eq!(dev.number("SELECT count(*) FROM ibisstore"), 0, "refused means that nothing was done");
    let started = dev.run("posthaste dev start rabbitmq");
    assert!(started.status.success(), "{}", text(&started));
    for note in notes {
        assert!(note.starts_with("2001: 503, again in "), "{note}");
    }
    let mut told = String::new();
    client.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!((client.wait().unwrap().code(), told.as_str()), (Some(0), "2001: accepted\n"));

    let effects = |what: &str| dev.number(&format!("SELECT count(*) FROM {what} WHERE message = 'Sent by the sample'"));
    dev.until("psql \"$DB\" -XAtc 'SELECT count(*) FROM \"otherMessage\"'", |seen| text(seen).trim() == "1");
    let again = dev.run(&send);
    assert_eq!((again.status.code(), text(&again).as_str()), (Some(0), "2001: accepted before\n"));
    assert_eq!(dev.number("SELECT count(*) FROM ibisstore WHERE messageid = '2001' AND type = 'A'"), 1);
    assert_eq!(dev.number("SELECT count(*) FROM posthaste.journal"), 1);
    assert_eq!([effects("message"), effects("\"otherMessage\"")], [1, 1]);

    figures_are_documented(&dev);
    let refused = dev.run("docs/samples/send.sh http://127.0.0.1:8080/api/nowhere 2002 \"$TMPDIR/body\"");
    assert_eq!((refused.status.code(), text(&refused).as_str()), (Some(1), "2002: refused with 404\n"));
}

/// docs/logging.md lists exactly the figures of this instance, which has accepted and refused.
fn figures_are_documented(dev: &Dev) {
    let page = text(&dev.run("curl --silent http://127.0.0.1:8081/metrics"));
    let shown = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let logging = document("docs/logging.md");
    let listed = logging.prose().into_iter().filter_map(|(_, line)| line.strip_prefix("| `")?.split_once('`'));
    // Other tables there name tasks.
    let listed: BTreeSet<&str> = listed.map(|(name, _)| name).filter(|name| name.starts_with("posthaste_")).collect();
    assert_eq!(shown.collect::<BTreeSet<_>>(), listed, "{page}");
}

/// What a fenced block may be. A block of another kind is one that nobody checks.
fn fault_of(block: &Block) -> Option<String> {
    let words: Vec<&str> = block.info.split(' ').collect();
    match words.as_slice() {
        // Run by the test above; texts are no samples.
        ["sh", "run"] | ["sh", "run", "fails"] | ["" | "text"] => None,
        // What `Dev` sets for the commands that follow.
        ["sh", "setup"] => {
            let named: Vec<&str> =
                block.body.lines().filter_map(|line| line.strip_prefix("export ")?.split('=').next()).collect();
            (named != ["PATH", "DB"]).then(|| format!("the test sets PATH and DB, not {named:?}"))
        }
        ["sh", "make"] => {
            let makefile = read("Makefile");
            let is_variable = |word: &str| match word.split_once('=') {
                Some(("EXAMPLE", example)) => examples().contains(&example.to_owned()),
                Some((name, _value)) => makefile.contains(&format!("$({name})")),
                None => false,
            };
            let is_known = |line: &str| match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["make", target, rest @ ..] => {
                    makefile.contains(&format!("\n{target}:")) && rest.iter().all(|word| is_variable(word))
                }
                _ => false,
            };
            block.body.lines().find(|line| !is_known(line)).map(|line| format!("the Makefile has no `{line}`"))
        }
        ["sh" | "python" | "yaml", path] => {
            (block.body != read(path)).then(|| format!("it is not what stands in {path}"))
        }
        _ => Some(format!("nothing checks a block of the kind {:?}", block.info)),
    }
}

#[test]
fn every_fenced_block_is_run_or_equals_a_file_or_is_text() {
    let mut faults = Vec::new();
    let mut quoted = BTreeSet::new();
    for document in documents() {
        for block in document.blocks() {
            quoted.extend(block.info.split(' ').nth(1).map(str::to_owned));
            faults.extend(fault_of(&block).map(|fault| format!("{}:{}: {fault}", document.path, block.line)));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    for entry in std::fs::read_dir(root().join("docs/samples")).unwrap() {
        let name = entry.unwrap().file_name();
        let path = format!("docs/samples/{}", name.to_str().unwrap());
        assert!(quoted.contains(&path), "no document shows {path}");
    }
}

#[test]
fn a_block_that_differs_from_its_file_or_names_no_target_is_found() {
    let block = |info: &str, body: &str| Block { info: info.to_owned(), body: body.to_owned(), line: 1 };
    assert!(fault_of(&block("sh docs/samples/send.sh", "#!/bin/sh\n")).is_some());
    assert!(fault_of(&block("sh docs/samples/send.sh", &read("docs/samples/send.sh"))).is_none());
    assert!(fault_of(&block("sh make", "make test\nmake miracles\n")).is_some());
    assert!(fault_of(&block("sh make", "make test MIRACLES=1\n")).is_some());
    assert!(fault_of(&block("sh make", "make run EXAMPLE=two-databases\n")).is_none());
    assert!(fault_of(&block("sh make", "make run EXAMPLE=miracles\n")).is_some());
    assert!(fault_of(&block("sh setup", "export PATH=x\n")).is_some());
    assert!(fault_of(&block("sh", "rm -rf /\n")).is_some());
}

#[test]
fn every_link_leads_to_a_file_or_a_heading_that_is_there() {
    let mut broken = Vec::new();
    for document in documents() {
        let folder = Path::new(&document.path).parent().unwrap();
        for (line, target) in document.links() {
            if target.starts_with("https://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if path.is_empty() { document.path.clone() } else { folder.join(path).display().to_string() };
            let exists = root().join(&path).exists();
            let anchored = |path: &str| self::document(path).anchors().iter().any(|one| one == anchor);
            if !exists || !(anchor.is_empty() || anchored(&path)) {
                broken.push(format!("{}:{line}: {target}", document.path));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_readme_leads_to_every_document() {
    let readme: BTreeSet<String> = document("README.md").links().into_iter().map(|(_, target)| target).collect();
    let architecture: BTreeSet<String> =
        document("ARCHITECTURE.md").links().into_iter().map(|(_, target)| target).collect();
    for document in documents().iter().filter(|one| one.path != "README.md") {
        let listed = readme.contains(&document.path) || architecture.contains(&document.path);
        assert!(listed, "neither README.md nor ARCHITECTURE.md leads to {}", document.path);
    }
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let folders = ["src/", "tests/", "benches/", "docs/", "configurations/", "examples/", "migrations/", "scripts/"];
    let mut missing = Vec::new();
    for document in documents() {
        for (line, code) in document.inline_code() {
            let is_path = folders.iter().any(|folder| code.starts_with(folder)) && !code.contains(['<', '*', ' ']);
            if is_path && !root().join(&code).exists() {
                missing.push(format!("{}:{line}: {code}", document.path));
            }
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn every_command_that_a_document_for_users_names_exists() {
    let mut checked = BTreeSet::new();
    // The other documents also name what is planned, and say so.
    for document in documents().iter().filter(|one| !one.path.ends_with("features.md")) {
        for (line, code) in document.inline_code() {
            let Some(rest) = code.strip_prefix("posthaste ") else { continue };
            let words: Vec<&str> = rest
                .split(' ')
                .take_while(|word| word.starts_with("--") || word.chars().all(char::is_lowercase))
                .collect();
            // A server's name is an argument, not a command.
            let words: Vec<&str> = words.into_iter().filter(|word| !matches!(*word, "rabbitmq" | "postgres")).collect();
            if checked.insert(words.join(" ")) {
                let help = Command::new(env!("CARGO_BIN_EXE_posthaste")).args(&words).arg("--help").output().unwrap();
                assert!(help.status.success(), "{}:{line}: {code}: {}", document.path, text(&help));
            }
        }
    }
    assert!(checked.len() > 10, "{checked:?}");
}

#[test]
fn no_document_leads_out_of_the_repository() {
    // With its slash: a clone in /work must not take fault with worker.rs.
    let beside = format!("{}/", root().parent().unwrap().display());
    for document in documents() {
        let depth = document.path.matches('/').count();
        for (number, line) in document.text.lines().enumerate() {
            let outside = line.contains(&"../".repeat(depth + 1)) || (beside.len() > 5 && line.contains(&beside));
            assert!(!outside, "{}:{}: {line}", document.path, number + 1);
        }
    }
}

#[test]
fn the_data_model_names_every_table_column_index_and_word_of_the_schema_and_no_other() {
    let mut files: Vec<_> =
        std::fs::read_dir(root().join("migrations")).unwrap().map(|one| one.unwrap().path()).collect();
    files.sort();
    let migrations: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let schema = schema::of_migration(&migrations);
    assert!(schema.len() > 10 && schema["ibisstore"].columns.len() > 15, "{schema:?}");
    assert_eq!(schema["posthaste.journal"].words["state"], ["READY", "PUBLISHED", "DONE", "ERROR"]);
    let model = document("docs/data-model.md");
    let told = schema::of_document(&model, &schema);
    assert_eq!(told.keys().collect::<Vec<_>>(), schema.keys().collect::<Vec<_>>());
    for (name, table) in &schema {
        assert_eq!(told[name].columns, table.columns, "{name}");
        assert_eq!(told[name].words, table.words, "{name}");
        let sorted = |indexes: &[String]| indexes.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(sorted(&told[name].indexes), sorted(&table.indexes), "{name}");
    }
    for (there, instead) in [("| `label` |", "| `labels` |"), ("`PUBLISHED` on", "on"), ("- `due_at` (", "- due_at (")]
    {
        let text = model.text.replacen(there, instead, 1);
        assert_ne!(schema::of_document(&Document { path: String::new(), text }, &schema), told, "{there}");
    }
}

#[test]
fn every_test_that_the_guarantees_name_exists_and_every_invariant_has_one() {
    let mut sources = String::new();
    let mut folders = vec![root().join("tests"), root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let guarantees = document("docs/guarantees.md");
    let named = guarantees.inline_code().into_iter().filter(|(_, code)| code.matches('_').count() > 3);
    let missing: Vec<_> = named.clone().filter(|(_, code)| !sources.contains(&format!("fn {code}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(named.count() > 10);
    for promise in guarantees.text.split("\n\n").filter(|part| part.starts_with("**") && part.contains("(I")) {
        assert!(promise.contains("Shown by `"), "{promise}");
    }
    for invariant in 1..=8 {
        assert!(guarantees.text.contains(&format!("(I{invariant})")), "I{invariant}");
    }
}
