//! One server process: started clean and unprivileged, on a leash, ended in bounded time.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::DevError;
use super::children::{family_of, is_alive, stands_still};
use super::folder::{Folder, MARKER, Unprivileged};

/// Waits until the owner's end of the pipe closes, then ends the server (`$1`, by signal `$2`) and removes the folder
/// (`$3`, empty when kept). A zombie counts as gone: its parent may be one that reaps nobody.
const LEASH: &str = r#"
cat >/dev/null
kill -CONT "$1" 2>/dev/null
kill -"$2" "$1" 2>/dev/null
n=0
while [ $n -lt 100 ] && grep -q '^State:[[:space:]]*[^Z[:space:]]' "/proc/$1/status" 2>/dev/null; do
  n=$((n+1)); sleep 0.1
done
kill -KILL "$1" 2>/dev/null
[ -z "$3" ] || rm -rf -- "$3"
"#;

/// What to start, and how it ends at once when its owner is gone.
pub(super) struct Plan<'a> {
    pub name: &'static str,
    pub program: &'a Path,
    pub arguments: Vec<OsString>,
    pub environment: Vec<(&'static str, OsString)>,
    /// Standard output and error are appended here.
    pub log: PathBuf,
    /// Keep a pipe to the server's standard input, which closes with the owner.
    pub input: bool,
    pub at_once: Signal,
    pub folder: &'a Folder,
    /// Whether the leash removes the folder: one process of the folder only.
    pub removes_folder: bool,
}

/// A running process. Dropping it lets the leash end it.
pub(super) struct Process {
    name: &'static str,
    child: Child,
    leash: Leash,
}

impl Process {
    pub(super) fn start(plan: Plan<'_>) -> Result<Self, DevError> {
        let log = append_to(&plan.log)?;
        let errors = log.try_clone().map_err(DevError::io("open the server's log"))?;
        let mut command = clean_command(plan.program, plan.folder.user());
        command.args(&plan.arguments).envs(plan.environment).env(MARKER, plan.folder.path());
        command.stdin(if plan.input { Stdio::piped() } else { Stdio::null() }).stdout(log).stderr(errors);
        let child = command.spawn().map_err(DevError::io(format!("start {}", plan.program.display())))?;
        let folder = plan.removes_folder.then(|| plan.folder.removable()).flatten();
        let leash = Leash::hold(child.id(), plan.at_once, folder);
        match leash {
            Ok(leash) => Ok(Self { name: plan.name, child, leash }),
            Err(error) => {
                signal(child.id(), Signal::SIGKILL);
                Err(error)
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn input(&mut self) -> Option<&mut ChildStdin> {
        self.child.stdin.as_mut()
    }

    /// How it ended, or `None` while it runs.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>, DevError> {
        let status = self.child.try_wait().map_err(DevError::io(format!("wait for {}", self.name)))?;
        if status.is_some() {
            // Its pid may now become somebody else's.
            self.leash.release();
        }
        Ok(status)
    }

    /// Asks it to end, waits at most `patience`, then kills it.
    pub(super) async fn end(mut self, how: Signal, patience: Duration) -> Result<(), DevError> {
        signal(self.pid(), how);
        if !self.wait(patience).await? {
            self.kill_family().await?;
        }
        Ok(())
    }

    /// SIGKILL to it and everything below it, as when the machine dies.
    pub(super) async fn kill_family(mut self) -> Result<(), DevError> {
        // Stopped first, so that it starts no child that the list would miss.
        signal(self.pid(), Signal::SIGSTOP);
        let deadline = Instant::now() + Duration::from_secs(1);
        while !stands_still(self.pid()) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let family = family_of(self.pid());
        for pid in &family {
            signal(*pid, Signal::SIGKILL);
        }
        self.wait(Duration::from_secs(5)).await?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while family.iter().any(|pid| is_alive(*pid)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Sends a signal to it and everything below it.
    pub(super) fn signal_family(&self, how: Signal) {
        for pid in family_of(self.pid()) {
            signal(pid, how);
        }
    }

    /// Stops it and everything below it in place.
    pub(super) async fn pause(&self) -> Result<(), DevError> {
        stop_in_place(self.pid()).await
    }

    async fn wait(&mut self, patience: Duration) -> Result<bool, DevError> {
        let deadline = Instant::now() + patience;
        loop {
            if self.ended()?.is_some() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A shell that ends the server when this process is gone, however it went.
struct Leash(Child);

impl Leash {
    fn hold(pid: u32, at_once: Signal, folder: Option<&Path>) -> Result<Self, DevError> {
        let mut command = clean_command(Path::new("/bin/sh"), None);
        let how = at_once.as_str().trim_start_matches("SIG");
        command.args(["-c", LEASH, "posthaste-dev-leash"]).arg(pid.to_string()).arg(how);
        command.arg(folder.unwrap_or(Path::new("")));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).map_err(DevError::io("start /bin/sh"))
    }

    fn release(&mut self) {
        // An error means that it is gone already, which is what is wanted.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A command with an empty environment but for PATH and LANG, in `/`, in a process group of its own (a Ctrl-C at the
/// terminal is for the owner), and as `user` when given.
pub(super) fn clean_command(program: &Path, user: Option<&Unprivileged>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", search_path()).env("LANG", "C.UTF-8").current_dir("/").process_group(0);
    if let Some(user) = user {
        // The standard library drops root's supplementary groups along with the uid.
        command.uid(user.uid).gid(user.gid);
    }
    command
}

fn search_path() -> OsString {
    let mut path = OsString::from("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    if let Some(callers) = std::env::var_os("PATH") {
        path.push(":");
        path.push(callers);
    }
    path
}

/// Runs a short-lived program to its end; answers its output, or what it said on failure.
pub(super) async fn run(command: Command, doing: &'static str, bound: Duration) -> Result<String, DevError> {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(bound, command.output()).await {
        Ok(output) => output.map_err(DevError::io(doing))?,
        Err(_elapsed) => {
            return Err(DevError::Command { doing, said: format!("no answer within {} s", bound.as_secs()) });
        }
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stderr, output.stdout].map(|text| String::from_utf8_lossy(&text).trim().to_owned()).join("\n");
    Err(DevError::Command { doing, said: said.trim().to_owned() })
}

/// Stops a process and everything below it (SIGSTOP), and returns when each thread of theirs stands still: the signal
/// alone is only on its way, and what it is sent to may do some more work. One that is gone counts as standing still.
///
/// # Errors
/// `Command` when something of it still runs after 10 seconds; the rest stays stopped.
pub async fn stop_in_place(pid: u32) -> Result<(), DevError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let family = family_of(pid);
        family.iter().for_each(|member| signal(*member, Signal::SIGSTOP));
        let running: Vec<u32> = family.iter().copied().filter(|member| !stands_still(*member)).collect();
        // A child that was started in between is in the next list.
        if running.is_empty() && family == family_of(pid) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(DevError::Command { doing: "stop processes in place", said: format!("{running:?} run on") });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Sends a signal; a process that is gone is no error.
pub(super) fn signal(pid: u32, how: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _gone_already = kill(Pid::from_raw(pid), how);
    }
}

fn append_to(path: &Path) -> Result<File, DevError> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
    opened.map_err(DevError::io(format!("open {}", path.display())))
}

/// How long a file is now, to read later only what was added.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map(|meta| meta.len()).unwrap_or(0)
}

/// What was added to a file since it was `from` long; empty when it cannot be read.
pub(super) fn text_since(path: &Path, from: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// The last lines of a server's logs, for an error message.
pub(super) fn end_of(logs: &[&Path]) -> String {
    let text: String = logs.iter().map(|log| text_since(log, length(log).saturating_sub(16_384))).collect();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.iter().skip(lines.len().saturating_sub(15)).map(|line| format!("  {line}\n")).collect()
}
