//! What the kernel says of processes: CPU time of a family, peak memory.

use std::fs;

/// Clock ticks of `/proc/<pid>/stat` per second: 100 on every Linux that Rust runs on (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Seconds of CPU that these processes and all below them have used, those that have ended included.
pub fn cpu_seconds(pids: &[u32]) -> f64 {
    let ticks: u64 = families(pids).iter().filter_map(|pid| stat(*pid)).map(|stat| stat.ticks).sum();
    ticks as f64 / TICKS
}

/// Seconds of CPU that this process has used, its children not counted.
pub fn own_cpu_seconds() -> f64 {
    stat(std::process::id()).map_or(0.0, |stat| stat.own_ticks as f64 / TICKS)
}

/// The most memory that one of these processes has had so far, in MiB.
pub fn peak_rss(pids: &[u32]) -> Option<f64> {
    pids.iter().map(|pid| status_mib(*pid, "VmHWM:")).collect::<Option<Vec<f64>>>()?.into_iter().reduce(f64::max)
}

/// The memory that a process has now, in MiB.
pub fn rss(pid: u32) -> Option<f64> {
    status_mib(pid, "VmRSS:")
}

fn status_mib(pid: u32, key: &str) -> Option<f64> {
    mib_in(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, key)
}

/// In `VmHWM:     1024 kB`.
pub fn mib_in(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

/// In `/proc/<pid>/stat`.
pub struct Stat {
    pub parent: u32,
    pub own_ticks: u64,
    /// Of the process and of its children that were waited for.
    pub ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    stat_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

pub fn stat_in(text: &str) -> Option<Stat> {
    // The command's name stands in parentheses and may itself hold spaces and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let sum = |words: &[&str]| words.iter().map(|word| word.parse::<u64>().ok()).sum::<Option<u64>>();
    let (own_ticks, ticks) = (sum(words.get(11..13)?)?, sum(words.get(11..15)?)?);
    Some(Stat { parent: words.get(1)?.parse().ok()?, own_ticks, ticks })
}

/// These processes and all below them.
pub fn families(pids: &[u32]) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = all.filter_map(|pid: u32| Some((pid, stat(pid)?.parent))).collect();
    let mut family = pids.to_vec();
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}
