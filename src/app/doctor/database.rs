//! What a PostgreSQL server's facts mean for the promises. Pure: facts in, findings out.

use std::time::Duration;

use super::finding::{Check, Finding};
use crate::store::{HomeCheck, HomeFacts, SchemaFacts, ServerFacts, Setting};

const REACHABLE: Check = Check::new("reachable", "the server answers", &[]);
const WRITABLE: Check = Check::new("writable", "what is accepted can be written", &["I1"]);
const FSYNC: Check = Check::new("fsync", "a commit survives a crash of the machine", &["I1", "I4", "I6"]);
const PAGES: Check = Check::new("full_page_writes", "the tables survive a crash of the machine", &["I1", "I4", "I6"]);
const COMMIT: Check = Check::new("synchronous_commit", "a commit that was answered survives a crash", &["I1", "I4"]);
const SESSION: Check = Check::new(
    "session-settings",
    "our sessions commit to disk, read what is committed and wait within bounds, whatever role and database say",
    &["I1", "I4", "I6"],
);
const TIMEOUTS: Check =
    Check::new("server-timeouts", "a transaction may take as long as its transactionTimeout", &["I1"]);
const STANDBYS: Check = Check::new("standbys", "a fail-over keeps what was accepted", &["I1", "I4", "I6"]);
const AUTOVACUUM: Check = Check::new("autovacuum", "the journal stays small and quick", &[]);
const SCHEMA: Check = Check::new("schema", "the tables are those of this version", &["I1"]);
const HOME: Check = Check::new("home", "one installation alone owns what is under way", &["I1", "I5"]);
const PRIVILEGES: Check =
    Check::new("privileges", "what was accepted can be processed, resent and cleaned up", &["I1", "I8"]);
const SEARCH_PATH: Check = Check::new(
    "search-path",
    "the tables, functions and operators that the statements of steps name are those that are meant",
    &["I1"],
);
const INSTANCES: Check = Check::new("configuration", "every live instance does the same with a message", &["I7"]);

/// What the configurations ask of one server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The longest `transactionTimeout`.
    pub transaction: Duration,
    /// The configurations' hash, as instances register it.
    pub hash: &'a str,
    /// Whether transactions are prepared there.
    pub prepares: bool,
}

pub(super) fn unreachable(place: &str, reason: &str) -> Finding {
    REACHABLE.unseen(place, reason, format!("make it reachable from here, or correct the postgres entry {place}"))
}

/// Nothing more is asked of such a place: what it answers belongs to nobody's session.
pub(super) fn pooled(place: &str, reason: &str) -> Finding {
    let change = format!("let the url of the postgres entry {place} lead to PostgreSQL itself");
    SESSION.void(place, reason, change)
}

pub(super) fn judge(place: &str, facts: &ServerFacts, asked: Asked<'_>) -> Vec<Finding> {
    let mut found = vec![
        REACHABLE.ok(place, format!("PostgreSQL {}", facts.version)),
        writable(place, facts),
        switch(&FSYNC, place, facts, "unflushed commits are gone with the machine, and the tables may be damaged"),
        switch(&PAGES, place, facts, "half-written pages stay damaged, unless the file system writes whole pages only"),
        synchronous_commit(place, facts),
        session(place, facts),
        server_timeouts(place, facts, asked.transaction),
        standbys(place, facts),
        schema(place, facts),
        privileges(place, facts, asked.prepares),
        search_path(place, facts),
    ];
    if let Some(home) = &facts.home {
        found.extend([moved(place, home), instances(place, home, asked.hash), autovacuum(place, facts, home)]);
    }
    found
}

fn writable(place: &str, facts: &ServerFacts) -> Finding {
    if facts.in_recovery {
        let change = format!("let the url of the postgres entry {place} lead to the primary");
        return WRITABLE.void(place, "the server is a standby and takes no writes", change);
    }
    match facts.settings.get("transaction_read_only").filter(|setting| setting.value == "on") {
        Some(setting) => {
            let found = format!("sessions are read-only ({})", origin(setting));
            WRITABLE.void(place, found, set("default_transaction_read_only = off", setting, facts))
        }
        None => WRITABLE.ok(place, "the server takes writes"),
    }
}

/// A switch of the whole server that must be on; its name is the check's.
fn switch(check: &Check, place: &str, facts: &ServerFacts, consequence: &str) -> Finding {
    let name = check.name;
    match facts.settings.get(name) {
        Some(setting) if setting.value == "on" => check.ok(place, "on"),
        Some(setting) => {
            let found = format!("{} ({}): {consequence}", setting.value, origin(setting));
            check.void(place, found, format!("ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()"))
        }
        None => check.unseen(place, "the server does not show it", format!("see to it that {name} is on")),
    }
}

/// Our sessions set it themselves; everybody else who writes to the same tables does not.
fn synchronous_commit(place: &str, facts: &ServerFacts) -> Finding {
    match facts.settings.get("synchronous_commit") {
        Some(setting) if setting.value == "off" => {
            let found = format!(
                "off ({}); our sessions set it to on, so our promises hold; what others write here may be gone after a \
                 crash although it was answered",
                origin(setting)
            );
            COMMIT.warning(place, found, set("synchronous_commit = on", setting, facts))
        }
        Some(setting) => COMMIT.ok(place, format!("{}; our sessions set it to on", setting.value)),
        None => COMMIT.ok(place, "our sessions set it to on"),
    }
}

fn session(place: &str, facts: &ServerFacts) -> Finding {
    let lost = facts.session.iter().filter(|one| one.found.as_ref() != Some(&one.wanted));
    let lost: Vec<String> = lost
        .map(|one| format!("{} is {}, not {}", one.name, one.found.as_deref().unwrap_or("unknown"), one.wanted))
        .collect();
    if lost.is_empty() {
        return SESSION.ok(place, "sessions have what they ask for");
    }
    let change = "let nothing between here and PostgreSQL drop the start-up parameter `options`: connect directly, not \
                  through a connection pooler";
    SESSION.void(place, lost.join("; "), change)
}

/// Time-outs that no session of ours sets, because older versions do not know them.
fn server_timeouts(place: &str, facts: &ServerFacts, transaction: Duration) -> Finding {
    let given = |name: &str| {
        let setting = facts.settings.get(name)?;
        let millis: u64 = setting.value.parse().ok()?;
        (millis > 0).then_some((Duration::from_millis(millis), setting))
    };
    if let Some((bound, setting)) = given("transaction_timeout").filter(|(bound, _)| *bound < transaction) {
        let found = format!(
            "transaction_timeout is {bound:?} ({}), less than the longest transactionTimeout, {transaction:?}: such a \
             transaction is cut off and tried again for ever",
            origin(setting)
        );
        return TIMEOUTS.void(place, found, set("transaction_timeout = 0", setting, facts));
    }
    if let Some((bound, setting)) = given("idle_session_timeout") {
        let found = format!("idle_session_timeout is {bound:?} ({}): pooled connections are cut off", origin(setting));
        return TIMEOUTS.warning(place, found, set("idle_session_timeout = 0", setting, facts));
    }
    TIMEOUTS.ok(place, "none that would cut us off")
}

fn standbys(place: &str, facts: &ServerFacts) -> Finding {
    let all = facts.standbys.all;
    match facts.standbys.synchronous {
        _ if all == 0 => STANDBYS.ok(place, "there are none"),
        Some(0) => {
            let found = format!("{all}, none synchronous: a fail-over may lose what was accepted last");
            STANDBYS.warning(place, found, "name a synchronous one in synchronous_standby_names")
        }
        Some(synchronous) => STANDBYS.ok(place, format!("{synchronous} of {all} synchronous")),
        None => {
            let change = format!("GRANT pg_monitor TO {}, or look whether one is synchronous", quoted(&facts.role));
            STANDBYS.unseen(place, format!("{all}; the role may not see whether one is synchronous"), change)
        }
    }
}

fn schema(place: &str, facts: &ServerFacts) -> Finding {
    match &facts.schema {
        SchemaFacts::Fits => SCHEMA.ok(place, "up to date"),
        SchemaFacts::Refused(reason) => {
            SCHEMA.void(place, format!("{reason}; `posthaste run` refuses to start"), "run `posthaste migrate`")
        }
        SchemaFacts::Unseen(reason) => SCHEMA.unseen(place, reason, "see the finding on privileges"),
    }
}

fn moved(place: &str, home: &HomeFacts) -> Finding {
    match &home.moved {
        Ok(HomeCheck::Same(id)) => HOME.ok(place, format!("home {id}, where it lived before")),
        Ok(moved @ HomeCheck::Moved(_)) => {
            let change = "`posthaste migrate --home same` or `posthaste migrate --home copy`";
            HOME.void(place, moved.advice(), change)
        }
        Err(reason) => HOME.unseen(place, reason, "see the findings on schema and privileges"),
    }
}

fn privileges(place: &str, facts: &ServerFacts, prepares: bool) -> Finding {
    let role = quoted(&facts.role);
    let mut missing = facts.missing.clone();
    // Which server it is, and in the home whether it has moved. Ending sessions has a finding of its own.
    let is_needed = |name: &str| match name {
        "pg_terminate_backend" => false,
        "pg_control_system" => prepares || facts.home.is_some(),
        _ => facts.home.is_some(),
    };
    let needed = facts.refused_functions.iter().filter(|name| is_needed(name));
    missing.extend(needed.map(|name| format!("EXECUTE ON FUNCTION {name}")));
    if missing.is_empty() {
        return PRIVILEGES
            .ok(place, format!("{role} may do what our statements need; other tables were not looked at"));
    }
    let grants: Vec<String> = missing.iter().map(|what| format!("GRANT {what} TO {role}")).collect();
    PRIVILEGES.void(place, format!("{role} lacks {}", missing.join(", ")), grants.join("; "))
}

/// What others put into a schema of the search path is taken for what is meant when it fits better, or comes first.
fn search_path(place: &str, facts: &ServerFacts) -> Finding {
    if facts.open_schemas.is_empty() {
        return SEARCH_PATH.ok(place, "nobody but owners may create in the schemas of the search path");
    }
    let (mut found, mut change) = (Vec::new(), Vec::new());
    for schema in &facts.open_schemas {
        let (name, roles) = (quoted(&schema.name), schema.roles.join(", "));
        let listed = |role: &String| if role == "PUBLIC" { role.clone() } else { quoted(role) };
        let from = schema.roles.iter().map(listed).collect::<Vec<_>>().join(", ");
        if schema.exists {
            found.push(format!("{roles} may create in schema {name}"));
            change.push(format!("REVOKE CREATE ON SCHEMA {name} FROM {from}"));
        } else {
            found.push(format!("{roles} may make a schema {name}, which then comes first"));
            change.push(format!("REVOKE CREATE ON DATABASE {} FROM {from}", quoted(&facts.database)));
        }
    }
    let found = format!("{}: what they make there may run in our sessions", found.join("; "));
    SEARCH_PATH.warning(place, found, change.join("; "))
}

fn instances(place: &str, home: &HomeFacts, hash: &str) -> Finding {
    let live = match &home.live {
        Ok(live) => live,
        Err(reason) => return INSTANCES.unseen(place, reason, "see the findings on schema and privileges"),
    };
    let others: Vec<String> = live
        .iter()
        .filter(|instance| instance.configuration_hash != hash)
        .map(|instance| format!("{} ({})", instance.name, instance.incarnation))
        .collect();
    if others.is_empty() {
        return INSTANCES.ok(place, format!("{} live instance(s), all as the files here say", live.len()));
    }
    let found = format!(
        "{} of {} live instance(s) run other configurations than the files here: {}. One that was killed counts until \
         another fences it",
        others.len(),
        live.len(),
        others.join(", ")
    );
    INSTANCES.warning(place, found, "give all instances the same configurations, and start them anew")
}

fn autovacuum(place: &str, facts: &ServerFacts, home: &HomeFacts) -> Finding {
    if let Some(setting) = facts.settings.get("autovacuum").filter(|setting| setting.value != "on") {
        let found = format!("{} ({}): rows are updated and removed all the time", setting.value, origin(setting));
        return AUTOVACUUM.warning(place, found, "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()");
    }
    match home.never_vacuumed.as_slice() {
        [] => AUTOVACUUM.ok(place, "on"),
        tables => {
            let change = "ALTER TABLE … RESET (autovacuum_enabled)";
            AUTOVACUUM.warning(place, format!("switched off for {}", tables.join(", ")), change)
        }
    }
}

/// Who has set it, in words.
fn origin(setting: &Setting) -> &str {
    match setting.source.as_str() {
        "user" => "set for the role",
        "database" => "set for the database",
        "database user" => "set for the role in this database",
        "client" => "set in the url",
        other => other,
    }
}

/// The statement that changes a setting where it was set.
fn set(assignment: &str, setting: &Setting, facts: &ServerFacts) -> String {
    let (role, database) = (quoted(&facts.login), quoted(&facts.database));
    match setting.source.as_str() {
        "user" => format!("ALTER ROLE {role} SET {assignment}"),
        "database" => format!("ALTER DATABASE {database} SET {assignment}"),
        "database user" => format!("ALTER ROLE {role} IN DATABASE {database} SET {assignment}"),
        "client" => format!("{assignment} in `options` of the url"),
        _ => format!("ALTER SYSTEM SET {assignment}; SELECT pg_reload_conf()"),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
#[path = "database_tests.rs"]
pub(super) mod tests;
