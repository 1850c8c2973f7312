//! One process of the program, armed or not.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use posthaste::dev::free_port;
use posthaste::txn::faults::Point;
use reqwest::Method;
use tempfile::TempDir;

use crate::site::configuration;
use crate::support::client::{self, Reply};
use crate::support::{LONG, SOON, eventually};

/// What shall happen where, as the program is told.
#[derive(Clone, Copy)]
pub struct Armed {
    pub point: Point,
    /// `error`, `panic`, `exit`, `stop` or `wait`.
    pub kind: &'static str,
    /// The how many-th time.
    pub nth: u32,
    /// Only in a transaction that several messages share.
    pub group: bool,
}

/// What goes wrong in an instance.
#[derive(Clone, Copy)]
pub enum Fault {
    At(Armed),
    /// This task panics whenever it comes round, until it may go on.
    Task(&'static str),
}

impl Fault {
    /// Of the file that it leaves.
    const fn name(&self) -> &'static str {
        match self {
            Self::At(armed) => armed.point.name(),
            Self::Task(task) => task,
        }
    }
}

pub struct Instance {
    pub api: SocketAddr,
    pub console: SocketAddr,
    case: String,
    http: reqwest::Client,
    folder: TempDir,
    fault: Mutex<Option<Fault>>,
    process: Mutex<Option<(Child, Leash)>>,
}

/// Ends the process when the tests are killed: it reads from a pipe that closes with them.
struct Leash(Child);

impl Instance {
    /// Files in a folder of its own.
    pub fn lay_out(case: &str, resources: &str, fault: Option<Fault>) -> Self {
        let [api, console] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())));
        let folder = TempDir::new().unwrap();
        let http = format!("http: {{ api: {{ listen: '{api}' }}, console: {{ listen: '{console}' }} }}\n");
        fs::write(folder.path().join("resources.yml"), format!("{resources}{http}")).unwrap();
        fs::create_dir(folder.path().join("configurations")).unwrap();
        std::os::unix::fs::symlink(configuration(), folder.path().join("configurations/matrix")).unwrap();
        fs::create_dir(folder.path().join("hits")).unwrap();
        let (case, http, fault) = (case.to_owned(), client::new(), Mutex::new(fault));
        Self { api, console, case, http, folder, fault, process: Mutex::default() }
    }

    fn prepare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.args(["--resources", "resources.yml", "--configurations", "configurations"]);
        command.env_remove("POSTHASTE_RESOURCES").env_remove("POSTHASTE_CONFIGURATIONS");
        command
    }

    /// Runs another command of the program on this installation, to its end.
    pub async fn command(&self, arguments: &[&str]) -> Output {
        tokio::process::Command::from(self.prepare(arguments)).output().await.unwrap()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("posthaste.log")
    }

    /// Everything that its processes have said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub fn run(&self) {
        assert!(!self.runs(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.prepare(&["run"]);
        let fault = *self.fault.lock().unwrap();
        match fault {
            Some(Fault::At(Armed { point, kind, nth, group })) => {
                let group = if group { ":group" } else { "" };
                command.env("POSTHASTE_FAULT", format!("{}:{kind}:{nth}{group}", point.name()));
            }
            Some(Fault::Task(task)) => drop(command.env("POSTHASTE_FAULT_TASK", task)),
            None => {}
        }
        command.env("POSTHASTE_FAULT_HITS", self.folder.path().join("hits"));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut leash = Command::new("/bin/sh");
        leash.args(["-c", r#"cat >/dev/null; kill -KILL "$1""#, "leash", &child.id().to_string()]);
        let leash = leash.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        *self.process.lock().unwrap() = Some((child, Leash(leash)));
    }

    /// From its next start on it is like any other.
    pub fn disarm(&self) {
        *self.fault.lock().unwrap() = None;
    }

    pub fn runs(&self) -> bool {
        self.process.lock().unwrap().is_some()
    }

    pub fn pid(&self) -> i32 {
        let process = self.process.lock().unwrap();
        process.as_ref().expect("it does not run").0.id().cast_signed()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits until the process has ended.
    pub async fn ended(&self, bound: Duration) -> ExitStatus {
        let (mut child, leash) = self.process.lock().unwrap().take().expect("it does not run");
        let probe = async || child.try_wait().unwrap().ok_or_else(|| "still running".to_owned());
        let status = eventually("the process ends", bound, probe).await;
        drop(leash);
        status
    }

    /// It must end by SIGKILL, its own or ours.
    pub async fn was_killed(&self) {
        let status = self.ended(SOON).await;
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status:?}");
    }

    /// On a busy machine a healthy instance may give no sign of life for a whole lease: it is fenced, says so, and is
    /// started again. It may end for no other reason.
    pub fn revive(&self) {
        let ended = self.process.lock().unwrap().as_mut().and_then(|(child, _)| child.try_wait().unwrap());
        if let Some(status) = ended {
            self.was_fenced(status);
            drop(self.process.lock().unwrap().take());
            self.run();
        }
    }

    /// What a fenced one says, and how it ends.
    pub fn was_fenced(&self, status: ExitStatus) {
        assert_eq!(status.code(), Some(70), "{}: {status:?}", self.case);
        let said = self.said();
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains("another instance has taken over from this one"), "{}: {last}", self.case);
    }

    /// Asks it to stop, if it runs; it must do so without complaint.
    pub async fn stop(&self) {
        if self.runs() {
            self.signal(Signal::SIGTERM);
            let status = self.ended(LONG).await;
            if status.code() != Some(0) {
                self.was_fenced(status);
            }
        }
    }

    fn hit_file(&self) -> PathBuf {
        let fault = self.fault.lock().unwrap().expect("it is not armed");
        self.folder.path().join("hits").join(fault.name())
    }

    /// Whether the armed point was met, as often as wanted.
    pub fn was_hit(&self) -> bool {
        self.hit_file().exists()
    }

    pub async fn hit(&self, bound: Duration) {
        let probe = async || if self.was_hit() { Ok(()) } else { Err("never hit".to_owned()) };
        eventually("the point is met", bound, probe).await;
    }

    /// What waits at the point may go on.
    pub fn go_on(&self) {
        let hit = self.hit_file();
        let name = format!("{}.go", hit.file_name().unwrap().to_str().unwrap());
        fs::write(hit.with_file_name(name), "").unwrap();
    }

    /// Waits until messages are accepted and processed.
    pub async fn ready(&self) {
        let probe = async || {
            self.revive();
            match self.readyz().await {
                Ok(reply) if reply.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        eventually("/readyz answers 200", LONG, probe).await;
    }

    /// The same, unless the point is met before.
    pub async fn ready_or_hit(&self) {
        let probe = async || match self.readyz().await {
            Ok(reply) if reply.status == 200 => Ok(()),
            _ if self.was_hit() => Ok(()),
            other => Err(format!("{other:?}")),
        };
        eventually("/readyz answers 200, or the point is met", LONG, probe).await;
    }

    pub async fn readyz(&self) -> reqwest::Result<Reply> {
        let request = client::request(&self.http, Method::GET, self.console, "/readyz");
        client::try_send(request.timeout(Duration::from_secs(5))).await
    }

    pub async fn metrics(&self) -> reqwest::Result<Reply> {
        client::try_send(client::request(&self.http, Method::GET, self.console, "/metrics")).await
    }

    pub async fn post(&self, path: &str, id: &str, body: &str) -> reqwest::Result<Reply> {
        let request = client::request(&self.http, Method::POST, self.api, path).header("Message-Id", id);
        client::try_send(request.header("Content-Type", "text/plain").body(body.to_owned())).await
    }

    /// A POST to the management address.
    pub async fn act(&self, path: &str) -> Result<(), String> {
        let request = client::request(&self.http, Method::POST, self.console, path);
        let reply = client::try_send(request.json(&serde_json::json!({"reason": "a test"}))).await;
        let reply = reply.map_err(|error| format!("{path}: {error:?}"))?;
        if reply.status == 200 { Ok(()) } else { Err(format!("{path}: {reply:?}")) }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some((mut child, leash)) = self.process.lock().unwrap().take() {
            let _gone_already = child.kill();
            let _reaped = child.wait();
            drop(leash);
        }
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("--- {}: the last lines of one instance's log:\n{last}\n---", self.case);
        }
    }
}
