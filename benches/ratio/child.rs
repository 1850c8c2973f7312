//! A process that is measured: it ends with the benchmark, however that ends.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub struct Measured {
    child: Child,
    /// Ends the process when the benchmark is killed: it reads from a pipe that closes with it.
    leash: Child,
}

/// How long a process may take to finish what it has in hand.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

impl Measured {
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let errors = log.try_clone()?;
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().context("start a process")?;
        let mut leash = Command::new("/bin/sh");
        leash.args(["-c", r#"cat >/dev/null; kill -KILL "$1" 2>/dev/null"#, "leash", &child.id().to_string()]);
        let leash = leash.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { child, leash })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGTERM)?;
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > STOPS_WITHIN {
                bail!("process {} does not end", self.pid());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
        // Last: the pid may now become another's.
        let _gone_already = self.leash.kill();
        let _reaped = self.leash.wait();
    }
}
