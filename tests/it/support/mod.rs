//! The harness: private servers, the real binary, and ways to look at them from outside.

mod amqp;
mod app;
mod application;
pub mod client;
mod clock;
mod database;
mod disk;
mod end_state;
mod files;
mod ledgers;
mod links;
mod log;
mod memory;
mod queue;
mod raw;
mod relay;
mod servers;
mod standby;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

pub use amqp::Amqp;
pub use app::{App, Options};
pub use application::Application;
pub use client::Reply;
pub use clock::Clock;
pub use database::Database;
pub use disk::Disk;
pub use links::Links;
pub use memory::Cgroup;
pub use queue::{delete, depth, exchange_is_there, forget_exchange, purge};
pub use raw::{RawReply, exchange};
pub use relay::{Direction, TcpRelay};
pub use servers::Servers;
pub use standby::{Standby, WAITING, waiting};

/// Long enough for anything that should happen at once on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);
/// Long enough for servers to come back and for what they lost to be done again.
pub const LONG: Duration = Duration::from_secs(60);

/// Runs a test on the one runtime that all tests share, because the shared servers belong to it.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap()).block_on(test)
}

/// Asks `probe` until it answers `Ok`, at most for `bound`; then fails with the last thing that was seen.
pub async fn eventually<T>(what: &str, bound: Duration, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(seen) if started.elapsed() > bound => panic!("not within {bound:?}: {what}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// `Ok` when equal, otherwise what was seen: the usual end of a probe.
pub fn same<T: PartialEq + std::fmt::Debug>(seen: T, wanted: &T) -> Result<(), String> {
    if seen == *wanted { Ok(()) } else { Err(format!("{seen:?}, not {wanted:?}")) }
}
