//! `check`, `migrate --plan`, `migrate` and `run` judge an application's migrations alike.

use std::process::Output;

use crate::bytes::configured;
use crate::schema::{bare, done, lines_of, refused};
use crate::support::{App, LONG, Options, SOON, Servers, eventually, run};

const FOLDER: &str = "configurations/write-db/migrations/main";
const FIRST: &str = "V1__message_tables.sql";

/// What it said, wherever.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn first(app: &App) -> String {
    std::fs::read_to_string(app.folder().join(FOLDER).join(FIRST)).unwrap()
}

/// Starts and stops it.
async fn starts(app: &mut App) {
    app.run();
    app.ready(LONG).await;
    assert_eq!(app.stop().await, Some(0));
}

#[test]
fn a_migration_with_other_line_ends_is_the_same_one() {
    run(async {
        let mut app = App::install(Servers::shared().await, Options::default()).await;
        let text = first(&app);
        for other in [text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
            app.write(&format!("{FOLDER}/{FIRST}"), &other);
            let plan = done(&app.command(&["migrate", "--plan"]));
            assert!(plan.contains("nothing to do"), "{plan}");
            let migrated = done(&app.command(&["migrate"]));
            assert!(migrated.contains("nothing to do"), "{migrated}");
        }
        starts(&mut app).await;
    });
}

#[test]
fn a_byte_order_mark_is_no_sql() {
    run(async {
        let app = bare().await;
        let text = first(&app);
        app.write(&format!("{FOLDER}/{FIRST}"), &format!("\u{feff}{text}"));
        done(&app.command(&["migrate"]));
        // Written by another editor since.
        app.write(&format!("{FOLDER}/{FIRST}"), &text);
        assert!(done(&app.command(&["migrate"])).contains("nothing to do"));
    });
}

#[test]
fn a_lower_number_that_came_later_is_refused_alike_with_the_number_to_give_it() {
    run(async {
        let mut app = bare().await;
        app.write(&format!("{FOLDER}/V3__later.sql"), "CREATE TABLE later (id int);");
        app.migrate();
        app.write(&format!("{FOLDER}/V2__merged.sql"), "CREATE TABLE merged (id int);");
        for command in [&["migrate", "--plan"][..], &["migrate"], &["run"]] {
            let told = refused(&app.command(command), 78);
            assert!(told.contains("V2__merged.sql: it came after V3__later"), "{command:?}: {told}");
            assert!(told.contains("name it V4__merged.sql"), "{command:?}: {told}");
        }
        let folder = app.folder().join(FOLDER);
        std::fs::rename(folder.join("V2__merged.sql"), folder.join("V4__merged.sql")).unwrap();
        app.migrate();
        assert_eq!(app.db.count("merged", &[]).await, 0);
        starts(&mut app).await;
    });
}

#[test]
fn a_migration_that_was_edited_renamed_or_removed_stops_all_commands_alike_and_all_are_told() {
    run(async {
        let app = bare().await;
        for (name, table) in [("V2__two", "two"), ("V3__three", "three"), ("V4__four", "four")] {
            app.write(&format!("{FOLDER}/{name}.sql"), &format!("CREATE TABLE {table} (id int);"));
        }
        app.migrate();
        let folder = app.folder().join(FOLDER);
        app.write(&format!("{FOLDER}/{FIRST}"), "CREATE TABLE message (id int);");
        std::fs::rename(folder.join("V2__two.sql"), folder.join("V2__zwei.sql")).unwrap();
        std::fs::remove_file(folder.join("V3__three.sql")).unwrap();
        for command in [&["migrate", "--plan"][..], &["migrate"], &["run"]] {
            let told = refused(&app.command(command), 78);
            for part in [
                "V1__message_tables.sql: it was changed after it was applied: bring it back as it was",
                "V2__zwei.sql: V2__two was applied under this number",
                "V3__three was applied and its file is gone",
            ] {
                assert!(told.contains(part), "{command:?}: {part} in {told}");
            }
        }
    });
}

#[test]
fn an_older_version_of_the_files_lives_with_what_a_newer_one_has_applied() {
    run(async {
        let mut app = bare().await;
        app.write(&format!("{FOLDER}/V2__newer.sql"), "ALTER TABLE message ADD COLUMN more text;");
        app.migrate();
        std::fs::remove_file(app.folder().join(FOLDER).join("V2__newer.sql")).unwrap();
        assert!(done(&app.command(&["migrate", "--plan"])).contains("nothing to do"));
        assert!(done(&app.command(&["migrate"])).contains("nothing to do"));
        starts(&mut app).await;
    });
}

#[test]
fn a_name_that_check_takes_is_one_that_can_be_migrated() {
    run(async {
        let mut app = bare().await;
        let configurations = app.folder().join("configurations");
        for name in ["billing.v2".to_owned(), "B".repeat(48)] {
            std::fs::rename(configurations.join("write-db"), configurations.join(&name)).unwrap();
            done(&app.command(&["check"]));
            let plan = done(&app.command(&["migrate", "--plan"]));
            assert!(plan.contains(&format!("V1__message_tables of {name}")), "{plan}");
            std::fs::rename(configurations.join(&name), configurations.join("write-db")).unwrap();
        }
        std::fs::rename(configurations.join("write-db"), configurations.join("billing.v2")).unwrap();
        app.migrate();
        assert!(done(&app.command(&["migrate"])).contains("nothing to do"));
        starts(&mut app).await;
    });
}

#[test]
fn what_was_applied_is_told_before_an_error_and_its_place_in_the_file() {
    run(async {
        let app = bare().await;
        app.write(&format!("{FOLDER}/V2__fine.sql"), "CREATE TABLE fine (id int);");
        app.write(&format!("{FOLDER}/V3__broken.sql"), "CREATE TABLE half (id int);\nCREATE TABEL x (id int);\n");
        let output = app.command(&["migrate"]);
        let told = refused(&output, 78);
        assert!(told.contains("V3__broken.sql:2:8: syntax error at or near \"TABEL\" (SQLSTATE 42601)"), "{told}");
        let applied = lines_of(&said(&output), "applied");
        assert!(applied.iter().any(|line| line.ends_with("V2__fine of write-db")), "{applied:?}");
    });
}

#[test]
fn all_queues_that_are_missing_are_told_at_once_beside_what_was_applied() {
    run(async {
        let app = bare().await;
        configured(&app);
        app.edit_resources("createDestination: true", "createDestination: false");
        app.edit_resources(
            "queues:",
            "queues:\n      - { name: blobs }\n      - { name: others }\n      - { name: notes }",
        );
        for plan in [true, false] {
            let output = app.command(if plan { &["migrate", "--plan"] } else { &["migrate"] });
            let told = refused(&output, 78);
            assert!(told.contains("blobs") && told.contains("others") && told.contains("myQueue"), "{told}");
            let word = if plan { "would apply" } else { "applied" };
            assert!(!lines_of(&said(&output), word).is_empty(), "{output:?}");
        }
    });
}

/// The statements that an answer advises.
fn grants(told: &str) -> Vec<String> {
    let grant = |piece: &str| piece.split_once("GRANT ").map(|(_, what)| format!("GRANT {}", what.trim()));
    told.split([';', '\n']).filter_map(grant).collect()
}

#[test]
fn the_grants_that_migrate_and_run_advise_are_all_that_a_role_needs() {
    run(async {
        let mut app = bare().await;
        let role = format!("{}_plain", app.db.name());
        let (url, admin) = (app.db_url(), app.db.clone());
        admin
            .batch(&format!(
                "CREATE ROLE {role} LOGIN PASSWORD 'a-long-password'; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
            ))
            .await;
        let plain = format!("postgres://{role}:a-long-password@{}", url.split_once('@').unwrap().1);
        app.edit_resources(&url, &plain);
        for command in [&["migrate", "--plan"][..], &["migrate"]] {
            let told = refused(&app.command(command), 78);
            let advised = grants(&told);
            assert_eq!(advised.len(), 2, "all at once: {told}");
            assert!(
                advised[0].starts_with("GRANT CREATE ON DATABASE") && advised[1].contains("SCHEMA \"public\""),
                "{told}"
            );
        }
        for grant in grants(&refused(&app.command(&["migrate"]), 78)) {
            admin.batch(&grant).await;
        }
        app.migrate();
        admin.batch(&format!("REVOKE CREATE ON DATABASE \"{0}\" FROM {role}", app.db.name())).await;
        assert!(done(&app.command(&["migrate"])).contains("nothing to do"), "it needs no right to do nothing");
        starts(&mut app).await;

        // As a role that has made nothing: the tables are the other's.
        admin.batch(&format!("CREATE ROLE {role}_run LOGIN PASSWORD 'a-long-password'")).await;
        app.edit_resources(&format!("{role}:a-long"), &format!("{role}_run:a-long"));
        let told = refused(&app.command(&["run"]), 78);
        assert!(told.contains("GRANT USAGE ON SCHEMA posthaste") && told.contains("GRANT UPDATE ON"), "{told}");
        for grant in grants(&told) {
            admin.batch(&grant).await;
        }
        admin.batch(&format!("GRANT INSERT ON message, \"otherMessage\" TO {role}_run")).await;
        starts(&mut app).await;
    });
}

#[test]
fn a_wrong_password_is_told_as_such_and_nobody_hears_of_a_process_that_is_refused() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        let url = app.db_url();
        let password = url.split(['@', ':']).nth(2).unwrap().to_owned();
        let wrong = url.replacen(&password, "wrong-password", 1);
        app.edit_resources(&url, &wrong);
        let told = refused(&app.command(&["migrate"]), 69);
        assert!(told.contains("password authentication failed") && !told.contains("did not answer"), "{told}");
        app.edit_resources(&wrong, &url);

        let amqp = app.amqp_url().to_owned();
        let password = amqp.split(['@', ':']).nth(2).unwrap().to_owned();
        let wrong = amqp.replacen(&password, "wrong-password", 1);
        app.edit_resources(&amqp, &wrong);
        let told = refused(&app.command(&["migrate"]), 69);
        assert!(told.contains("ACCESS_REFUSED") && !told.contains("did not answer"), "{told}");
        app.edit_resources(&wrong, &amqp);

        app.write(&format!("{FOLDER}/V2__more.sql"), "CREATE TABLE more (id int);");
        let output = app.command(&["run"]);
        refused(&output, 78);
        assert!(!said(&output).contains("listening"), "{output:?}");
    });
}

#[test]
fn a_healthy_start_and_stop_warns_of_nothing_and_tells_of_every_adapter() {
    run(async {
        let mut app = App::install(Servers::shared().await, Options::default()).await;
        app.run();
        app.ready(LONG).await;
        app.stop_adapter("writeDb").await;
        app.start_adapter("writeDb").await;
        assert_eq!(app.stop().await, Some(0));
        eventually("the log is written", SOON, async || {
            let stopped = app.log_lines("an adapter's state");
            let told = |word: &str| stopped.iter().any(|line| line.contains("writeDb") && line.contains(word));
            if told("STOPPED") && told("STARTED") { Ok(()) } else { Err(format!("{stopped:?}")) }
        })
        .await;
        let warnings = [app.log_lines(" WARN "), app.log_lines("ERROR ")].concat();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(app.log_lines("listening ").len(), 1);
    });
}
