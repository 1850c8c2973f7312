//! What no server shows alone: clocks against each other, prepared transactions over entries, retention against
//! retries. Pure.

use std::time::Duration;

use super::finding::{Check, Finding};
use super::needs::Memory;
use crate::store::{ClockReading, ServerFacts, StoreError};

const CLOCK: Check = Check::new("clock", "times in logs and in tables can be lined up", &[]);
const PREPARED: Check = Check::new("max_prepared_transactions", "all or nothing across databases", &["I6"]);
const REHEARSAL: Check =
    Check::new("rehearsal", "what one session has prepared another can commit and roll back", &["I6"]);
const FENCING: Check = Check::new("fencing", "a stopped instance's transactions are ended, not waited for", &["I6"]);
const RETENTION: Check =
    Check::new("retention", "a repeat is recognised for as long as the first message may be tried", &["I4", "I8"]);

/// What decides is the home database's clock alone, so no promise rests on this. Heart-beats and attempts are a second
/// apart: with more than two, the order of what two logs tell is anybody's guess.
const SKEW: i64 = 2_000_000;

/// One `postgres` entry that answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server<'a> {
    pub place: &'a str,
    pub is_home: bool,
    /// Transactions that one instance may have prepared there at once.
    pub branches: usize,
    pub facts: &'a ServerFacts,
}

/// Each server's clock against ours, and against the home's.
pub(super) fn clocks(servers: &[Server<'_>]) -> Vec<Finding> {
    let home = servers.iter().find(|server| server.is_home);
    let finding = |server: &Server<'_>| {
        let own = server.facts.clock;
        let beside = home.filter(|home| home.place != server.place).map(|home| between(own, home.facts.clock));
        let change = "let one time service (NTP) set the clocks of all machines";
        if certainly_apart(own) {
            return CLOCK.warning(server.place, format!("{} this machine's", apart(own.ahead)), change);
        }
        match beside.filter(|reading| certainly_apart(*reading)) {
            Some(reading) => CLOCK.warning(server.place, format!("{} the home's", apart(reading.ahead)), change),
            None => CLOCK.ok(server.place, "within two seconds of this machine's"),
        }
    };
    servers.iter().map(finding).collect()
}

fn between(one: ClockReading, other: ClockReading) -> ClockReading {
    ClockReading { ahead: one.ahead - other.ahead, uncertain: one.uncertain + other.uncertain }
}

/// What the question's own duration may explain does not count.
fn certainly_apart(reading: ClockReading) -> bool {
    reading.ahead.saturating_abs().saturating_sub(reading.uncertain) > SKEW
}

fn apart(ahead: i64) -> String {
    let span = Duration::from_millis(ahead.unsigned_abs() / 1000);
    format!("{span:?} {}", if ahead > 0 { "ahead of" } else { "behind" })
}

/// Entries of one server share its limit, as they do when an instance starts.
pub(super) fn prepared(servers: &[Server<'_>]) -> Vec<Finding> {
    // What is written to an entry that leads to the home's own database is part of the home's transaction.
    let branches = |server: &Server<'_>| if is_home_again(servers, server) { 0 } else { server.branches };
    let any = servers.iter().any(|server| branches(server) > 0);
    let mut found = Vec::new();
    for server in servers {
        let together = servers.iter().filter(|other| shares_server(server, other)).map(branches);
        let wanted: usize = if branches(server) == 0 { 0 } else { together.sum() };
        let limit = server.facts.settings.get("max_prepared_transactions").map(|setting| setting.value.as_str());
        found.push(prepared_at(server.place, wanted, limit));
        if branches(server) > 0 || (server.is_home && any) {
            found.push(fencing(server));
        }
    }
    found
}

fn is_home_again(servers: &[Server<'_>], server: &Server<'_>) -> bool {
    let home = servers.iter().filter(|one| one.is_home);
    home.into_iter().any(|home| shares_server(home, server) && home.facts.database == server.facts.database)
}

fn shares_server(one: &Server<'_>, other: &Server<'_>) -> bool {
    one.place == other.place || (one.facts.system.is_some() && one.facts.system == other.facts.system)
}

fn prepared_at(place: &str, wanted: usize, limit: Option<&str>) -> Finding {
    if wanted == 0 {
        return PREPARED.ok(place, "not needed: nothing is prepared here");
    }
    let change = format!("ALTER SYSTEM SET max_prepared_transactions = {wanted} (for each instance), and restart");
    match limit.and_then(|limit| limit.parse::<usize>().ok()) {
        Some(limit) if limit >= wanted => PREPARED.ok(place, format!("{limit}; one instance needs {wanted}")),
        Some(limit) => PREPARED.void(place, format!("{limit}, and one instance needs {wanted}"), change),
        None => PREPARED.unseen(place, "the server does not show it", change),
    }
}

/// Tried for real: two empty transactions were prepared and finished.
pub(super) fn rehearsal(place: &str, answer: Result<&(), &StoreError>) -> Finding {
    match answer {
        Ok(()) => REHEARSAL.ok(place, "what one session prepared another has finished"),
        Err(StoreError::Unexpected(reason)) => REHEARSAL.void(
            place,
            reason.clone(),
            "give the entry the key `role`: a role of which the users of all instances are members",
        ),
        Err(error @ (StoreError::Refused { .. } | StoreError::Unreachable(_) | StoreError::Unknown(_))) => {
            REHEARSAL.unseen(place, error.to_string(), "see the findings on max_prepared_transactions and reachable")
        }
    }
}

/// Needed only where something is prepared: a hung instance's session is ended before its outcome is settled.
fn fencing(server: &Server<'_>) -> Finding {
    if server.facts.refused_functions.iter().any(|name| name == "pg_terminate_backend") {
        let change = format!("GRANT EXECUTE ON FUNCTION pg_terminate_backend TO \"{}\"", server.facts.role);
        return FENCING.void(server.place, "the role may not end its own sessions", change);
    }
    if let [_, ..] = server.facts.beyond_reach.as_slice() {
        let found = format!(
            "sessions of other instances have the user {}, and {} may not end them",
            server.facts.beyond_reach.join(", "),
            server.facts.login
        );
        let change = format!("GRANT pg_signal_backend TO \"{}\"", server.facts.role);
        return FENCING.void(server.place, found, change);
    }
    FENCING.ok(server.place, "the role may end its own sessions")
}

/// A log row stays while its message is open or in error, whatever its retention; what may be short is the memory after
/// that. Settled journal rows are kept from their end on, so no retry is too long for them.
pub(super) fn retention(memories: &[Memory]) -> Vec<Finding> {
    let finding = |memory: &Memory| {
        let (place, horizon) = (memory.adapter.as_str(), memory.horizon);
        if memory.retention >= horizon {
            let kept = span(memory.retention);
            return RETENTION.ok(place, format!("{kept}; the last attempt ends within {}", span(horizon)));
        }
        let found = format!(
            "messageLog.retention is {}, and the last attempt may end {} after the acceptance: the id is kept until then \
             and forgotten at once; a client that repeats it later is accepted again",
            span(memory.retention),
            span(horizon)
        );
        let change = format!("messageLog.retention of {place}, beyond {}; or fewer retries", span(horizon));
        RETENTION.warning(place, found, change)
    };
    memories.iter().map(finding).collect()
}

/// In the largest unit that says it with a whole number above one.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let [day, hour, minute] = [86_400, 3_600, 60];
    match seconds {
        _ if seconds >= 2 * day => format!("{} days", seconds.div_ceil(day)),
        _ if seconds >= 2 * hour => format!("{} hours", seconds.div_ceil(hour)),
        _ if seconds >= 2 * minute => format!("{} minutes", seconds.div_ceil(minute)),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
#[path = "across_tests.rs"]
mod tests;
