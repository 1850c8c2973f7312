//! What the tests of `tests/it` use, too.

#[path = "../it/support/client.rs"]
pub mod client;
#[path = "../it/support/database.rs"]
mod database;
#[path = "../it/support/queue.rs"]
mod queue;
#[path = "../it/support/relay.rs"]
mod relay;

use std::time::{Duration, Instant};

pub use database::Database;
pub use queue::{delete, depth};
pub use relay::TcpRelay;

/// Long enough for anything that should happen at once on a busy machine.
pub const SOON: Duration = Duration::from_secs(10);
/// Long enough for servers to come back and for what they lost to be done again.
pub const LONG: Duration = Duration::from_secs(60);

/// Asks `probe` until it answers `Ok`, at most for `bound`; then fails with the last thing that was seen.
pub async fn eventually<T>(what: &str, bound: Duration, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(seen) if started.elapsed() > bound => panic!("not within {bound:?}: {what}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
