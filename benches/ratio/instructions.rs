//! Instructions that a process executes in user mode, as `perf stat` counts them; many machines, virtual ones above all, have
//! no counters.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Counts until it is asked.
pub struct Counter(Child);

/// Of the first word of a line such as `123456,,instructions:u,…`; `None`: it was not counted.
pub fn count_in(told: &str) -> Option<f64> {
    let line = told.lines().find(|line| line.contains("instructions"))?;
    line.split(',').next()?.trim().parse().ok()
}

fn perf() -> Command {
    let mut perf = Command::new("perf");
    perf.args(["stat", "-x", ",", "-e", "instructions:u"]).env("LC_ALL", "C");
    perf
}

/// Whether this machine counts.
pub fn are_counted() -> bool {
    let tried = perf().arg("true").output();
    tried.is_ok_and(|tried| count_in(&String::from_utf8_lossy(&tried.stderr)).is_some_and(|count| count > 0.0))
}

impl Counter {
    pub fn start(pid: u32) -> Result<Self> {
        let mut perf = perf();
        perf.args(["-p", &pid.to_string()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(Self(perf.spawn().context("start perf")?))
    }

    pub fn stop(self) -> Result<f64> {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT)?;
        let told = self.0.wait_with_output()?;
        let told = String::from_utf8_lossy(&told.stderr);
        count_in(&told).with_context(|| format!("perf has counted nothing: {told}"))
    }
}
