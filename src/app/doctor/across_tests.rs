use super::super::database::tests::facts;
use super::super::finding::Level;
use super::*;
use crate::model::AdapterName;
use crate::store::Setting;

fn server(database: &str, system: &str, ahead: i64, uncertain: i64) -> ServerFacts {
    let clock = ClockReading { ahead, uncertain };
    ServerFacts { database: database.to_owned(), system: Some(system.to_owned()), clock, ..facts() }
}

fn of<'a>(servers: &[(&'a str, &'a ServerFacts)]) -> Vec<Server<'a>> {
    servers.iter().map(|(place, facts)| Server { place, is_home: *place == "main", branches: 0, facts }).collect()
}

/// The same, with so many branches at each.
fn with_branches<'a>(servers: &[(&'a str, &'a ServerFacts)], branches: &[usize]) -> Vec<Server<'a>> {
    of(servers).into_iter().zip(branches).map(|(server, branches)| Server { branches: *branches, ..server }).collect()
}

fn levels(findings: &[Finding]) -> Vec<(&str, &str, Level)> {
    findings.iter().map(|one| (one.check, one.place.as_str(), one.level)).collect()
}

#[test]
fn a_clock_is_named_when_it_is_certainly_two_seconds_off() {
    for (ahead, uncertain, level) in [
        (0, 0, Level::Ok),
        (2_000_000, 0, Level::Ok),
        (-2_000_000, 0, Level::Ok),
        (2_500_000, 600_000, Level::Ok),
        (2_500_000, 400_000, Level::Warning),
        (-2_000_001, 0, Level::Warning),
    ] {
        let facts = server("a", "1", ahead, uncertain);
        assert_eq!(levels(&clocks(&of(&[("main", &facts)]))), [("clock", "main", level)], "{ahead} ± {uncertain}");
    }
}

#[test]
fn two_servers_that_are_each_near_may_be_far_from_each_other() {
    let (main, other) = (server("a", "1", -1_500_000, 0), server("b", "2", 1_500_000, 0));
    let found = clocks(&of(&[("main", &main), ("other", &other)]));
    assert_eq!(levels(&found), [("clock", "main", Level::Ok), ("clock", "other", Level::Warning)]);
    assert_eq!(found[1].found, "3s ahead of the home's");
}

fn with_limit(facts: ServerFacts, limit: &str) -> ServerFacts {
    let mut facts = facts;
    let setting = Setting { value: limit.to_owned(), source: "default".to_owned() };
    facts.settings.insert("max_prepared_transactions".to_owned(), setting);
    facts
}

#[test]
fn prepared_transactions_are_counted_per_server_and_only_where_they_are_needed() {
    let main = server("a", "1", 0, 0);
    let judged = |x: &ServerFacts, y: &ServerFacts| {
        let found = prepared(&with_branches(&[("main", &main), ("x", x), ("y", y)], &[0, 8, 4]));
        let prepared = found.into_iter().filter(|one| one.check == "max_prepared_transactions");
        prepared.map(|one| one.level).collect::<Vec<_>>()
    };
    let at = |database, system, limit| with_limit(server(database, system, 0, 0), limit);
    assert_eq!(judged(&at("b", "2", "8"), &at("c", "3", "4")), [Level::Ok, Level::Ok, Level::Ok]);
    assert_eq!(judged(&at("b", "2", "7"), &at("c", "3", "4")), [Level::Ok, Level::Void, Level::Ok]);
    assert_eq!(judged(&at("b", "2", "8"), &at("c", "2", "8")), [Level::Ok, Level::Void, Level::Void], "one server");
    assert_eq!(judged(&at("b", "2", "12"), &at("c", "2", "12")), [Level::Ok, Level::Ok, Level::Ok]);
    assert_eq!(judged(&at("a", "1", "0"), &at("c", "3", "4")), [Level::Ok, Level::Ok, Level::Ok], "the home again");
    let found = prepared(&of(&[("main", &main)]));
    assert!(found[0].found.starts_with("not needed"), "{found:?}");
}

#[test]
fn ending_sessions_is_asked_for_only_where_something_is_prepared() {
    let main = server("a", "1", 0, 0);
    let mut other = with_limit(server("b", "2", 0, 0), "9");
    other.refused_functions = vec!["pg_terminate_backend".to_owned()];
    let both = [("main", &main), ("other", &other)];
    let fencing = |branches: &[usize]| {
        let found = prepared(&with_branches(&both, branches)).into_iter().filter(|one| one.check == "fencing");
        found.map(|one| (one.place, one.level)).collect::<Vec<_>>()
    };
    assert_eq!(fencing(&[0, 0]), []);
    assert_eq!(fencing(&[0, 8]), [("main".to_owned(), Level::Ok), ("other".to_owned(), Level::Void)]);
}

#[test]
fn a_log_that_forgets_before_the_last_attempt_is_named() {
    let day = Duration::from_secs(86_400);
    let memory = |retention, horizon| Memory { adapter: AdapterName::new("in"), retention, horizon };
    let level = |memory| retention(&[memory])[0].level;
    assert_eq!(level(memory(30 * day, 30 * day)), Level::Ok);
    assert_eq!(level(memory(30 * day, 31 * day)), Level::Warning);
    let found = retention(&[memory(Duration::from_secs(90), 3 * day)]).remove(0);
    assert!(found.found.starts_with("messageLog.retention is 90 s, and the last attempt may end 3 days"), "{found:?}");
}

#[test]
fn sessions_of_other_instances_that_may_not_be_ended_void_the_fence() {
    let home = server("a", "1", 0, 0);
    let other = ServerFacts { beyond_reach: vec!["app2".to_owned()], ..server("b", "2", 0, 0) };
    let found = prepared(&with_branches(&[("main", &home), ("other", &other)], &[0, 8]));
    let fencing: Vec<_> = found.iter().filter(|one| one.check == "fencing").collect();
    assert_eq!(fencing.iter().map(|one| one.level).collect::<Vec<_>>(), [Level::Ok, Level::Void]);
    assert!(fencing[1].found.contains("app2"), "{}", fencing[1].found);
    assert_eq!(fencing[1].change.as_deref(), Some("GRANT pg_signal_backend TO \"app\""));
}

#[test]
fn a_rehearsal_that_cannot_be_finished_voids_the_promise_and_one_that_was_not_made_is_unseen() {
    assert_eq!(rehearsal("a", Ok(&())).level, Level::Ok);
    let refused = StoreError::Unexpected("it belongs to the role app1".to_owned());
    let found = rehearsal("a", Err(&refused));
    assert!(found.level == Level::Void && found.found.contains("app1"), "{found:?}");
    assert_eq!(rehearsal("a", Err(&StoreError::Unreachable("gone".to_owned()))).level, Level::Unseen);
}
