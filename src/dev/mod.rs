//! A private PostgreSQL and a private RabbitMQ, started from the binaries of this machine.
//!
//! `posthaste dev` and the tests use them. Each server has a folder of its own under `$TMPDIR`, listens on 127.0.0.1
//! only, runs as an unprivileged user when the caller is root, and disappears with its owner: each has a *leash*, a
//! small shell that waits for the owner's end of a pipe to close and then ends the server and removes the folder. Should
//! the leash be killed too, the next start finds the folder whose lock nobody holds and clears it.

mod binaries;
mod children;
mod error;
mod folder;
mod port;
mod postgres;
mod process;
mod rabbit;
mod rabbit_files;
mod running;
mod session;
mod standby;

pub use error::DevError;
pub use port::{PortHolder, free_port, holder_of};
pub use postgres::PrivatePostgres;
pub use process::stop_in_place;
pub use rabbit::PrivateRabbit;
pub use running::{RunningDev, ask_running, running_devs};
pub use session::{Action, Running, Server, Session, Wanted};

use std::ffi::OsString;
use std::path::PathBuf;

/// Where a private server keeps its data and where its binaries are looked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Keep the data here across runs. Default: a folder under `$TMPDIR` that goes with the server.
    pub keep: Option<PathBuf>,
    /// Look for the server's binaries in this folder only. Default: where Debian puts them, then `PATH`.
    pub binaries: Option<PathBuf>,
    /// Start RabbitMQ with its management plugin, on a port of its own. Default: without; it starts seconds faster.
    pub management: bool,
    /// More for PostgreSQL's environment. Default: nothing.
    pub postgres_environment: Vec<(&'static str, OsString)>,
}

/// Starts both servers at the same time.
///
/// # Errors
/// The first failure; the other server is ended.
pub async fn start_both(options: &Options) -> Result<(PrivatePostgres, PrivateRabbit), DevError> {
    tokio::try_join!(PrivatePostgres::start(options), PrivateRabbit::start(options))
}

/// A name for a database or a virtual host that nobody else uses: `prefix_` and 12 hexadecimal digits.
#[must_use]
pub fn fresh_name(prefix: &str) -> String {
    format!("{prefix}_{}", folder::random_hex(12))
}

/// Letters, digits, `_` and `-`, at most 63: such a name needs no quoting in SQL, Erlang or a URL.
pub(crate) fn checked_name(name: &str) -> Result<&str, DevError> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if plain && !name.is_empty() && name.len() <= 63 { Ok(name) } else { Err(DevError::BadName(name.to_owned())) }
}
