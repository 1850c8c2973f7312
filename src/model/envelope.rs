//! One message as every module sees it, whoever received it (P3).

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{MessageId, RootId, TxId};

/// Chosen headers that travel along, by lower-case name.
pub type Headers = BTreeMap<String, String>;

/// A message and what travels with it. `Debug` shows no payload and no header values.
#[derive(Clone)]
pub struct Envelope {
    pub tx_id: TxId,
    pub root_id: RootId,
    pub message_id: MessageId,
    pub correlation_id: MessageId,
    pub content_type: Option<String>,
    pub headers: Headers,
    pub body: Bytes,
}

impl Envelope {
    /// SHA-256 of the body alone.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.body).into()
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("tx_id", &self.tx_id)
            .field("root_id", &self.root_id)
            .field("message_id", &self.message_id)
            .field("correlation_id", &self.correlation_id)
            .field("content_type", &self.content_type)
            .field("headers", &self.headers.keys())
            .field("bytes", &self.body.len())
            .finish()
    }
}
