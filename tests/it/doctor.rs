//! `posthaste doctor`: nothing is void in a healthy installation, and what is broken is named, that and nothing else
//! (B5).

mod queues;

use std::collections::BTreeMap;
use std::sync::Arc;

use posthaste::dev;
use serde_json::{Value, json};

use crate::support::{Amqp, App, LONG, Options, SOON, Servers, eventually, run, same};

/// Level, check, where.
type Named = (String, String, String);

fn named(level: &str, check: &str, place: &str) -> Named {
    (level.to_owned(), check.to_owned(), place.to_owned())
}

impl App {
    /// What `doctor --output json` says, and its exit status. Shows no password.
    fn doctor(&self) -> (i32, Value) {
        let output = self.command(&["doctor", "--output", "json"]);
        let said = [&output.stdout[..], &output.stderr[..]].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        for url in [self.db_url(), self.amqp_url().to_owned()] {
            let password = url.split_once("://").unwrap().1.split(['@', ':']).nth(1).unwrap().to_owned();
            assert!(password.len() > 8 && !said.concat().contains(&password), "{said:?}");
        }
        let report: Value = serde_json::from_str(&said[0]).unwrap_or_else(|error| panic!("{error}: {said:?}"));
        let documented = include_str!("../../docs/doctor.md");
        for finding in report["findings"].as_array().unwrap() {
            let check = finding["check"].as_str().unwrap();
            let rows = documented.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
            assert!(rows.into_iter().any(|row| row.contains(&format!("{check}`"))), "docs/doctor.md lacks {check}");
        }
        (output.status.code().unwrap(), report)
    }

    /// Everything that is not ok, with the exit status.
    fn complaints(&self) -> (i32, Vec<Named>) {
        let (status, report) = self.doctor();
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        let all = report["findings"].as_array().unwrap().iter();
        let of = |finding| (text(finding, "level"), text(finding, "check"), text(finding, "where"));
        let not_ok: Vec<Named> = all.map(of).filter(|(level, ..)| level != "ok").collect();
        assert_eq!(report["holds"], json!(!not_ok.iter().any(|(level, ..)| level == "void")), "{report:#}");
        (status, not_ok)
    }

    /// Waits until exactly this is complained of: a reload and the plugin's statistics take their time.
    async fn complains(&self, status: i32, of: &[Named]) {
        let wanted = (status, of.to_vec());
        eventually(&format!("doctor names {of:?}"), LONG, async || same(self.complaints(), &wanted)).await;
    }

    fn finding(&self, check: &str, place: &str) -> Value {
        let (_, report) = self.doctor();
        let found = report["findings"].as_array().unwrap().iter();
        let found = found.filter(|one| one["check"] == check && one["where"] == place).collect::<Vec<_>>();
        assert_eq!(found.len(), 1, "{check} at {place} in {report:#}");
        found[0].clone()
    }

    /// Sets something at the private server, as its superuser.
    async fn server_sql(&self, sql: &str) {
        self.servers.postgres.lock().await.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    async fn show_management(&self) {
        let url = self.servers.rabbit.lock().await.management_url().unwrap();
        self.edit_resources("createDestination: true", &format!("createDestination: true\n    managementUrl: {url}"));
    }

    /// Puts a policy over the virtual host; `None` takes it away.
    async fn policy(&self, definition: Option<Value>) {
        let (login, place) = self.amqp_url().trim_start_matches("amqp://").split_once('@').unwrap();
        let (user, password) = login.split_once(':').unwrap();
        let vhost = place.split_once('/').unwrap().1;
        let management = self.servers.rabbit.lock().await.management_url().unwrap();
        let url = format!("{management}/api/policies/{vhost}/planted");
        let request = match definition {
            Some(definition) => self.http.put(url).json(&json!({
                "pattern": ".*", "definition": definition, "apply-to": "queues", "priority": 1
            })),
            None => self.http.delete(url),
        };
        let answer = request.basic_auth(user, Some(password)).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }
}

/// One receiver per queue, and one queue of others.
fn adapters(own: &[&str], others: &str) -> String {
    let receiver = |queue: &&str| {
        format!(
            "  - name: {queue}
    receiver: {{ numThreads: 1, listener: {{ amqp: {{ connection: rabbit, destinationName: {queue} }} }} }}
    pipeline:
      - {{ name: a, query: {{ database: main, sql: SELECT 1 }} }}
"
        )
    };
    let sender = format!(
        "  - name: sends
    receiver: {{ listener: {{ api: {{ uriPattern: /sends }} }} }}
    pipeline:
      - {{ name: a, amqpSender: {{ connection: rabbit, destinationName: {others} }} }}
"
    );
    format!("adapters:\n{}{sender}", own.iter().map(receiver).collect::<String>())
}

async fn servers() -> Arc<Servers> {
    Servers::own_with(dev::Options { management: true, ..dev::Options::default() }).await
}

async fn healthy() -> App {
    let mut app = App::install(servers().await, Options::default()).await;
    app.show_management().await;
    app.run();
    app.ready(LONG).await;
    app
}

#[test]
fn a_healthy_installation_has_nothing_to_change_and_each_setting_that_breaks_a_promise_is_named_alone() {
    run(async {
        let app = healthy().await;
        app.complains(0, &[]).await;
        let found = |check: &str, place: &str| app.finding(check, place)["found"].as_str().unwrap().to_owned();
        assert!(found("reachable", "main").starts_with("PostgreSQL "));
        assert!(found("reachable", "rabbit").starts_with("RabbitMQ "));
        assert_eq!(found("queue-type", "rabbit/myQueue"), "a durable quorum queue");
        eventually("the plugin counts our consumer", LONG, async || {
            same(found("consumers", "rabbit/myQueue"), &"1, all ours".to_owned())
        })
        .await;

        let database = app.db.name().to_owned();
        let in_database = |what: &str| format!("ALTER DATABASE \"{database}\" {what}");
        let role = |what: &str| format!("ALTER ROLE posthaste {what}");
        let system = |what: &str| format!("ALTER SYSTEM {what}");
        let cases = [
            (system("SET fsync = off"), system("RESET fsync"), "void", "fsync"),
            (system("SET full_page_writes = off"), system("RESET full_page_writes"), "void", "full_page_writes"),
            (system("SET autovacuum = off"), system("RESET autovacuum"), "warning", "autovacuum"),
            (role("SET synchronous_commit = off"), role("RESET synchronous_commit"), "warning", "synchronous_commit"),
            (role("SET idle_session_timeout = '1h'"), role("RESET idle_session_timeout"), "warning", "server-timeouts"),
            (
                in_database("SET default_transaction_read_only = on"),
                in_database("RESET default_transaction_read_only"),
                "void",
                "writable",
            ),
        ];
        for (breaks, mends, level, check) in cases {
            app.server_sql(&breaks).await;
            app.server_sql("SELECT pg_reload_conf()").await;
            app.complains(i32::from(level == "void"), &[named(level, check, "main")]).await;
            app.server_sql(&mends).await;
            app.server_sql("SELECT pg_reload_conf()").await;
        }
        app.complains(0, &[]).await;
        let cases = [
            ("UPDATE posthaste.home SET timeline = timeline + 7", "timeline - 7", "void", "home"),
            ("ALTER TABLE posthaste.journal SET (autovacuum_enabled = false)", "", "warning", "autovacuum"),
            ("UPDATE posthaste.schema_history SET version = 99 WHERE version = 1", "", "void", "schema"),
            ("GRANT CREATE ON SCHEMA public TO PUBLIC", "", "warning", "search-path"),
        ];
        for (breaks, back, level, check) in cases {
            app.db.rows(breaks, &[]).await;
            app.complains(i32::from(level == "void"), &[named(level, check, "main")]).await;
            let mends = match check {
                "home" => format!("UPDATE posthaste.home SET timeline = {back}"),
                "search-path" => app.finding(check, "main")["change"].as_str().unwrap().to_owned(),
                "schema" => "UPDATE posthaste.schema_history SET version = 1 WHERE version = 99".to_owned(),
                _ => "ALTER TABLE posthaste.journal RESET (autovacuum_enabled)".to_owned(),
            };
            app.db.rows(&mends, &[]).await;
        }
        app.complains(0, &[]).await;
    });
}

#[test]
fn what_the_grants_of_doctor_allow_is_all_that_an_instance_needs() {
    run(async {
        let mut app = App::install(Servers::own().await, Options::default()).await;
        app.server_sql("CREATE ROLE plain LOGIN PASSWORD 'a-long-password'").await;
        let tables = r#"GRANT INSERT ON message, "otherMessage" TO plain"#;
        app.db.rows(tables, &[]).await;
        let url = app.db_url();
        let plain = format!("postgres://plain:a-long-password@{}", url.split_once('@').unwrap().1);
        app.edit_resources(&url, &plain);
        let (status, complaints) = app.complaints();
        assert!(status == 1 && complaints.contains(&named("void", "privileges", "main")), "{complaints:?}");
        let grants = app.finding("privileges", "main")["change"].as_str().unwrap().to_owned();
        assert!(grants.contains("GRANT USAGE ON SCHEMA posthaste TO \"plain\""), "{grants}");
        for grant in grants.split("; ") {
            app.db.rows(grant, &[]).await;
        }
        app.complains(0, &[named("unseen", "management", "rabbit")]).await;

        app.run();
        app.ready(LONG).await;
        assert_eq!(app.post("plain", "plain").await.status, 202);
        app.processed("plain", SOON).await;
        app.complains(0, &[named("unseen", "management", "rabbit")]).await;

        app.db.rows("REVOKE DELETE ON posthaste.due FROM plain", &[]).await;
        app.complains(1, &[named("void", "privileges", "main"), named("unseen", "management", "rabbit")]).await;
        let change = app.finding("privileges", "main")["change"].clone();
        assert_eq!(change, "GRANT DELETE ON posthaste.due TO \"plain\"");
    });
}

#[test]
fn an_instance_with_another_configuration_is_named_as_long_as_it_lives() {
    run(async {
        let app = healthy().await;
        let mut other = app.sibling();
        let file = "configurations/write-db/adapters.yml";
        let adapters = std::fs::read_to_string(other.folder().join(file)).unwrap();
        other.write(file, &adapters.replace("maxRetries: 5", "maxRetries: 4"));
        other.run();
        other.ready(LONG).await;
        app.complains(0, &[named("warning", "configuration", "main")]).await;
        assert_eq!(other.stop().await, Some(0));
        app.complains(0, &[]).await;
    });
}

#[test]
fn an_alarm_a_foreign_consumer_and_a_server_that_is_away_are_named_and_the_others_still_judged() {
    run(async {
        let app = healthy().await;
        app.complains(0, &[]).await;
        let watermark = async |fraction: &str| {
            let set = format!("vm_memory_monitor:set_vm_memory_high_watermark({fraction})");
            assert_eq!(app.servers.rabbit.lock().await.eval(&set).await.unwrap(), "ok");
        };
        watermark("0.0000001").await;
        app.complains(0, &[named("warning", "alarm", "rabbit")]).await;
        watermark("0.6").await;
        app.complains(0, &[]).await;

        let amqp = Amqp::connect(app.amqp_url()).await;
        let consumer = amqp.consume("myQueue").await;
        app.complains(1, &[named("void", "consumers", "rabbit/myQueue")]).await;
        drop((consumer, amqp));
        app.complains(0, &[]).await;

        app.policy(Some(json!({"message-ttl": 60_000}))).await;
        app.complains(1, &[named("void", "message-ttl", "rabbit/myQueue")]).await;
        app.policy(None).await;
        app.complains(0, &[]).await;

        let url = app.servers.rabbit.lock().await.management_url().unwrap();
        let wrong = url.replace("http://", "http://posthaste:wrong-password@");
        app.edit_resources(&url, &wrong);
        app.complains(0, &[named("unseen", "management", "rabbit")]).await;
        app.edit_resources(&wrong, &url);

        app.servers.stop_rabbit().await;
        let (status, report) = app.doctor();
        assert_eq!((status, &report["holds"]), (69, &json!(true)), "{report:#}");
        assert_eq!(report["unreachable"], json!(["rabbit", "rabbit (managementUrl)"]));
        assert_eq!(app.finding("fsync", "main")["level"], "ok");
        app.server_sql("ALTER SYSTEM SET fsync = off").await;
        app.server_sql("SELECT pg_reload_conf()").await;
        eventually("what is void has the say", LONG, async || same(app.doctor().0, &1)).await;
        app.servers.stop_postgres().await;
        let (status, report) = app.doctor();
        assert_eq!((status, report["unreachable"][0].as_str()), (69, Some("main")), "{report:#}");
    });
}

#[test]
fn a_server_that_lets_too_few_transactions_be_prepared_is_named() {
    run(async {
        let app = App::lay_out(Servers::shared().await, Options::default()).await;
        let other = app.servers.postgres.lock().await.create_database(&dev::fresh_name("it")).await.unwrap();
        let entry = format!("    poolMaxSize: 250\n  - name: other\n    url: {other}\n    poolMaxSize: 250\n");
        app.edit_resources("amqp:\n  - name", &format!("{entry}amqp:\n  - name"));
        let file = "configurations/more/adapters.yml";
        // A private server allows 200.
        let of = |threads: &str| adapters(&["two"], "theirs").replace("numThreads: 1", threads);
        let reaches = |threads: &str| of(threads).replace("database: main", "database: other");
        app.write(file, &reaches("numThreads: 200"));
        app.migrate();
        let unseen = named("unseen", "management", "rabbit");
        assert_eq!(app.complaints(), (0, vec![unseen.clone()]));
        assert_eq!(app.finding("fencing", "main")["level"], "ok");
        app.write(file, &reaches("numThreads: 201"));
        assert_eq!(app.complaints(), (1, vec![named("void", "max_prepared_transactions", "other"), unseen.clone()]));
        let change = app.finding("max_prepared_transactions", "other")["change"].to_string();
        assert!(change.contains("max_prepared_transactions = 201"), "{change}");
        app.write(file, &of("numThreads: 201"));
        assert_eq!(app.complaints(), (0, vec![unseen]), "the home itself prepares nothing");
    });
}

#[test]
fn before_migrate_doctor_says_what_is_missing_and_makes_none_of_it() {
    run(async {
        let app = App::lay_out(Servers::shared().await, Options::default()).await;
        let wanted = [
            named("void", "schema", "main"),
            named("warning", "queue", "rabbit/myQueue"),
            named("unseen", "home", "main"),
            named("unseen", "configuration", "main"),
            named("unseen", "management", "rabbit"),
        ];
        assert_eq!(app.complaints(), (1, wanted.to_vec()));
        assert_eq!(app.db.count("pg_namespace WHERE nspname = 'posthaste'", &[]).await, 0);
        let depth = app.depth().await;
        assert!(depth.as_ref().is_err_and(|error| error.contains("NOT_FOUND")), "{depth:?}");
    });
}

#[test]
fn the_table_names_setting_and_promise_and_a_wrong_file_is_a_configuration_error() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        app.db.rows("ALTER TABLE ibisstore SET (autovacuum_enabled = false)", &[]).await;
        let output = app.command(&["doctor"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        let parts = ["LEVEL", "warning", "autovacuum", "main", "switched off for ibisstore", "promise: ", "change:  "];
        let missing: Vec<_> = parts.iter().filter(|part| !said.contains(**part)).collect();
        assert!(missing.is_empty(), "{missing:?} in {said}");
        let counts: BTreeMap<&str, &str> = said
            .lines()
            .last()
            .unwrap()
            .split(", ")
            .filter_map(|part| part.split_once(' '))
            .map(|(n, l)| (l, n))
            .collect();
        assert_eq!((counts["void"], counts["warning"], counts["unseen"]), ("0", "1", "1"), "{said}");

        app.edit_resources("createDestination: true", "createDestination: true\n    managementUrl: https://localhost");
        let refused = app.command(&["doctor"]);
        assert_eq!(refused.status.code(), Some(78), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("TLS is not available in this version"));
    });
}
