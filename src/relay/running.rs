//! Which rows this process is at work on.

use super::Relay;
use super::publish::lock;
use crate::model::TxId;

impl Relay {
    /// Says that this process is at work on a row. `None`: it is already.
    pub fn run(&self, tx_id: TxId) -> Option<Running> {
        lock(&self.0.running).insert(tx_id).then(|| Running { relay: self.clone(), tx_id })
    }

    /// Whether this process is at work on a row.
    #[must_use]
    pub fn runs(&self, tx_id: TxId) -> bool {
        lock(&self.0.running).contains(&tx_id)
    }
}

/// This process is at work on a row until this is dropped.
#[derive(Debug)]
#[must_use = "dropped at once, it says that nobody is at work"]
pub struct Running {
    relay: Relay,
    tx_id: TxId,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.relay.0.running).remove(&self.tx_id);
    }
}
