//! A process with little memory: in a memory cgroup where one can be made, and how much it has had in any case.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use posthaste::dev::fresh_name;

use super::App;

/// A memory cgroup of its own, until it is dropped.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Where processes together have so many bytes and are killed beyond; nothing where this user may make none.
    pub fn with(bytes: u64) -> Option<Self> {
        let mine = fs::read_to_string("/proc/self/cgroup").ok()?;
        let made = mine.lines().find_map(|line| {
            let (_, controllers_and_path) = line.split_once(':')?;
            let (controllers, path) = controllers_and_path.split_once(':')?;
            let (root, limit) = match controllers {
                "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                "" => ("/sys/fs/cgroup", "memory.max"),
                _ => return None,
            };
            let parent = Path::new(root).join(path.trim_start_matches('/'));
            let made = Self(parent.join(fresh_name("posthaste")));
            fs::create_dir(&made.0).ok()?;
            fs::write(made.0.join(limit), bytes.to_string()).ok()?;
            Some(made)
        });
        if made.is_none() {
            eprintln!("no memory cgroup can be made here: the peak is looked at alone");
        }
        made
    }

    /// The same command as a process of it.
    fn around(&self, command: &Command) -> Command {
        let mut around = Command::new("/bin/sh");
        around.args(["-c", r#"echo $$ > "$0"; exec "$@""#]).arg(self.0.join("cgroup.procs"));
        around.arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            around.current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => around.env(name, value),
                None => around.env_remove(name),
            };
        }
        around
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its process is gone, or it stays.
        let _removed = fs::remove_dir(&self.0);
    }
}

impl App {
    /// Starts the process, in a cgroup if there is one.
    pub fn run_in(&mut self, cgroup: Option<&Cgroup>) {
        let command = self.prepare(&["run"]);
        self.start_process(match cgroup {
            Some(cgroup) => cgroup.around(&command),
            None => command,
        });
    }

    /// The most memory that the process has had since its start, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line VmHWM");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
        kib * 1024
    }
}
