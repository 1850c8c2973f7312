//! A copy of the home in the same cluster, and what only looks like one.

use std::process::{Command, Stdio};

use posthaste::dev::fresh_name;
use posthaste::model::Mode;
use posthaste::store::{HomeCheck, HomeDecision, settle_home};

use super::Home;
use crate::support::{Database, Servers, run};

/// The server's maintenance database, from which others are made, renamed and dropped.
async fn maintenance() -> Database {
    Database::new(Servers::shared().await.postgres.lock().await.url("postgres").parse().unwrap())
}

async fn url(name: &str) -> String {
    Servers::shared().await.postgres.lock().await.url(name)
}

async fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(Servers::shared().await.postgres.lock().await.program(name));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// `pg_dump` in its custom form.
async fn dump(home: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let into = format!("--file={}", file.path().display());
    let dumped = program("pg_dump", &["--format=custom", &into, "--dbname", &url(home).await]).await.output().unwrap();
    assert!(dumped.status.success(), "{dumped:?}");
    file
}

async fn restore(dumped: &tempfile::NamedTempFile, into: &str, options: &[&str]) {
    let file = dumped.path().display().to_string();
    let mut restore = program("pg_restore", &["--exit-on-error", "--dbname", &url(into).await]).await;
    let restored = restore.args(options).arg(file).output().unwrap();
    assert!(restored.status.success(), "{restored:?}");
}

async fn moved(home: &Home) -> String {
    match home.store.check_home().await.unwrap() {
        moved @ HomeCheck::Moved(_) => moved.advice(),
        HomeCheck::Same(id) => panic!("taken for the home {id} itself"),
    }
}

async fn same(home: &Home) {
    let check = home.store.check_home().await.unwrap();
    assert!(matches!(check, HomeCheck::Same(_)), "{}", check.advice());
}

/// Says what it is, and sees that this holds; of the copy all that is open is on hold.
async fn settled(copy: &Home) {
    let settled = settle_home(&copy.settings, HomeDecision::Copy, 0, "operator").await.unwrap();
    assert_eq!(copy.store.check_home().await.unwrap(), HomeCheck::Same(settled.home));
    assert_eq!((settled.on_hold, copy.open().await.len()), (1, 0));
}

#[test]
fn a_copy_from_a_template_is_no_home_until_it_is_said_what_it_is() {
    run(async {
        let home = Home::new().await;
        home.accepted("1", Mode::Own).await;
        home.store.house.close();
        home.store.accept.close();
        let name = fresh_name("copy");
        let copy = format!(r#"CREATE DATABASE "{name}" TEMPLATE "{}""#, home.db.name());
        maintenance().await.rows(&copy, &[]).await;
        let (home, copy) = (Home::at(&url(home.db.name()).await), Home::at(&url(&name).await));
        same(&home).await;
        let advice = moved(&copy).await;
        assert!(advice.contains(&format!("the database named {name}")), "{advice}");
        assert!(advice.contains("another database of the same cluster"), "{advice}");
        settled(&copy).await;
        same(&home).await;
    });
}

#[test]
fn a_dump_restored_elsewhere_or_under_the_old_name_is_no_home_until_it_is_said_what_it_is() {
    run(async {
        let home = Home::new().await;
        home.accepted("1", Mode::Own).await;
        let (name, dumped) = (home.db.name().to_owned(), dump(home.db.name()).await);
        let elsewhere = fresh_name("restored");
        maintenance().await.rows(&format!(r#"CREATE DATABASE "{elsewhere}""#), &[]).await;
        restore(&dumped, &elsewhere, &[]).await;
        let copy = Home::at(&url(&elsewhere).await);
        moved(&copy).await;
        settled(&copy).await;

        // Its sessions end with it.
        maintenance().await.rows(&format!(r#"DROP DATABASE "{name}" WITH (FORCE)"#), &[]).await;
        maintenance().await.rows(&format!(r#"CREATE DATABASE "{name}""#), &[]).await;
        restore(&dumped, &name, &[]).await;
        let restored = Home::at(&url(&name).await);
        let advice = moved(&restored).await;
        assert!(!advice.contains("the database named"), "it has the old name: {advice}");
        let id = settle_home(&restored.settings, HomeDecision::Same, 0, "operator").await.unwrap().home;
        assert_eq!(restored.store.check_home().await.unwrap(), HomeCheck::Same(id));
        assert_eq!(restored.open().await.len(), 1);
    });
}

#[test]
fn tables_restored_into_the_home_itself_make_it_another_with_their_definition_and_without() {
    run(async {
        for data_alone in [false, true] {
            let home = Home::new().await;
            let dumped = dump(home.db.name()).await;
            home.accepted("after-the-dump", Mode::Own).await;
            if data_alone {
                // The tables stay, and so do their OIDs.
                let all = "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relkind = 'r'
                           AND (relnamespace = 'posthaste'::regnamespace OR relname = 'ibisstore')";
                let all: String = home.db.one(all, &[]).await;
                home.db.batch(&format!("TRUNCATE {all}")).await;
                restore(&dumped, home.db.name(), &["--data-only"]).await;
            } else {
                restore(&dumped, home.db.name(), &["--clean"]).await;
            }
            let advice = moved(&home).await;
            assert!(advice.contains("rows that transaction"), "{advice}");
            assert_eq!(advice.contains("posthaste.home with OID"), !data_alone, "{advice}");
            settle_home(&home.settings, HomeDecision::Same, 0, "operator").await.unwrap();
            same(&home).await;
        }
    });
}

#[test]
fn vacuuming_in_any_form_moves_no_home() {
    run(async {
        let home = Home::new().await;
        let file = "SELECT pg_relation_filenode('posthaste.home_witness')::bigint";
        let before: i64 = home.db.one(file, &[]).await;
        for table in ["posthaste.home", "posthaste.home_witness"] {
            for how in ["FREEZE", "FULL", "FULL, FREEZE"] {
                home.execute(&format!("VACUUM ({how}) {table}")).await;
                same(&home).await;
            }
        }
        assert_ne!(home.db.one::<i64>(file, &[]).await, before, "nothing was written anew");
        // The other statements that write a table anew.
        home.execute("CLUSTER posthaste.home_witness USING home_witness_pkey").await;
        home.execute("ALTER TABLE posthaste.home SET (fillfactor = 50)").await;
        same(&home).await;
    });
}

#[test]
fn a_database_that_was_only_renamed_is_told_as_that() {
    run(async {
        let home = Home::new().await;
        let (was, is) = (home.db.name().to_owned(), fresh_name("renamed"));
        home.store.house.close();
        maintenance().await.rows(&format!(r#"ALTER DATABASE "{was}" RENAME TO "{is}""#), &[]).await;
        let home = Home::at(&url(&is).await);
        let advice = moved(&home).await;
        assert!(
            advice.contains(&format!("in the database named {was} and is now in the database named {is}")),
            "{advice}"
        );
        assert!(advice.contains("renamed, and nothing else"), "{advice}");
        settle_home(&home.settings, HomeDecision::Same, 0, "operator").await.unwrap();
        same(&home).await;
    });
}

#[test]
fn a_home_whose_server_was_stopped_or_killed_is_where_it_was() {
    run(async {
        let servers = Servers::own().await;
        let url = servers.postgres.lock().await.create_database("home").await.unwrap();
        let home = Home::at(&url);
        posthaste::store::migrate::migrate(&home.settings, true, &[], &mut Vec::new()).await.unwrap();
        servers.stop_postgres().await;
        servers.start_postgres().await;
        same(&Home::at(&url)).await;
        servers.kill9_postgres().await;
        servers.start_postgres().await;
        same(&Home::at(&url)).await;
    });
}
