//! Rules within resources.yml, and the migrations' databases.

use std::net::SocketAddr;

use super::super::diagnostic::Report;
use super::super::folders::Folder;
use super::super::resources::Resources;
use super::super::values::{did_you_mean, one_of};
use super::{check_unique, help_for, proposable};

pub(super) fn check(resources: &Resources, report: &mut Report) {
    let postgres = || resources.postgres.iter().map(|entry| &entry.name);
    check_unique(postgres(), "the postgres entry", "each entry has its own name", report);
    check_unique(
        resources.amqp.iter().map(|entry| &entry.name),
        "the amqp entry",
        "each entry has its own name",
        report,
    );
    for entry in &resources.amqp {
        check_unique(entry.queues.iter().map(|queue| &queue.name), "the queue", "list it once", report);
    }
    let home = &resources.instance.home;
    if !home.is_absent() && !resources.postgres.is_empty() && !postgres().any(|name| name.value == home.value) {
        let help = help_for(home, &proposable(postgres()), "postgres entry");
        report.error(home.at, format!("`home` names no postgres entry: `{}`", home.shown()), help);
    }
    check_addresses(resources, report);
}

fn check_addresses(resources: &Resources, report: &mut Report) {
    let console = &resources.console;
    if !console.listen.ip().is_loopback() && !console.unauthenticated {
        let message = format!("the console has no log-ins, and {} is not loopback", console.listen);
        let help = "listen on 127.0.0.1; or set http.console.unauthenticated: true if only trusted clients reach it";
        report.error(resources.console_at, message, help);
    }
    if overlap(resources.api.listen, console.listen) {
        let message = format!("the console and the API cannot share port {}", console.listen.port());
        report.error(resources.console_at, message, "give http.api.listen or http.console.listen another port");
    }
}

/// Whether the second of two listeners would find its address taken.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_ip
}

pub(super) fn check_migrations(resources: &Resources, folders: &[Folder], report: &mut Report) {
    let names = proposable(resources.postgres.iter().map(|entry| &entry.name));
    for folder in folders {
        for name in folder.configuration.migrations.keys() {
            if !resources.postgres.iter().any(|entry| entry.name.value == *name) {
                let path = folder.path.join("migrations").join(name);
                let help = did_you_mean(name, names.iter().copied())
                    .unwrap_or_else(|| format!("rename the folder to {}", one_of(&names)));
                report.error_in(&path, format!("no postgres entry is named `{name}`"), help);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_addresses_overlap_when_one_covers_the_other() {
        let overlaps = |one: &str, other: &str| overlap(one.parse().unwrap(), other.parse().unwrap());
        assert!(overlaps("127.0.0.1:80", "127.0.0.1:80"));
        assert!(overlaps("0.0.0.0:80", "127.0.0.1:80"));
        assert!(!overlaps("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!overlaps("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!overlaps("127.0.0.1:80", "127.0.0.1:81"));
    }
}
