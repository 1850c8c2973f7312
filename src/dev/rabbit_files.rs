//! What a private RabbitMQ is told: its configuration file and its environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::DevError;
use super::folder::Folder;

/// The administrator of a private broker.
pub(super) const USER: &str = "posthaste";
/// The node's name. It need not be unique: each node has a port mapper of its own.
pub(super) const NODE: &str = "posthaste@localhost";

/// The ports of one broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub amqp: u16,
    /// Erlang distribution, used by `rabbitmqctl`.
    pub distribution: u16,
    /// Erlang's port mapper.
    pub epmd: u16,
    /// The management plugin's, if it is wanted.
    pub management: Option<u16>,
}

/// Where a private broker keeps what.
pub(super) struct Files {
    pub home: PathBuf,
    pub data: PathBuf,
    /// The node's own log.
    pub log: PathBuf,
    /// Standard output and error, and the answers of its Erlang shell.
    pub console: PathBuf,
    configuration: PathBuf,
    plugins: PathBuf,
    /// Stands in for /etc/rabbitmq/rabbitmq-env.conf, which is for the system's own node.
    no_environment: PathBuf,
    pid: PathBuf,
}

impl Files {
    /// Makes the folders and the cookie; the rest is written by `write`.
    pub(super) fn make(folder: &Folder) -> Result<Self, DevError> {
        let home = folder.subfolder("home")?;
        let data = folder.subfolder("data")?;
        let cookie = home.join(".erlang.cookie");
        if !cookie.exists() {
            folder.write(&cookie, &super::folder::random_hex(20), 0o400)?;
        }
        let (configuration, plugins) = (home.join("rabbitmq.conf"), home.join("enabled_plugins"));
        let (no_environment, pid, log) = (home.join("no-env.conf"), home.join("pid"), home.join("node.log"));
        let console = folder.path().join("console.log");
        Ok(Self { home, data, log, console, configuration, plugins, no_environment, pid })
    }

    pub(super) fn write(&self, folder: &Folder, ports: Ports, password: &str) -> Result<(), DevError> {
        let configuration = format!(
            "listeners.tcp.default = 127.0.0.1:{}
default_user = {USER}
default_pass = {password}
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
log.console = false
",
            ports.amqp
        );
        let (management, plugins) = match ports.management {
            Some(port) => {
                let listener = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n");
                (listener, "[rabbitmq_management].\n")
            }
            None => (String::new(), "[].\n"),
        };
        folder.write(&self.configuration, &(configuration + &management), 0o600)?;
        folder.write(&self.plugins, plugins, 0o600)?;
        folder.write(&self.no_environment, "", 0o600)
    }

    pub(super) fn environment(&self, ports: Ports) -> Vec<(&'static str, OsString)> {
        let file = |path: &Path| path.as_os_str().to_owned();
        vec![
            ("HOME", file(&self.home)),
            ("ERL_EPMD_PORT", ports.epmd.to_string().into()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODENAME", NODE.into()),
            ("RABBITMQ_DIST_PORT", ports.distribution.to_string().into()),
            ("RABBITMQ_MNESIA_BASE", file(&self.data)),
            ("RABBITMQ_LOG_BASE", file(&self.home)),
            ("RABBITMQ_LOGS", file(&self.log)),
            ("RABBITMQ_CONFIG_FILE", file(&self.configuration)),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", file(&self.plugins)),
            ("RABBITMQ_CONF_ENV_FILE", file(&self.no_environment)),
            ("RABBITMQ_PID_FILE", file(&self.pid)),
            // Without a wrapping shell, and with an Erlang shell on standard input: we ask it things in milliseconds
            // where rabbitmqctl needs a second, and it halts the node when the pipe closes.
            ("RABBITMQ_ALLOW_INPUT", "true".into()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}".into()),
        ]
    }
}
