//! Free ports, and who holds a taken one.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use super::DevError;
use super::children::{all_pids, command_line};

/// Ports given out by this process. Each is given once: whoever has it may be stopped at the moment, to come back on it.
static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port of 127.0.0.1 that was free a moment ago, and that this process has not given out before.
///
/// It lies below the range from which the kernel picks ports for outgoing connections: a client that keeps knocking at
/// a stopped server's port inside that range sooner or later connects to itself, and the server cannot come back.
///
/// # Errors
/// `NoFreePort` when nothing can be bound.
pub fn free_port() -> Result<u16, DevError> {
    let first_outgoing = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next().and_then(|first| first.parse::<u16>().ok()))
        .unwrap_or(32768);
    let width = first_outgoing.saturating_sub(10_000).min(16_000);
    for _ in 0..100 {
        if width == 0 {
            break;
        }
        let port = first_outgoing - 1 - random_u16() % width;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && first_time(port) {
            return Ok(port);
        }
    }
    let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    any.map(|address| address.port()).map_err(|_| DevError::NoFreePort)
}

fn first_time(port: u16) -> bool {
    GIVEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(HashSet::new).insert(port)
}

fn random_u16() -> u16 {
    let [first, second, ..] = *uuid::Uuid::new_v4().as_bytes();
    u16::from_be_bytes([first, second])
}

/// Who listens on a port: shown when a port that the user asked for is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    pub pid: u32,
    /// The program and its arguments, cut to 80 characters.
    pub command: String,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.command)
    }
}

/// The process that listens on `port`; `None` when there is none or it belongs to another user.
#[must_use]
pub fn holder_of(port: u16) -> Option<PortHolder> {
    let inodes: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listeners_in(&table, port))
        .collect();
    let pid = all_pids().into_iter().find(|pid| holds_socket(*pid, &inodes))?;
    Some(PortHolder { pid, command: command_line(pid).chars().take(80).collect() })
}

/// The socket inodes of a `/proc/net/tcp` table that listen (state 0A) on `port`.
fn listeners_in(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(1).is_some_and(|local| local.ends_with(&suffix)) && row.get(3) == Some(&"0A"))
        .filter_map(|row| row.get(9).map(|inode| (*inode).to_owned()))
        .collect()
}

fn holds_socket(pid: u32, inodes: &HashSet<String>) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).any(|target| {
        let target = target.to_string_lossy();
        target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).is_some_and(|n| inodes.contains(n))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_taken_port_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let holder = holder_of(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.command.is_empty());
    }

    #[test]
    fn a_free_port_lies_below_the_kernels_outgoing_range() {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        for _ in 0..20 {
            let port = free_port().unwrap();
            assert!(port < first, "{port} is not below {first}");
            assert!(holder_of(port).is_none());
        }
    }

    #[test]
    fn no_port_is_given_out_twice() {
        let mut given: Vec<u16> = (0..600).map(|_| free_port().unwrap()).collect();
        given.sort_unstable();
        assert!(given.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
