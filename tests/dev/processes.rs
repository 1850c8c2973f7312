//! Processes, as the kernel shows them.

use std::fs;
use std::path::Path;

pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Living processes that mention `folder` in their environment or arguments.
pub fn processes_of(folder: &Path) -> Vec<u32> {
    let wanted = folder.to_str().unwrap();
    let mentions = |pid: &u32| {
        ["environ", "cmdline"].iter().any(|file| {
            let raw = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&raw).contains(wanted)
        })
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id() && is_alive(*pid) && mentions(pid)).collect()
}

/// The addresses, in the kernel's notation, on which `pid` listens.
pub fn listens_on(pid: u32) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let sockets: Vec<String> = links
        .filter_map(|link| fs::read_link(link.ok()?.path()).ok())
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1)).map(|row| row.split_whitespace().collect());
    rows.filter(|row: &Vec<&str>| row[3] == "0A" && sockets.iter().any(|inode| inode == row[9]))
        .map(|row| row[1].split(':').next().unwrap().to_owned())
        .collect()
}
