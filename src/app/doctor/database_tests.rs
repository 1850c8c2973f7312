use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::finding::Level;
use super::*;
use crate::model::{HomeId, Incarnation};
use crate::store::{ClockReading, Instance, Moved, OpenSchema, SessionSetting, Standbys};

const ASKED: Asked<'_> = Asked { transaction: Duration::from_secs(30), hash: "ours", prepares: false };

fn setting(value: &str, source: &str) -> Setting {
    Setting { value: value.to_owned(), source: source.to_owned() }
}

pub(in super::super) fn facts() -> ServerFacts {
    let on = ["fsync", "full_page_writes", "autovacuum", "synchronous_commit"];
    let mut settings: BTreeMap<String, Setting> =
        on.iter().map(|name| ((*name).to_owned(), setting("on", "default"))).collect();
    settings.insert("transaction_read_only".to_owned(), setting("off", "default"));
    settings.insert("idle_session_timeout".to_owned(), setting("0", "default"));
    settings.insert("max_prepared_transactions".to_owned(), setting("0", "default"));
    let found = Some("on".to_owned());
    ServerFacts {
        version: "15.18".to_owned(),
        database: "db".to_owned(),
        role: "app".to_owned(),
        login: "app".to_owned(),
        beyond_reach: Vec::new(),
        in_recovery: false,
        system: Some("1".to_owned()),
        clock: ClockReading { ahead: 0, uncertain: 500 },
        settings,
        session: vec![SessionSetting { name: "synchronous_commit", wanted: "on".to_owned(), found }],
        standbys: Standbys { all: 0, synchronous: Some(0) },
        refused_functions: Vec::new(),
        missing: Vec::new(),
        schema: SchemaFacts::Fits,
        open_schemas: Vec::new(),
        home: Some(HomeFacts {
            moved: Ok(HomeCheck::Same(HomeId(Uuid::nil()))),
            epoch: None,
            live: Ok(vec![instance("ours")]),
            never_vacuumed: Vec::new(),
        }),
    }
}

fn instance(hash: &str) -> Instance {
    Instance {
        incarnation: Incarnation(Uuid::nil()),
        name: "posthaste".to_owned(),
        heartbeat: 1,
        configuration_hash: hash.to_owned(),
        serves: Vec::new(),
        seen: BTreeMap::new(),
    }
}

/// The one finding that is not ok after a change, and nothing when all are.
#[track_caller]
fn complaint(change: impl FnOnce(&mut ServerFacts)) -> Option<Finding> {
    let mut facts = facts();
    change(&mut facts);
    let mut found: Vec<Finding> =
        judge("main", &facts, ASKED).into_iter().filter(|finding| finding.level != Level::Ok).collect();
    assert!(found.len() <= 1, "{found:#?}");
    found.pop()
}

#[track_caller]
fn told(check: &str, level: Level, change: impl FnOnce(&mut ServerFacts)) -> Finding {
    let finding = complaint(change).expect("a complaint");
    assert_eq!((finding.check, finding.level), (check, level), "{finding:?}");
    assert!(finding.change.as_ref().is_some_and(|change| !change.is_empty()));
    finding
}

fn change_of(finding: &Finding) -> &str {
    finding.change.as_deref().unwrap_or_default()
}

#[test]
fn a_healthy_server_has_nothing_to_change() {
    assert_eq!(complaint(|_| ()), None);
    assert_eq!(complaint(|facts| facts.home = None), None);
}

#[test]
fn a_server_that_may_forget_a_commit_voids_it() {
    for name in ["fsync", "full_page_writes"] {
        let finding = told(name, Level::Void, |facts| {
            facts.settings.insert(name.to_owned(), setting("off", "configuration file"));
        });
        assert_eq!(change_of(&finding), format!("ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()"));
        assert!(finding.invariants.contains(&"I1"));
        told(name, Level::Unseen, |facts| {
            facts.settings.remove(name);
        });
    }
}

#[test]
fn who_may_put_something_in_the_way_of_our_statements_is_named_with_what_to_revoke() {
    let finding = told("search-path", Level::Warning, |facts| {
        let roles = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        facts.open_schemas = vec![
            OpenSchema { name: "public".to_owned(), exists: true, roles: roles(&["PUBLIC", "mallory"]) },
            OpenSchema { name: "app".to_owned(), exists: false, roles: roles(&["mallory"]) },
        ];
    });
    assert!(finding.found.contains("PUBLIC, mallory may create in schema \"public\""), "{}", finding.found);
    assert!(finding.found.contains("mallory may make a schema \"app\""), "{}", finding.found);
    let revoke = "REVOKE CREATE ON SCHEMA \"public\" FROM PUBLIC, \"mallory\"; \
                  REVOKE CREATE ON DATABASE \"db\" FROM \"mallory\"";
    assert_eq!(change_of(&finding), revoke);
}

#[test]
fn an_asynchronous_default_is_a_warning_since_our_sessions_set_their_own() {
    for (source, change) in [
        ("user", "ALTER ROLE \"app\" SET synchronous_commit = on"),
        ("database", "ALTER DATABASE \"db\" SET synchronous_commit = on"),
        ("database user", "ALTER ROLE \"app\" IN DATABASE \"db\" SET synchronous_commit = on"),
        ("configuration file", "ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf()"),
    ] {
        let finding = told("synchronous_commit", Level::Warning, |facts| {
            facts.settings.insert("synchronous_commit".to_owned(), setting("off", source));
        });
        assert_eq!(change_of(&finding), change);
    }
    let local = complaint(|facts| {
        facts.settings.insert("synchronous_commit".to_owned(), setting("local", "user"));
    });
    assert_eq!(local, None);
}

#[test]
fn a_pooler_that_drops_our_options_voids_what_rests_on_them() {
    let finding = told("session-settings", Level::Void, |facts| facts.session[0].found = Some("off".to_owned()));
    assert_eq!(finding.found, "synchronous_commit is off, not on");
    told("session-settings", Level::Void, |facts| facts.session[0].found = None);
}

#[test]
fn a_standby_and_a_read_only_session_take_no_writes() {
    told("writable", Level::Void, |facts| facts.in_recovery = true);
    let finding = told("writable", Level::Void, |facts| {
        facts.settings.insert("transaction_read_only".to_owned(), setting("on", "database"));
    });
    assert_eq!(change_of(&finding), "ALTER DATABASE \"db\" SET default_transaction_read_only = off");
}

#[test]
fn a_time_out_of_the_server_below_the_longest_transaction_voids_and_above_it_does_not() {
    let bound = |millis: &str| {
        let setting = setting(millis, "configuration file");
        move |facts: &mut ServerFacts| drop(facts.settings.insert("transaction_timeout".to_owned(), setting))
    };
    told("server-timeouts", Level::Void, bound("29999"));
    assert_eq!(complaint(bound("30000")), None);
    assert_eq!(complaint(bound("0")), None);
    told("server-timeouts", Level::Warning, |facts| {
        facts.settings.insert("idle_session_timeout".to_owned(), setting("1000", "user"));
    });
}

#[test]
fn standbys_must_have_a_synchronous_one_among_them() {
    let standbys = |all, synchronous| move |facts: &mut ServerFacts| facts.standbys = Standbys { all, synchronous };
    told("standbys", Level::Warning, standbys(2, Some(0)));
    told("standbys", Level::Unseen, standbys(2, None));
    assert_eq!(complaint(standbys(2, Some(1))), None);
    assert_eq!(complaint(standbys(0, None)), None);
}

#[test]
fn a_schema_or_a_home_that_is_another_voids() {
    told("schema", Level::Void, |facts| facts.schema = SchemaFacts::Refused("no schema".to_owned()));
    told("schema", Level::Unseen, |facts| facts.schema = SchemaFacts::Unseen("denied".to_owned()));
    let home = |moved| move |facts: &mut ServerFacts| facts.home.as_mut().unwrap().moved = moved;
    let moved = HomeCheck::Moved(Moved { known: "a".to_owned(), found: "b".to_owned(), means: "c" });
    told("home", Level::Void, home(Ok(moved)));
    told("home", Level::Unseen, home(Err("denied".to_owned())));
}

#[test]
fn each_missing_privilege_becomes_its_grant_and_ending_sessions_is_not_among_them() {
    let finding = told("privileges", Level::Void, |facts| {
        facts.missing.push("DELETE ON posthaste.due".to_owned());
        facts.refused_functions.push("pg_control_system".to_owned());
    });
    let grants = "GRANT DELETE ON posthaste.due TO \"app\"; GRANT EXECUTE ON FUNCTION pg_control_system TO \"app\"";
    assert_eq!(change_of(&finding), grants);
    assert_eq!(complaint(|facts| facts.refused_functions.push("pg_terminate_backend".to_owned())), None);
    let elsewhere = complaint(|facts| {
        facts.refused_functions.push("pg_control_system".to_owned());
        facts.home = None;
    });
    assert_eq!(elsewhere, None, "only the home is compared with where it lived");
}

#[test]
fn an_instance_with_another_configuration_is_named() {
    let live = |live| move |facts: &mut ServerFacts| facts.home.as_mut().unwrap().live = live;
    told("configuration", Level::Warning, live(Ok(vec![instance("ours"), instance("theirs")])));
    told("configuration", Level::Unseen, live(Err("denied".to_owned())));
    assert_eq!(complaint(live(Ok(Vec::new()))), None);
}

#[test]
fn tables_that_are_never_vacuumed_are_named() {
    told("autovacuum", Level::Warning, |facts| {
        facts.settings.insert("autovacuum".to_owned(), setting("off", "configuration file"));
    });
    let finding = told("autovacuum", Level::Warning, |facts| {
        facts.home.as_mut().unwrap().never_vacuumed = vec!["journal".to_owned(), "due".to_owned()];
    });
    assert_eq!(finding.found, "switched off for journal, due");
}

#[test]
fn a_role_with_a_quote_in_its_name_breaks_no_statement() {
    assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
}
