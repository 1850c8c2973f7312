//! A `posthaste dev` of the real binary, with a temporary folder of its own: no other one is seen, none sees it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::markdown::root;

pub struct Dev {
    process: Child,
    /// Ends the process when the tests are killed: it reads from a pipe that closes with them.
    leash: Child,
    temp: TempDir,
    /// Host and port.
    pub api: String,
    pub console: String,
    pub database: String,
}

/// How long servers, and messages with their retries, may take on a busy machine.
pub const LONG: Duration = Duration::from_secs(120);

impl Dev {
    /// Runs the repository's own application, and waits until it accepts.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with one of `examples/`, as `make run EXAMPLE=…` does.
    pub fn start_example(name: &str) -> Self {
        let folder = format!("examples/{name}");
        let (resources, configurations) = (format!("{folder}/resources.yml"), format!("{folder}/configurations"));
        Self::start_with(&["--resources", &resources, "--configurations", &configurations])
    }

    fn start_with(options: &[&str]) -> Self {
        let temp = TempDir::new().unwrap();
        // The private servers run as another user when this is root.
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
        command
            .args(["dev", "--port", "0", "--log", "warn"])
            .args(options)
            .current_dir(root())
            .env("TMPDIR", temp.path());
        let log = fs::File::create(temp.path().join("dev.log")).unwrap();
        let process = without_settings(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = process.spawn().unwrap();
        let leash = Command::new("/bin/sh")
            .args(["-c", r#"cat >/dev/null; kill -TERM "$1" 2>/dev/null"#, "leash", &process.id().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let [api, console, database] = ["  API ", "  Console ", "  PostgreSQL "].map(|label| {
            let line = lines.by_ref().find(|line| line.starts_with(label));
            let line = line.unwrap_or_else(|| panic!("the banner has no {label}: {}", log_of(&temp)));
            line.split_whitespace().nth(1).unwrap().trim_start_matches("http://").to_owned()
        });
        thread::spawn(move || lines.count());
        let dev = Self { process, leash, temp, api, console, database };
        let ready = "curl --silent http://127.0.0.1:8081/readyz";
        dev.until(ready, |seen| seen.status.success() && text(seen).contains(r#""accepting":true"#));
        dev
    }

    /// A shell command as a document shows it, on this instance: the ports of `make run` become those of this one.
    pub fn command(&self, shown: &str) -> Command {
        let script = shown.replace("127.0.0.1:8080", &self.api).replace("127.0.0.1:8081", &self.console);
        let binaries = std::path::Path::new(env!("CARGO_BIN_EXE_posthaste")).parent().unwrap();
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-c", &script]).current_dir(root()).stdin(Stdio::null());
        without_settings(&mut command).env("PATH", path).env("DB", &self.database).env("TMPDIR", self.temp.path());
        command.env("API_LISTEN", &self.api).env("CONSOLE_LISTEN", &self.console).env("PAGER", "");
        command
    }

    pub fn run(&self, shown: &str) -> Output {
        self.command(shown).output().unwrap()
    }

    /// Runs a command that only reads, until its output is the wanted one.
    pub fn until(&self, shown: &str, wanted: impl Fn(&Output) -> bool) -> Output {
        let begun = Instant::now();
        loop {
            let seen = self.run(shown);
            if wanted(&seen) {
                return seen;
            }
            assert!(begun.elapsed() < LONG, "not within {LONG:?}: {shown}\n{}\n{}", text(&seen), log_of(&self.temp));
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The one number that a query answers.
    pub fn number(&self, sql: &str) -> i64 {
        let answer = self.run(&format!("psql \"$DB\" -XAtc \"{}\"", sql.replace('"', "\\\"")));
        text(&answer).trim().parse().unwrap_or_else(|error| panic!("{sql}: {error}: {}", text(&answer)))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _gone_already = kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) && matches!(self.process.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(50));
        }
        let _gone_already = self.process.kill();
        let _reaped = self.process.wait();
        let _gone_already = self.leash.kill();
        let _reaped = self.leash.wait();
    }
}

/// Both streams, as a person at a terminal sees them.
pub fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars() {
        let ours = ["POSTHASTE_", "DB_", "AMQP_", "PG", "CONSOLE_"].iter().any(|prefix| name.starts_with(prefix));
        if ours || name == "API_LISTEN" {
            command.env_remove(name);
        }
    }
    command
}

fn log_of(temp: &TempDir) -> String {
    let mut log = String::new();
    let _unreadable = fs::File::open(temp.path().join("dev.log")).and_then(|mut file| file.read_to_string(&mut log));
    log
}
