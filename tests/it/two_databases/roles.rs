//! Who owns what is prepared: users that are set into a role, users that alternate, and who may end whose sessions
//! (protocol §6, ADR 15).

use posthaste::dev::fresh_name;
use posthaste::model::Incarnation;
use posthaste::store::{PostgresSettings, SessionTimeouts, Store};
use serde_json::Value;

use super::kills::{HOLD, WAITING, WRITING, undecided};
use super::{App, ledgers};
use crate::support::{Database, LONG, SOON, Servers, eventually, run, same};

/// Two users, members of one role that may do everything in an installation's databases and is nobody's user.
struct Users {
    owner: String,
    first: String,
    second: String,
    password: String,
}

impl Users {
    async fn of(app: &App) -> Self {
        let [owner, first, second] = ["owner", "first", "second"].map(fresh_name);
        let password = fresh_name("secret");
        app.db
            .batch(&format!(
                r#"CREATE ROLE "{owner}"; CREATE ROLE "{first}" LOGIN PASSWORD '{password}' IN ROLE "{owner}";
                   CREATE ROLE "{second}" LOGIN PASSWORD '{password}' IN ROLE "{owner}""#
            ))
            .await;
        for entry in app.application.databases() {
            let database = app.database(entry);
            let name = database.name().to_owned();
            let grant =
                format!(r#"GRANT ALL ON DATABASE "{name}" TO "{owner}"; GRANT ALL ON SCHEMA public TO "{owner}""#);
            database.batch(&grant).await;
        }
        Self { owner, first, second, password }
    }

    fn log_in(&self, app: &App, user: &str, role: Option<&str>) {
        app.log_in_as(user, &self.password, role);
    }

    /// A session's way into one of the databases as a user of these.
    fn database_as(&self, app: &App, entry: &str, user: &str) -> Database {
        let mut config: tokio_postgres::Config = app.url_of(entry).parse().unwrap();
        config.user(user).password(&self.password);
        Database::new(config)
    }
}

/// Laid out, not migrated.
async fn laid_out() -> (App, Users) {
    let app = App::lay_out(Servers::shared().await, ledgers()).await;
    let users = Users::of(&app).await;
    (app, users)
}

async fn transfers(app: &App, ids: &[&str]) {
    for id in ids {
        assert_eq!(app.transfer(id, "alice", "bob", 25).await.status, 202);
    }
    for id in ids {
        app.transferred(id, LONG).await;
    }
    app.nothing_in_doubt(LONG).await;
}

#[test]
fn a_user_that_is_set_into_a_role_finishes_what_it_has_prepared() {
    run(async {
        let (mut app, users) = laid_out().await;
        app.db.batch(&format!(r#"ALTER ROLE "{}" SET role = '{}'"#, users.first, users.owner)).await;
        users.log_in(&app, &users.first, None);
        app.migrate();
        app.run();
        app.ready(LONG).await;
        transfers(&app, &["t-1", "t-2", "t-3"]).await;
        let owner: String = app.db.one("SELECT tableowner::text FROM pg_tables WHERE tablename = 'history'", &[]).await;
        assert_eq!(owner, users.owner);
    });
}

#[test]
fn what_an_instance_prepared_as_one_user_another_user_of_the_same_role_finishes() {
    run(async {
        let (mut app, users) = laid_out().await;
        users.log_in(&app, &users.first, Some(&users.owner));
        app.migrate();
        let mut next = app.sibling();
        users.log_in(&next, &users.second, Some(&users.owner));
        app.run();
        app.ready(LONG).await;
        transfers(&app, &["t-1"]).await;

        let (hold, _session) = app.db.session().await;
        hold.batch_execute(HOLD).await.unwrap();
        for id in ["t-2", "t-3"] {
            assert_eq!(app.transfer(id, "alice", "bob", 25).await.status, 202);
        }
        let left = undecided(&app).await;
        eventually("its decision waits to be written", SOON, async || {
            if app.db.count(WAITING, &[]).await > 0 { Ok(()) } else { Err("none".to_owned()) }
        })
        .await;
        app.kill9().await;
        hold.batch_execute("COMMIT").await.unwrap();
        let nobody = async || same(app.db.count(WRITING, &[]).await, &0);
        eventually("nobody writes a decision any more", SOON, nobody).await;
        assert!(!left.is_empty());

        next.run();
        next.ready(LONG).await;
        transfers(&next, &["t-4"]).await;
        for id in ["t-2", "t-3"] {
            next.transferred(id, LONG).await;
        }
        next.nothing_in_doubt(LONG).await;
        assert_eq!(next.books().await, Vec::<String>::new());
    });
}

#[test]
fn what_was_prepared_before_the_role_was_set_is_finished_as_its_owner() {
    run(async {
        let (mut app, users) = laid_out().await;
        app.db.batch(&format!(r#"ALTER ROLE "{}" SET role = '{}'"#, users.first, users.owner)).await;
        users.log_in(&app, &users.first, None);
        app.migrate();
        let nobody = "00000000-0000-7000-8000-00000000dead";
        let home: String = app.db.one("SELECT id::text FROM posthaste.home", &[]).await;
        let gid = format!("posthaste:{home}:{nobody}:{nobody}:0.{nobody}");
        let as_user = users.database_as(&app, "ledgerA", &users.first);
        as_user.batch(&format!("BEGIN; SET LOCAL ROLE NONE; PREPARE TRANSACTION '{gid}'")).await;
        app.run();
        app.ready(LONG).await;
        app.nothing_in_doubt(LONG).await;
    });
}

/// An instance that stands still inside a decision: a session that has its lock and its name.
async fn stands_still(
    database: &Database,
    incarnation: Incarnation,
) -> (tokio_postgres::Client, tokio::task::JoinSet<()>) {
    let (client, session) = database.session().await;
    client
        .batch_execute(&format!(
            "SET application_name = 'posthaste:{incarnation}'; BEGIN;
             SELECT pg_advisory_xact_lock_shared(hashtextextended('posthaste:fence:{incarnation}', 0))"
        ))
        .await
        .unwrap();
    (client, session)
}

#[test]
fn an_instance_that_stands_still_is_fenced_by_a_user_in_another_role_and_by_another_user() {
    run(async {
        let (app, users) = laid_out().await;
        app.db.batch(&format!(r#"ALTER ROLE "{}" SET role = '{}'"#, users.first, users.owner)).await;
        users.log_in(&app, &users.first, None);
        app.migrate();
        let fence = async |user: &str, role: Option<&str>, still: &str| {
            let stuck = Incarnation::mint();
            let insert =
                "INSERT INTO posthaste.instance (incarnation, name, host, pid, configuration_hash, heartbeat, state)
                          VALUES ($1, '', '', 1, '', 7, 'LIVE')";
            app.db.rows(insert, &[&stuck.0]).await;
            let held = stands_still(&users.database_as(&app, "main", still), stuck).await;
            let settings = PostgresSettings {
                name: "main".to_owned(),
                url: app.url_of("main").into(),
                username: Some(user.to_owned()),
                password: Some(users.password.clone().into()),
                role: role.map(str::to_owned),
                pool_max_size: 1,
                branches: 0,
            };
            let homes = std::slice::from_ref(&settings);
            let store = Store::new(homes, "main", Incarnation::mint(), SessionTimeouts::default()).unwrap();
            let fenced = store.fence(stuck, 7).await;
            drop(held);
            fenced.map_err(|error| error.sqlstate().map(str::to_owned))
        };
        assert_eq!(fence(&users.first, None, &users.first).await, Ok(true));
        let owner = Some(users.owner.as_str());
        assert_eq!(fence(&users.second, owner, &users.first).await, Err(Some("42501".to_owned())));
        app.db.batch(&format!(r#"GRANT pg_signal_backend TO "{}""#, users.owner)).await;
        assert_eq!(fence(&users.second, owner, &users.first).await, Ok(true));
    });
}

/// What doctor says of a check at a place: level, what was found, what to change.
fn finding(app: &App, check: &str, place: &str) -> [String; 3] {
    let report: Value = serde_json::from_slice(&app.command(&["doctor", "--output", "json"]).stdout).unwrap();
    let found = report["findings"].as_array().unwrap().iter();
    let found: Vec<&Value> = found.filter(|one| one["check"] == check && one["where"] == place).collect();
    assert_eq!(found.len(), 1, "{check} at {place} in {report:#}");
    ["level", "found", "change"].map(|key| found[0][key].as_str().unwrap_or_default().to_owned())
}

#[test]
fn doctor_prepares_and_finishes_for_real_and_cleans_up_what_a_killed_one_has_left() {
    run(async {
        let (app, users) = laid_out().await;
        users.log_in(&app, &users.first, Some(&users.owner));
        app.migrate();
        let as_owner =
            format!(r#"BEGIN; SET LOCAL ROLE "{}"; PREPARE TRANSACTION 'posthaste-rehearsal:left'"#, users.owner);
        users.database_as(&app, "ledgerA", &users.first).batch(&as_owner).await;
        for ledger in ["ledgerA", "ledgerB"] {
            assert_eq!(finding(&app, "rehearsal", ledger)[0], "ok");
        }
        let rehearsals = "pg_prepared_xacts WHERE database = current_database() AND gid LIKE 'posthaste-rehearsal:%'";
        assert_eq!(app.database("ledgerA").count(rehearsals, &[]).await, 0);

        assert_eq!(finding(&app, "fencing", "main")[0], "ok");
        let _held = stands_still(&users.database_as(&app, "main", &users.second), Incarnation::mint()).await;
        let [level, found, change] = finding(&app, "fencing", "main");
        assert_eq!(level, "void", "{found}");
        assert!(found.contains(&users.second) && change == format!("GRANT pg_signal_backend TO \"{}\"", users.owner));
    });
}

#[test]
fn a_role_that_the_user_is_no_member_of_is_told_with_what_to_grant() {
    run(async {
        let (app, users) = laid_out().await;
        app.db.batch(&format!(r#"REVOKE "{}" FROM "{}""#, users.owner, users.first)).await;
        users.log_in(&app, &users.first, Some(&users.owner));
        let said = app.command(&["migrate"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && text.contains(&format!("GRANT \"{}\"", users.owner)), "{text}");
    });
}
