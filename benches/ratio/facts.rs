//! What a figure is worth: the machine, the servers and their settings.

use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::Result;
use serde::Serialize;

use super::servers::Servers;

#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    pub cores: usize,
    pub processor: String,
    pub kernel: String,
    /// Of the folder that holds the servers' data.
    pub file_system: String,
    pub postgres: String,
    pub rabbitmq: String,
    /// Names and values.
    pub settings: Vec<(String, String)>,
    /// Of the last minute, before anything was started: others may be at work on the machine.
    pub load: String,
    pub at: String,
}

const SETTINGS: [&str; 4] = ["fsync", "synchronous_commit", "shared_buffers", "wal_sync_method"];

impl Facts {
    pub async fn of(servers: &Servers) -> Result<Self> {
        let mut settings = Vec::new();
        for name in SETTINGS {
            let value = servers.admin.text(&format!("SELECT current_setting('{name}')")).await?;
            settings.push((name.to_owned(), value));
        }
        let rabbitmq = servers.rabbit.eval("rabbit_misc:version()").await?;
        let watermark = servers.rabbit.eval("vm_memory_monitor:get_vm_memory_high_watermark()").await?;
        let folder = servers.postgres.folder().display().to_string();
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            processor: processor.map(|(_, name)| name.to_owned()).unwrap_or_default(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            file_system: told("stat", &["--file-system", "--format=%T", &folder]),
            postgres: servers.admin.text("SHOW server_version").await?,
            rabbitmq: format!("{}, vm_memory_high_watermark = {watermark}", rabbitmq.trim_matches('"')),
            settings,
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            at: servers.admin.text("SELECT to_char(now(), 'YYYY-MM-DD HH24:MI')").await?,
        })
    }

    /// For the picture.
    pub fn brief(&self) -> String {
        format!(
            "{} cores, PostgreSQL {}, RabbitMQ {}, {}",
            self.cores,
            self.postgres.split(' ').next().unwrap_or_default(),
            self.rabbitmq.split(',').next().unwrap_or_default(),
            self.at.split(' ').next().unwrap_or_default()
        )
    }
}

fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings: Vec<String> = self.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        writeln!(f, "{}: {} cores ({}), kernel {}", self.at, self.cores, self.processor, self.kernel)?;
        writeln!(f, "PostgreSQL {} on {}: {}", self.postgres, self.file_system, settings.join(", "))?;
        write!(f, "RabbitMQ {}; load of the machine before the start: {}", self.rabbitmq, self.load)
    }
}
