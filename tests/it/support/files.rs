//! The files of an installation: what is written at first, and what tests change in them or read.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::app::{App, Options};

/// For tests that write files of their own, read logs, or speak to the broker.
impl App {
    /// Where `resources.yml` and `configurations/` are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the installation, and the folders on the way to it.
    pub fn write(&self, file: &str, text: &str) {
        let file = self.folder.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// Changes `resources.yml`, which must hold `from`.
    pub fn edit_resources(&self, from: &str, to: &str) {
        let file = self.folder.path().join("resources.yml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        fs::write(file, text.replace(from, to)).unwrap();
    }

    /// From its next start on, and for its commands: as this user at PostgreSQL, in this role if one is given.
    pub fn log_in_as(&self, user: &str, password: &str, role: Option<&str>) {
        let file = self.folder.path().join("resources.yml");
        let text = fs::read_to_string(&file).unwrap();
        let mut lines = Vec::new();
        let before = ["    username: ", "    password: ", "    role: "];
        for line in text.lines().filter(|line| !before.iter().any(|key| line.starts_with(key))) {
            lines.push(line.to_owned());
            if line.starts_with("    url: postgres") {
                lines.extend([format!("    username: {user}"), format!("    password: {password}")]);
                lines.extend(role.map(|role| format!("    role: {role}")));
            }
        }
        fs::write(file, lines.join("\n") + "\n").unwrap();
    }

    pub async fn exchange_is_there(&self, name: &str) -> bool {
        super::queue::exchange_is_there(&self.amqp_url, name).await
    }

    /// With user and password.
    pub fn amqp_url(&self) -> &str {
        &self.amqp_url
    }

    /// As resources.yml has it.
    pub fn db_url(&self) -> String {
        let text = fs::read_to_string(self.folder.path().join("resources.yml")).unwrap();
        let line = text.lines().find(|line| line.trim_start().starts_with("url: postgres"));
        line.unwrap().trim().trim_start_matches("url: ").to_owned()
    }

    /// Where its processes log.
    pub fn log_file(&self) -> std::path::PathBuf {
        self.log()
    }

    /// Everything that all its processes have said so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }
}

/// `resources.yml` of an installation.
pub(super) fn resources(
    postgres: &[String],
    amqp: &str,
    api: SocketAddr,
    console: SocketAddr,
    options: &Options,
) -> String {
    let delays = options.retry_delays.unwrap_or("[50ms, 100ms]");
    let more: String = options.api.iter().map(|line| format!("    {line}\n")).collect();
    let named = options.application.databases().iter().zip(postgres);
    let postgres: String = named.map(|(name, url)| format!("  - name: {name}\n    url: {url}\n")).collect();
    let queue = options.application.queue();
    format!(
        "instance:
  name: posthaste
  home: main
  lease: 2s
postgres:
{postgres}amqp:
  - name: rabbit
    url: {amqp}
    createDestination: true
    queues:
      - {{ name: {queue}, retryDelays: {delays} }}
http:
  api:
    listen: {api}
{more}  console:
    listen: {console}
"
    )
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
