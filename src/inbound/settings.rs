//! HTTP listeners and how they accept; checked by `config`.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::sync::Semaphore;

use crate::model::{AdapterName, SlotId, TransactionAttribute};

/// `http.api` in resources.yml: the public address and its protections.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// From the first byte of a request to the end of its headers. Default 10 s.
    pub header_timeout: Duration,
    /// From the end of the headers to the end of the body. Default 30 s.
    pub body_timeout: Duration,
    /// How far a client may fall behind 512 bytes a second with a body or with reading an answer. Default 10 s.
    pub progress_timeout: Duration,
    /// Open client connections; when all are in use the slowest make room for others. Default 1024.
    pub max_connections: usize,
    /// Of these, from one IPv4 address or one /64 of IPv6. Default: no bound.
    pub max_connections_per_address: Option<usize>,
    /// Bytes of request bodies held at once; beyond it 503 none. Default 64 MiB.
    pub max_body_bytes_in_flight: usize,
}

impl ApiSettings {
    /// Messages that may be decided upon at once. A connection has one; beyond that are those whose clients hung up, and
    /// which are finished all the same. Twice `max_connections`; beyond it 503 none.
    #[must_use]
    pub fn messages_in_hand(&self) -> usize {
        self.max_connections.saturating_mul(2).min(Semaphore::MAX_PERMITS)
    }
}

/// One receiver with an `api` listener.
#[derive(Debug, Clone)]
pub struct InboundSettings {
    pub adapter: AdapterName,
    /// Below `/api`, starting with `/`; literal segments.
    pub uri_pattern: String,
    pub method: Method,
    /// First present wins. Default `Message-Id`.
    pub message_id_headers: Vec<HeaderName>,
    /// Default `Correlation-Id`.
    pub correlation_id_header: HeaderName,
    /// Default false: an id is minted.
    pub require_message_id: bool,
    /// Headers that travel along with the message.
    pub header_params: Vec<HeaderName>,
    /// Whose pages may send and read the answers, as browsers write them. Default: none but its own.
    pub allowed_origins: Vec<HeaderValue>,
    /// Largest body, in bytes, unpacked. Default 1 MiB.
    pub max_body: usize,
    /// Default 304; 200, 202 or 409.
    pub duplicate_status: StatusCode,
    /// The same id with another body. Default: as `duplicate_status`.
    pub conflict_status: StatusCode,
    pub accept: Accept,
    pub check_for_duplicates: Option<DuplicateKey>,
    pub message_log: Option<MessageLogSettings>,
    pub transaction_attribute: TransactionAttribute,
    pub transaction_timeout: Duration,
    /// Open rows of one destination beyond which a POST gets 503 none. Default 1,000,000.
    pub max_open: u64,
}

/// When a POST is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// After the publisher's confirm, or its time-out.
    #[default]
    Confirmed,
    /// After the commit.
    Journalled,
}

/// `checkForDuplicatesMethod`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateKey {
    MessageId,
    CorrelationId,
}

#[derive(Debug, Clone)]
pub struct MessageLogSettings {
    pub slot_id: SlotId,
    /// How long a row stays, and with it the detection of repeats. Default 30 days.
    pub retention: Duration,
}
