use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Why a private server could not do what was asked. Nothing of it is left running.
#[derive(Debug, Error)]
pub enum DevError {
    #[error("cannot find {binary} on this machine (looked in {looked}); on Debian: apt-get install {package}")]
    Missing { binary: &'static str, looked: String, package: &'static str },
    #[error("failed to {doing}")]
    Io { doing: String, source: io::Error },
    #[error("failed to {doing}: {said}")]
    Command { doing: &'static str, said: String },
    #[error("{server} ended while it was starting; the end of its log says:\n{log}")]
    EndedEarly { server: &'static str, log: String },
    #[error("{server} was not ready within {} s; the end of its log says:\n{log}", waited.as_secs())]
    NotReady { server: &'static str, waited: Duration, log: String },
    #[error("{server} is not running")]
    NotRunning { server: &'static str },
    #[error("{server} is running already")]
    RunningAlready { server: &'static str },
    #[error("{} is in use by another `posthaste dev`", .0.display())]
    InUse(PathBuf),
    #[error(
        "{server} runs as the user {user}, who cannot enter {}: choose a folder outside private ones, such as under /var/tmp",
        folder.display()
    )]
    Unreachable { server: &'static str, user: String, folder: PathBuf },
    #[error("{} belongs to somebody else or is open to others: remove it, or set TMPDIR", .0.display())]
    Untrusted(PathBuf),
    #[error("{} is too long for the path of a socket ({} bytes, at most 107): set TMPDIR to a shorter folder, such as /tmp", .0.display(), .0.as_os_str().len())]
    LongPath(PathBuf),
    #[error("no free port on 127.0.0.1")]
    NoFreePort,
    #[error("{server} is not one of ours: it was given on the command line, stop it where it was started")]
    NotPrivate { server: &'static str },
    #[error("no `posthaste dev` of this user is running")]
    NoneRuns,
    #[error("several `posthaste dev` are running: say which with --pid ({0})")]
    SeveralRun(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0:?} is no usable name: letters, digits, _ and -, at most 63")]
    BadName(String),
}

impl DevError {
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
