//! How a command ends.

use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::app::RunError;
use crate::config::ConfigError;
use crate::model::text;

/// Exit statuses, after sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    Failed,
    Usage,
    /// A server could not be reached.
    Unavailable,
    /// Fenced by another instance, or a fault of this program.
    Internal,
    TryAgain,
    Configuration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::TryAgain => 75,
            Exit::Configuration => 78,
        })
    }
}

/// A command that did not do what was asked: what to tell the user, and the exit status.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// It was refused, or did not succeed.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line asks for something that makes no sense.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Nobody answers at the address.
    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unavailable, message)
    }

    /// This program, or the running instance, is at fault.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(Exit::Internal, message)
    }

    /// It may succeed later.
    pub(super) fn try_again(message: impl Into<String>) -> Self {
        Self::new(Exit::TryAgain, message)
    }

    /// All mistakes of the user's files.
    #[must_use]
    pub fn configuration(error: ConfigError) -> Self {
        Self::new(Exit::Configuration, error.to_string())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let exit = match &error {
            RunError::Configuration(_) | RunError::Schema(_) => Exit::Configuration,
            RunError::Fenced(_) | RunError::Panicked(_) => Exit::Internal,
            RunError::Unreachable(_) => Exit::Unavailable,
        };
        Self::new(exit, error.to_string())
    }
}

/// Tells the user, and answers the status. `patience`: a reader who stands still is waited for so long and no longer.
pub(super) fn report(failure: &Failure, patience: Option<Duration>) -> ExitCode {
    let told = format!("posthaste: {}\n", text::lines(&failure.message));
    // Nothing is left to do when even this cannot be written.
    let tell = move || std::io::stderr().write_all(told.as_bytes()).is_ok();
    match patience {
        None => {
            let _written = tell();
        }
        Some(patience) => {
            let (done, written) = sync_channel(1);
            let told = std::thread::Builder::new().spawn(move || done.send(tell()).is_ok());
            let _in_time = told.is_ok() && written.recv_timeout(patience).is_ok();
        }
    }
    failure.exit.into()
}
