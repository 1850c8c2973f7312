//! A private PostgreSQL.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::folder::Folder;
use super::process::{Plan, Process, clean_command, end_of, length, run, text_since};
use super::{DevError, Options, binaries, checked_name, free_port};

pub(super) const NAME: &str = "PostgreSQL";
/// The superuser of a private server.
pub(super) const USER: &str = "posthaste";
/// Crash recovery of a small data folder takes a second or two; a loaded machine several times that.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A PostgreSQL of our own. Dropped: ended and its folder removed within seconds; `shutdown` waits for that.
pub struct PrivatePostgres {
    pub(super) process: Option<Process>,
    pub(super) programs: PathBuf,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
    pub(super) port: u16,
    pub(super) password: String,
    pub(super) environment: Vec<(&'static str, OsString)>,
    pub(super) folder: Folder,
}

impl PrivatePostgres {
    /// Makes a cluster (or takes the kept one), starts it and waits until it accepts connections.
    ///
    /// # Errors
    /// `Missing` names the package to install; `EndedEarly` and `NotReady` quote the log.
    pub async fn start(options: &Options) -> Result<Self, DevError> {
        let programs = binaries::postgres_folder(options)?;
        let folder = Folder::open("postgres", options.keep.as_deref(), "postgres").await?;
        let password = folder.secret("password")?;
        let data = folder.subfolder("data")?;
        if !data.join("PG_VERSION").exists() {
            init_cluster(&programs, &folder, &data).await?;
        }
        // A kept cluster that was killed: we hold its folder and ended what ran there. After a reboot its old pid may be
        // another program's, and PostgreSQL would refuse to start.
        let _stale = fs::remove_file(data.join("postmaster.pid"));
        let log = folder.path().join("postgres.log");
        let environment = options.postgres_environment.clone();
        let mut server = Self { process: None, programs, data, log, port: 0, password, environment, folder };
        server.start_on_a_free_port().await?;
        Ok(server)
    }

    /// Another process may take a port between its choice and the server's bind: then another one is tried.
    pub(super) async fn start_on_a_free_port(&mut self) -> Result<(), DevError> {
        let mut tries = 0;
        loop {
            tries += 1;
            self.port = free_port()?;
            match self.start_again().await {
                Err(DevError::EndedEarly { log, .. }) if tries < 5 && log.contains("could not bind") => {}
                other => return other,
            }
        }
    }

    /// Starts it again after `stop` or `kill9`: the same data, the same port.
    ///
    /// # Errors
    /// `RunningAlready`, or as for `start`.
    pub async fn start_again(&mut self) -> Result<(), DevError> {
        if self.pid().is_some() {
            return Err(DevError::RunningAlready { server: NAME });
        }
        self.folder.write(&self.data.join("postgresql.conf"), &configuration(self.port), 0o600)?;
        let from = length(&self.log);
        let mut process = Process::start(Plan {
            name: NAME,
            program: &self.programs.join("postgres"),
            arguments: vec!["-D".into(), self.data.clone().into()],
            environment: self.environment.clone(),
            log: self.log.clone(),
            input: false,
            at_once: Signal::SIGQUIT,
            folder: &self.folder,
            removes_folder: true,
        })?;
        let begun = Instant::now();
        while !says_ready(&self.data, process.pid()) {
            if process.ended()?.is_some() {
                let log = text_since(&self.log, from);
                return Err(DevError::EndedEarly { server: NAME, log });
            }
            if begun.elapsed() > READY_WITHIN {
                process.kill_family().await?;
                return Err(DevError::NotReady { server: NAME, waited: READY_WITHIN, log: end_of(&[&self.log]) });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.process = Some(process);
        Ok(())
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's pid; `None` when it does not run.
    #[must_use]
    pub fn pid(&mut self) -> Option<u32> {
        let process = self.process.as_mut()?;
        match process.ended() {
            Ok(None) => Some(process.pid()),
            Ok(Some(_)) | Err(_) => {
                self.process = None;
                None
            }
        }
    }

    /// Where a client finds `database`, with user and password: for clients, not for logs.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The server's own log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// One of PostgreSQL's own programs, of the server's version: `pg_dump`, say.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Makes an empty database unless it is there, and answers its url. About 0.1 s.
    ///
    /// # Errors
    /// `BadName`, or what PostgreSQL says.
    pub async fn create_database(&self, name: &str) -> Result<String, DevError> {
        let name = checked_name(name)?;
        let known = self.sql(&format!("SELECT 1 FROM pg_database WHERE datname = '{name}'")).await?;
        if known.trim().is_empty() {
            self.sql(&format!("CREATE DATABASE \"{name}\"")).await?;
        }
        Ok(self.url(name))
    }

    /// One statement in the maintenance database, by `psql`; answers unaligned rows.
    ///
    /// # Errors
    /// What `psql` says.
    pub async fn sql(&self, statement: &str) -> Result<String, DevError> {
        let mut psql = clean_command(&self.programs.join("psql"), self.folder.user());
        psql.env("PGPASSWORD", &self.password).env("PGUSER", USER).env("PGDATABASE", "postgres");
        psql.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGCONNECT_TIMEOUT", "10");
        psql.args(["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align", "--command", statement]);
        run(psql, "ask the private PostgreSQL", Duration::from_secs(60)).await
    }

    /// Ends it as an administrator would (fast shutdown); data and port are kept for `start_again`.
    ///
    /// # Errors
    /// `NotRunning`.
    pub async fn stop(&mut self) -> Result<(), DevError> {
        self.running()?.end(Signal::SIGINT, Duration::from_secs(10)).await
    }

    /// Kills it and all its backends without warning; `start_again` then recovers from the WAL.
    ///
    /// # Errors
    /// `NotRunning`.
    pub async fn kill9(&mut self) -> Result<(), DevError> {
        self.running()?.kill_family().await
    }

    /// Stops every one of its processes in place: connections stay open and nothing answers.
    ///
    /// # Errors
    /// `NotRunning`; `Command` when one of them still runs after 10 seconds.
    pub async fn pause(&mut self) -> Result<(), DevError> {
        self.process.as_ref().ok_or(DevError::NotRunning { server: NAME })?.pause().await
    }

    /// Lets it go on after `pause`.
    ///
    /// # Errors
    /// `NotRunning`.
    pub fn resume(&mut self) -> Result<(), DevError> {
        self.process.as_ref().ok_or(DevError::NotRunning { server: NAME })?.signal_family(Signal::SIGCONT);
        Ok(())
    }

    /// Ends it and removes its folder (unless kept); afterwards nothing of it is left.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub async fn shutdown(mut self) -> Result<(), DevError> {
        if let Some(process) = self.process.take() {
            process.signal_family(Signal::SIGCONT);
            // What is thrown away needs no checkpoint; what is kept is left as a clean cluster.
            let how = if self.folder.removable().is_some() { Signal::SIGQUIT } else { Signal::SIGINT };
            process.end(how, Duration::from_secs(10)).await?;
        }
        self.folder.remove()
    }

    fn running(&mut self) -> Result<Process, DevError> {
        let alive = self.pid().is_some();
        self.process.take().filter(|_| alive).ok_or(DevError::NotRunning { server: NAME })
    }
}

impl fmt::Debug for PrivatePostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivatePostgres").field("port", &self.port).field("data", &self.data).finish_non_exhaustive()
    }
}

async fn init_cluster(programs: &Path, folder: &Folder, data: &Path) -> Result<(), DevError> {
    let mut initdb = clean_command(&programs.join("initdb"), folder.user());
    initdb.args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8"]);
    // Durability of the server is untouched: this only leaves out flushing the new files one by one.
    initdb.args(["--no-sync", "--no-instructions"]);
    initdb.arg("--pwfile").arg(folder.path().join("password")).arg("--pgdata").arg(data);
    run(initdb, "make a PostgreSQL cluster", READY_WITHIN).await.map(drop)
}

fn configuration(port: u16) -> String {
    format!(
        "listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
# As many: each is prepared on a connection.
max_prepared_transactions = 200
shared_buffers = '64MB'
# pg_stat_activity shows whole statements.
track_activity_query_size = '16kB'
# In the data folder, so that a killed server leaves nothing in /dev/shm.
dynamic_shared_memory_type = mmap
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %a '
"
    )
}

/// The postmaster writes its state into its pid file; its first line must be the pid of the one that we started.
fn says_ready(data: &Path, pid: u32) -> bool {
    let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let lines: Vec<&str> = file.lines().map(str::trim).collect();
    let serves = lines.get(7).is_some_and(|state| matches!(*state, "ready" | "standby"));
    lines.first().is_some_and(|first| *first == pid.to_string()) && serves
}
