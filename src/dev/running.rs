//! The `posthaste dev`s of this user that run, as other commands find them: each has a socket in its folder.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::DevError;
use super::folder::{base, trusted_base};
use super::session::{Action, SOCKET, Server};

/// What is asked to be told of a running `posthaste dev`.
pub(super) const ABOUT: &str = "about";
/// Starting a broker on a loaded machine is the longest answer.
const DONE_WITHIN: Duration = Duration::from_secs(150);
/// An answer that only needs the process to be alive.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
const ASKING: &str = "ask the running `posthaste dev`";

/// What a running `posthaste dev` tells other commands of its user. Passwords inside: not for logs.
#[derive(Clone, Serialize, Deserialize)]
pub struct RunningDev {
    pub pid: u32,
    pub api: SocketAddr,
    pub console: SocketAddr,
    /// `(entry name, url)` for each `postgres` entry.
    pub postgres: Vec<(String, String)>,
    /// For every `amqp` entry.
    pub amqp: String,
}

/// Asks the running `posthaste dev` (the one with `pid`, when several run) to stop or start one of its servers.
///
/// # Errors
/// `NoneRuns`, `SeveralRun`, or `Refused` with what it says.
pub async fn ask_running(pid: Option<u32>, action: Action, server: Server) -> Result<String, DevError> {
    let mut found = sockets_below(&base()?).await;
    found.retain(|(owner, _)| pid.is_none_or(|pid| pid == *owner));
    let pids: Vec<String> = found.iter().map(|(owner, _)| owner.to_string()).collect();
    let stream = match (found.pop(), pids.len()) {
        (Some((_, only)), 1) => only,
        (Some(_), _) => return Err(DevError::SeveralRun(pids.join(", "))),
        (None, _) => return Err(DevError::NoneRuns),
    };
    exchange(stream, &format!("{action} {server}"), DONE_WITHIN).await
}

/// Every `posthaste dev` of this user that runs. Makes nothing, and believes no folder that others could have made.
///
/// # Errors
/// One is there that does not answer.
pub async fn running_devs() -> Result<Vec<RunningDev>, DevError> {
    let Some(base) = trusted_base() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (_, stream) in sockets_below(&base).await {
        let told = match exchange(stream, ABOUT, TOLD_WITHIN).await {
            Ok(told) => told,
            // Of another version, or it ended meanwhile.
            Err(DevError::Refused(_) | DevError::Io { .. }) => continue,
            Err(error) => return Err(error),
        };
        found.extend(serde_json::from_str::<RunningDev>(&told).ok());
    }
    Ok(found)
}

/// Nobody listens on the socket of one that is gone.
async fn sockets_below(base: &Path) -> Vec<(u32, UnixStream)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(base).into_iter().flatten().filter_map(Result::ok) {
        let Some(owner) = owner_in(&entry.path()) else { continue };
        if let Ok(stream) = UnixStream::connect(entry.path().join(SOCKET)).await {
            found.push((owner, stream));
        }
    }
    found
}

/// The pid in `dev-<pid>-<random>`.
fn owner_in(folder: &Path) -> Option<u32> {
    folder.file_name()?.to_str()?.strip_prefix("dev-")?.split('-').next()?.parse().ok()
}

async fn exchange(stream: UnixStream, request: &str, bound: Duration) -> Result<String, DevError> {
    let (mut reader, mut writer) = stream.into_split();
    let exchange = async {
        writer.write_all(format!("{request}\n").as_bytes()).await?;
        let mut answer = String::new();
        reader.read_to_string(&mut answer).await.map(|_| answer)
    };
    let Ok(answer) = tokio::time::timeout(bound, exchange).await else {
        return Err(DevError::Command { doing: ASKING, said: format!("no answer within {} s", bound.as_secs()) });
    };
    let answer = answer.map_err(DevError::io(ASKING))?;
    match answer.split_once(' ') {
        Some(("ok", done)) => Ok(done.to_owned()),
        Some((_, refused)) => Err(DevError::Refused(refused.to_owned())),
        None => Err(DevError::Refused("`posthaste dev` ended before it answered".to_owned())),
    }
}
