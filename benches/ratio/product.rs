//! The product as it is run: `posthaste run`, with its own folder, configuration and log.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use posthaste::dev::free_port;
use tempfile::TempDir;

use super::child::Measured;

/// Which configuration, and thereby which application tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Application {
    /// `varchar(30)`, as in the sample.
    Text,
    /// `bytea`.
    Bytes,
    /// The second table in another database.
    Two,
}

/// Messages that the product processes at once: `numThreads`, as it is by default.
pub const THREADS: usize = 8;
const READY_WITHIN: Duration = Duration::from_secs(60);

impl Application {
    fn folder(self) -> PathBuf {
        let name = match self {
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Two => "two",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/ratio/configurations").join(name)
    }

    /// The `postgres` entries; the first is the home.
    pub fn databases(self) -> &'static [&'static str] {
        match self {
            Self::Text | Self::Bytes => &["main"],
            Self::Two => &["main", "other"],
        }
    }
}

/// One instance.
pub struct Product {
    process: Option<Measured>,
    /// This build's, if nobody says otherwise.
    pub program: PathBuf,
    pub api: SocketAddr,
    console: SocketAddr,
    folder: TempDir,
    http: reqwest::Client,
}

impl Product {
    /// Its files; not running.
    pub fn lay_out(application: Application, postgres: &[String], amqp: &str) -> Result<Self> {
        let [api, console] = [free_port()?, free_port()?].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let folder = TempDir::new()?;
        let mut resources = "instance: { name: bench, home: main }\npostgres:\n".to_owned();
        for (name, url) in application.databases().iter().zip(postgres) {
            writeln!(resources, "  - {{ name: {name}, url: '{url}' }}")?;
        }
        writeln!(resources, "amqp:\n  - name: rabbit\n    url: '{amqp}'\n    createDestination: true")?;
        writeln!(resources, "    queues: [ {{ name: myQueue, retryDelays: [100ms] }} ]")?;
        writeln!(resources, "http: {{ api: {{ listen: '{api}' }}, console: {{ listen: '{console}' }} }}")?;
        fs::write(folder.path().join("resources.yml"), resources)?;
        fs::create_dir(folder.path().join("configurations"))?;
        std::os::unix::fs::symlink(application.folder(), folder.path().join("configurations/bench"))?;
        // Every process of this machine could be asked for by a proxy of the environment; this one is beside us.
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        let program = env!("CARGO_BIN_EXE_posthaste").into();
        Ok(Self { process: None, program, api, console, folder, http })
    }

    /// Lets in so many connections at once; to be said before it is started.
    pub fn admit(&self, connections: usize) -> Result<()> {
        let (path, listen) = (self.folder.path().join("resources.yml"), format!("api: {{ listen: '{}'", self.api));
        let admitted = format!("{listen}, maxConnections: {connections}");
        let resources = fs::read_to_string(&path)?;
        ensure!(resources.contains(&listen), "no {listen} in {resources}");
        Ok(fs::write(&path, resources.replacen(&listen, &admitted, 1))?)
    }

    fn command(&self, word: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(word).current_dir(self.folder.path());
        command.args(["--resources", "resources.yml", "--configurations", "configurations"]);
        command.env_remove("POSTHASTE_RESOURCES").env_remove("POSTHASTE_CONFIGURATIONS");
        command
    }

    pub async fn migrate(&self) -> Result<()> {
        self.migrate_with(&[]).await
    }

    /// Its databases are copies of a template: another home than that.
    pub async fn take_copy(&self) -> Result<()> {
        self.migrate_with(&["--home", "copy"]).await
    }

    async fn migrate_with(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.command("migrate");
        command.args(arguments);
        let done = tokio::process::Command::from(command).output().await?;
        ensure!(done.status.success(), "posthaste migrate: {}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("posthaste.log")
    }

    /// Starts it and waits until it accepts and processes.
    pub async fn start(&mut self) -> Result<()> {
        self.process = Some(Measured::start(self.command("run"), &self.log())?);
        let begun = Instant::now();
        loop {
            let answer = self.http.get(format!("http://{}/readyz", self.console)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if begun.elapsed() > READY_WITHIN {
                bail!("an instance is not ready: {}", self.end_of_log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("the instance does not run")?.pid())
    }

    /// `start` or `stop` for one of its adapters.
    pub async fn act(&self, adapter: &str, action: &str) -> Result<()> {
        let request = self.http.post(format!("http://{}/api/v1/adapters/{adapter}/{action}", self.console));
        let answer = request.json(&serde_json::json!({ "reason": "benchmark" })).send().await?;
        ensure!(answer.status().is_success(), "{action} {adapter}: {}", answer.text().await?);
        Ok(())
    }

    pub async fn stop(&mut self) -> Result<()> {
        match self.process.take() {
            Some(process) => process.stop().await.with_context(|| self.end_of_log()),
            None => Ok(()),
        }
    }

    pub fn end_of_log(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    }
}
