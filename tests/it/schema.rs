//! The schema, the queues and the files: what `migrate`, `run` and `check` do and refuse (F12, F13).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use reqwest::Method;

use crate::support::{Amqp, App, LONG, Options, SOON, Servers, eventually, run};

/// What a command that must fail said to its user.
#[track_caller]
pub fn refused(output: &Output, status: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    assert!(said.contains("posthaste: "), "{said}");
    said
}

#[track_caller]
pub fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Tables, indexes and schemas of a database that are not PostgreSQL's.
const OBJECTS: &str =
    "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = 'posthaste' ORDER BY 1";

pub async fn bare() -> App {
    App::lay_out(Servers::shared().await, Options::default()).await
}

#[test]
fn a_plan_lists_everything_and_changes_nothing() {
    run(async {
        let app = bare().await;
        app.write("configurations/write-db/migrations/main/V2__more.sql", "CREATE TABLE more (id int);");
        let plan = done(&app.command(&["migrate", "--plan"]));
        for part in [
            "V1__engine",
            "V2__decision",
            "V3__tables",
            "V4__take",
            "V5__shared_decision",
            "V6__lean",
            "V7__unsettled",
            "V8__home_copy",
            "V9__stopping",
            "V10__named",
            "V1__message_tables",
            "V2__more",
            "write-db",
            "rabbit/myQueue",
        ] {
            assert!(plan.contains(part), "{part} in {plan}");
        }
        assert!(plan.lines().all(|line| line.starts_with("would ")), "{plan}");
        assert_eq!(app.db.column::<String>(OBJECTS, &[]).await, Vec::<String>::new());
        assert!(app.depth().await.unwrap_err().contains("NOT_FOUND"));

        let json = done(&app.command(&["migrate", "--plan", "--output", "json"]));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((json["migrations"].as_array().unwrap().len(), json["queues"].as_array().unwrap().len()), (12, 1));

        assert_eq!(done(&app.command(&["migrate"])).lines().count(), plan.lines().count());
        let nothing = done(&app.command(&["migrate", "--plan"]));
        assert!(nothing.contains("nothing to do"), "{nothing}");
        assert_eq!(app.depth().await, Ok(0));
    });
}

#[test]
fn migrating_again_does_nothing() {
    run(async {
        let app = bare().await;
        let first = done(&app.command(&["migrate"]));
        assert!(first.contains("applied V1__engine") && first.contains("declared rabbit/myQueue"), "{first}");
        let before: Vec<String> = app.db.column(OBJECTS, &[]).await;
        let again = done(&app.command(&["migrate"]));
        assert!(again.contains("nothing to do"), "{again}");
        assert_eq!(app.db.column::<String>(OBJECTS, &[]).await, before);
    });
}

#[test]
fn five_migrations_at_once_apply_everything_once() {
    run(async {
        let app = bare().await;
        let outputs: Vec<Output> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..5).map(|_| scope.spawn(|| app.command(&["migrate"]))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let applied: Vec<String> = outputs.iter().flat_map(|output| lines_of(&done(output), "applied")).collect();
        assert_eq!(applied.len(), 11, "{applied:?}");
        assert_eq!(app.db.count("posthaste.schema_history", &[]).await, 10);
    });
}

pub fn lines_of(text: &str, first_word: &str) -> Vec<String> {
    text.lines().filter(|line| line.starts_with(first_word)).map(str::to_owned).collect()
}

#[test]
fn a_process_refuses_a_database_without_schema_and_names_the_command() {
    run(async {
        let app = bare().await;
        let said = refused(&app.command(&["run"]), 78);
        assert!(said.contains("posthaste migrate") && said.contains("no schema"), "{said}");
        assert_eq!(app.db.column::<String>(OBJECTS, &[]).await, Vec::<String>::new());
    });
}

#[test]
fn a_process_refuses_a_database_with_a_newer_schema() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        let newer = "INSERT INTO posthaste.schema_history (version, name, applied_on, checksum)
                     SELECT max(version) + 1, 'newer', max(applied_on), '1' FROM posthaste.schema_history";
        app.db.rows(newer, &[]).await;
        let said = refused(&app.command(&["run"]), 78);
        assert!(said.contains("version 11") && said.contains("version 10"), "{said}");
        refused(&app.command(&["migrate"]), 78);
    });
}

#[test]
fn a_process_refuses_a_database_that_lacks_a_migration_of_an_application() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        app.write("configurations/write-db/migrations/main/V2__more.sql", "CREATE TABLE more (id int);");
        let said = refused(&app.command(&["run"]), 78);
        assert!(said.contains("V2__more") && said.contains("write-db") && said.contains("posthaste migrate"), "{said}");
    });
}

#[test]
fn an_application_migration_that_fails_leaves_the_earlier_ones_and_says_why() {
    run(async {
        let app = bare().await;
        let folder = "configurations/write-db/migrations/main";
        app.write(&format!("{folder}/V2__fine.sql"), "CREATE TABLE fine (id int);");
        app.write(&format!("{folder}/V3__broken.sql"), "CREATE TABLE half (id int); CREATE TABLE fine (id int);");
        app.write(&format!("{folder}/V4__later.sql"), "CREATE TABLE later (id int);");
        let said = refused(&app.command(&["migrate"]), 78);
        assert!(said.contains("V3__broken") && said.contains("write-db"), "{said}");
        assert!(said.contains("relation \"fine\" already exists") && said.contains("42P07"), "{said}");
        let objects: Vec<String> = app.db.column(OBJECTS, &[]).await;
        let has = |table: &str| objects.iter().any(|object| object == &format!("public.{table}"));
        assert!(has("fine") && has("message") && !has("half") && !has("later"), "{objects:?}");

        app.write(&format!("{folder}/V3__broken.sql"), "CREATE TABLE half (id int);");
        let applied = lines_of(&done(&app.command(&["migrate"])), "applied");
        assert_eq!(applied.len(), 2, "it goes on where it stopped: {applied:?}");
    });
}

#[test]
fn an_application_s_tables_may_be_called_like_the_engine_s() {
    run(async {
        let mut app = bare().await;
        let own = "CREATE TABLE journal (id int); CREATE TABLE audit (id int); CREATE TABLE home (id int);";
        app.write("configurations/write-db/migrations/main/V2__own.sql", own);
        app.migrate();
        let public: Vec<String> =
            app.db.column("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", &[]).await;
        assert_eq!(public, ["audit", "home", "ibisstore", "journal", "message", "otherMessage"]);
        app.run();
        app.ready(LONG).await;
        assert_eq!(app.post("own", "own tables").await.status, 202);
        app.processed("own tables", SOON).await;
    });
}

#[test]
fn a_migration_that_was_changed_after_it_was_applied_is_refused() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        let file = "configurations/write-db/migrations/main/V1__message_tables.sql";
        app.write(file, "CREATE TABLE message (id int);");
        let said = refused(&app.command(&["migrate"]), 78);
        assert!(said.contains("V1__message_tables"), "{said}");
    });
}

#[test]
fn a_queue_that_must_exist_is_missed_clearly_and_found_when_it_is_made() {
    run(async {
        let mut app = bare().await;
        app.edit_resources("createDestination: true", "createDestination: false");
        let said = refused(&app.command(&["migrate"]), 78);
        assert!(said.contains("myQueue") && said.contains("createDestination"), "{said}");

        app.run();
        let reply = app.not_ready(SOON).await;
        eventually("/readyz and the adapter name the queue", SOON, async || {
            let ready = app.console(Method::GET, "/readyz").await;
            let adapters = app.get("/api/v1/adapters").await;
            let receiver = adapters["items"].as_array().unwrap().iter().find(|one| one["name"] == "writeDb").unwrap();
            let reason = receiver["reason"].as_str().unwrap_or_default();
            let named = ready.body.contains("myQueue") && reason.contains("myQueue") && receiver["state"] == "ERROR";
            if named { Ok(()) } else { Err(format!("{ready:?}, {adapters}")) }
        })
        .await;
        assert_eq!(reply.status, 503);
        let refusal = app.post("early", "early").await;
        refusal.problem(503);
        assert_eq!(refusal.header("x-outcome"), "none");

        Amqp::connect(app.amqp_url()).await.declare("myQueue").await;
        app.ready(LONG).await;
        assert_eq!(app.post("early", "early").await.status, 202);
        app.processed("early", LONG).await;
    });
}

#[test]
fn a_taken_port_is_answered_with_its_holder() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        for address in [app.api, app.console] {
            let held = std::net::TcpListener::bind(address).unwrap();
            let said = refused(&app.command(&["run"]), 1);
            assert!(said.contains(&address.to_string()), "{said}");
            assert!(said.contains(&format!("{}", std::process::id())), "it names this process: {said}");
            drop(held);
        }
    });
}

#[test]
fn all_mistakes_of_the_files_are_told_at_once() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        app.edit_resources("lease: 2s", "lease: soon");
        app.edit_resources("createDestination: true", "createDestinations: true");
        let broken = "
adapters:
  - name: broken
    receiver:
      listener: { amqp: { connection: rabit, destinationName: q } }
    pipeline:
      - { name: a, query: { database: nowhere, sql: 'SELECT 1' } }
      - { name: b, call: { adapter: nobody } }
";
        app.write("configurations/broken/adapters.yml", broken);
        for command in ["check", "migrate", "run"] {
            let said = refused(&app.command(&[command]), 78);
            for part in ["soon", "createDestinations", "rabit", "nowhere", "nobody", "resources.yml:", "adapters.yml:"]
            {
                assert!(said.contains(part), "{command}: {part} in {said}");
            }
        }
    });
}

#[test]
fn a_server_that_cannot_be_reached_is_no_mistake_of_the_files() {
    run(async {
        let app = bare().await;
        let url = app.amqp_url().to_owned();
        let (login, place) = url.rsplit_once('@').unwrap();
        let (_address, vhost) = place.split_once('/').unwrap();
        let nowhere = format!("{login}@127.0.0.1:1/{vhost}");
        app.edit_resources(&url, &nowhere);
        let said = refused(&app.command(&["migrate"]), 69);
        assert!(said.contains("rabbit") && said.contains("127.0.0.1:1"), "{said}");
        // The databases are done; the next one goes on with the queues.
        app.edit_resources(&nowhere, &url);
        let said = done(&app.command(&["migrate"]));
        assert_eq!(said.trim(), "declared rabbit/myQueue");
    });
}

/// The texts of the statements in src/store, each opened by a comment that names it; those put together from parts left
/// out.
fn statements(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for part in text.split("\"/* ").skip(1) {
            let (name, rest) = part.split_once(" */").unwrap();
            let sql = rest.split('"').next().unwrap().replace("\\\n", "\n").replace(":ibisstore", "public.ibisstore");
            if !sql.contains('{') && !sql.contains('\\') {
                found.push((name.to_owned(), sql));
            }
        }
    }
    found
}

#[test]
fn postgresql_understands_every_statement_of_the_store_on_a_search_path_of_its_own_schema_alone() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        let statements = statements(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store"));
        let names: BTreeSet<&str> = statements.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.len() >= 40 && names.contains("adopt") && names.contains("park"), "{names:?}");
        // What opens a transaction cannot be prepared.
        let prepares =
            |sql: &str| sql.split_once("*/").is_some_and(|(_, text)| !text.trim_start().starts_with("BEGIN"));
        let (client, _session) = app.db.session().await;
        client.batch_execute("SET search_path = pg_catalog, pg_temp").await.unwrap();
        for (name, sql) in statements.iter().filter(|(_, sql)| prepares(sql)) {
            let prepared = client.batch_execute(&format!("PREPARE statement AS {sql}; DEALLOCATE statement")).await;
            assert!(prepared.is_ok(), "{name}: {prepared:?}");
        }
    });
}

#[test]
fn a_broker_without_an_answer_holds_migrate_up_for_a_bounded_time() {
    run(async {
        let app = bare().await;
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = app.amqp_url().rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
        app.edit_resources(&address, &silent.local_addr().unwrap().to_string());
        let began = std::time::Instant::now();
        refused(&app.command(&["migrate"]), 69);
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    });
}
