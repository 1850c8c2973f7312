//! File descriptors: as many as the system gives, and some of them never for clients. Without those the database and the broker
//! could not be reached again while clients are connected, nor could the management address.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::CONSOLE_CONNECTIONS;
use crate::config::Settings;

/// Listeners, logs, event queues, files that are read.
const OTHERS: usize = 64;
/// Connections to one broker: two, those that publish apart, and questions.
const PER_BROKER: usize = 8;
/// Connections to one database, beside those that process messages.
const PER_DATABASE: usize = 40;
/// More is never needed, and a limit may be "unlimited".
const MOST: u64 = 1 << 20;

/// How many clients the API may let in, and what is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    pub at_most: usize,
    pub warning: Option<String>,
}

/// Raises this process's limit as far as it may, and answers it.
pub fn raise() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usize::MAX };
    let wanted = hard.min(MOST).max(soft);
    let limit = if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// What is kept back for servers, console and files.
pub fn kept(settings: &Settings) -> usize {
    // A session whose commit was abandoned may stand beside the one that took its place.
    let databases = settings.postgres.iter().map(|one| 2 * (one.pool_max_size + PER_DATABASE));
    OTHERS + CONSOLE_CONNECTIONS + PER_BROKER * settings.amqp.len() + databases.sum::<usize>()
}

/// Pure. A quarter of the limit is the clients' in any case.
pub fn clients(limit: usize, kept: usize, wanted: usize) -> Clients {
    let room = limit.saturating_sub(kept).max(limit / 4);
    if wanted <= room {
        return Clients { at_most: wanted, warning: None };
    }
    let warning = format!(
        "http.api.maxConnections is {wanted}, and the limit of file descriptors, {limit}, leaves {room} for clients: no more \
         are let in at once; raise it to {} (ulimit -n, LimitNOFILE=) or lower maxConnections",
        wanted + kept
    );
    Clients { at_most: room, warning: Some(warning) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_they_may_have_unless_servers_would_have_nothing() {
        assert_eq!(clients(1 << 20, 400, 1024), Clients { at_most: 1024, warning: None });
        assert_eq!(clients(1424, 400, 1024), Clients { at_most: 1024, warning: None });
        let told = clients(1024, 400, 1024);
        assert_eq!(told.at_most, 624);
        let warning = told.warning.unwrap();
        assert!(warning.contains("maxConnections is 1024") && warning.contains("raise it to 1424"), "{warning}");
        assert_eq!(clients(256, 400, 1024).at_most, 64);
    }

    #[test]
    fn the_limit_is_raised_as_far_as_it_may() {
        let raised = raise();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((raised as u64, soft), (soft, hard.min(MOST).max(soft)));
    }
}
