//! When sessions of consumers need connections of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lapin::Channel;

use super::connection::Handle;

/// Whether each session has a connection of its own: from the first message on that the library cannot read, or the first
/// queue that does not answer, so that it stops the consumer of one queue and not all of them.
#[derive(Clone, Default)]
pub(super) struct Apart(Arc<AtomicBool>);

impl Apart {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, reason: &str) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::error!(reason, "from now on each consumer has its own connection");
        }
    }
}

/// A call about one queue had no answer in time.
pub(super) async fn silent(
    handle: &Handle,
    channel: &Channel,
    own_connection: bool,
    apart: &Apart,
    reason: &'static str,
) {
    if own_connection {
        handle.abandon();
    } else if handle.doubt(channel, reason).await {
        apart.set("a queue does not answer");
    }
}
