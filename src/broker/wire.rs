//! What a message looks like on the wire, both ways. Pure: no connection, no clock (protocol §3).

use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use crate::model::{Envelope, Headers, HomeId, MessageId, RootId, TxId};

/// Most headers that travel with one message.
pub const MAX_HEADERS: usize = 64;
/// Most bytes of headers, names and values together: 140 kB of them close the whole connection (protocol §4).
pub const MAX_HEADER_BYTES: usize = 32 * 1024;
/// What an AMQP short string holds: header names, the content type, a queue's name.
const MAX_SHORT: usize = 255;
/// What a header costs on the wire beside its name and value.
pub(super) const HEADER_OVERHEAD: usize = 6;

pub(super) const MESSAGE_ID: &str = "x-message-id";
const ATTEMPTS: &str = "x-attempts";
const PUBLISHED_AT: &str = "x-published-at";
const ROOT_ID: &str = "x-root-id";
const HOME: &str = "x-posthaste-home";
const REDONE: &str = "x-posthaste-redone";
pub(super) const OURS: [&str; 6] = [MESSAGE_ID, ATTEMPTS, PUBLISHED_AT, ROOT_ID, HOME, REDONE];

/// A message cannot be carried by AMQP. Nothing was sent; the message itself must change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("{0} headers; at most {MAX_HEADERS} travel with a message")]
    TooManyHeaders(usize),
    #[error("{0} bytes of headers; at most {MAX_HEADER_BYTES} travel with a message")]
    HeadersTooLarge(usize),
    #[error("a header name of {0} bytes; 1 to {MAX_SHORT} are possible")]
    HeaderName(usize),
    #[error("a content type of {0} bytes; at most {MAX_SHORT} are possible")]
    ContentType(usize),
    #[error("a queue name of {0} bytes; 1 to {MAX_SHORT} are possible")]
    QueueName(usize),
}

/// One message for one queue.
#[derive(Debug, Clone)]
pub struct OutMessage {
    /// The queue, reached through the default exchange.
    pub queue: String,
    pub envelope: Envelope,
    /// The journal row's `attempts` at the time of publishing: the consumer's compare-and-set needs it.
    pub attempts: i32,
    /// Microseconds since 1970, by the database's clock.
    pub published_at: i64,
    /// The installation's id for an OWN row, `None` for a hand-over: without it nobody takes the message for his own.
    pub home: Option<HomeId>,
    /// An earlier copy may have been delivered, and a process may have died of it: the consumer treats this one as it
    /// treats a redelivery. Otherwise fresh copies of one poison message would never be counted (I7).
    pub redone: bool,
    /// Free again when nobody here holds the body any more, which may be after its sender has lost patience.
    pub room: Option<Arc<OwnedSemaphorePermit>>,
}

impl OutMessage {
    /// Bytes that this message holds in memory while it is under way.
    pub(super) fn cost(&self) -> usize {
        let headers: usize = self.envelope.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        1024 + headers + self.envelope.body.len()
    }
}

/// Whether AMQP can carry these headers; to be asked before anything is decided (protocol §4, step −1).
pub fn fits(content_type: Option<&str>, headers: &Headers) -> Result<(), WireError> {
    if let Some(text) = content_type
        && text.len() > MAX_SHORT
    {
        return Err(WireError::ContentType(text.len()));
    }
    if headers.len() > MAX_HEADERS {
        return Err(WireError::TooManyHeaders(headers.len()));
    }
    if let Some(name) = headers.keys().find(|name| name.is_empty() || name.len() > MAX_SHORT) {
        return Err(WireError::HeaderName(name.len()));
    }
    let bytes = headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD).sum();
    if bytes > MAX_HEADER_BYTES {
        return Err(WireError::HeadersTooLarge(bytes));
    }
    Ok(())
}

/// A text as AMQP's short string; the library's own conversion panics on a long one.
pub(super) fn short(text: &str) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}

/// A queue's name as AMQP carries it.
pub(super) fn queue_name(queue: &str) -> Result<ShortString, WireError> {
    short(queue).filter(|_| !queue.is_empty()).ok_or(WireError::QueueName(queue.len()))
}

/// A message as the library takes it, and by what it is recognised should it come back.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) tx_id: TxId,
    pub(super) queue: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

/// Our own headers win over chosen ones of the same name.
pub(super) fn encode(message: OutMessage) -> Result<Parcel, WireError> {
    let (queue, properties) = (queue_name(&message.queue)?, properties(&message)?);
    let OutMessage { envelope, room, .. } = message;
    Ok(Parcel { tx_id: envelope.tx_id, queue, properties, body: envelope.body, _room: room })
}

fn properties(message: &OutMessage) -> Result<BasicProperties, WireError> {
    let envelope = &message.envelope;
    fits(envelope.content_type.as_deref(), &envelope.headers)?;
    let mut table = FieldTable::default();
    for (name, value) in &envelope.headers {
        // Lower case also keeps out CC and BCC, which RabbitMQ would route by.
        let name = name.to_ascii_lowercase();
        let name = ShortString::try_new(name.as_str()).map_err(|_| WireError::HeaderName(name.len()))?;
        table.insert(name, long(value));
    }
    table.insert(MESSAGE_ID.into(), long(envelope.message_id.as_str()));
    table.insert(ATTEMPTS.into(), AMQPValue::LongInt(message.attempts));
    table.insert(PUBLISHED_AT.into(), AMQPValue::LongLongInt(message.published_at));
    // On a queue of our own most are their own root, and who reads them knows.
    if message.home.is_none() || envelope.root_id.0 != envelope.tx_id.0 {
        table.insert(ROOT_ID.into(), long(&envelope.root_id.to_string()));
    }
    if let Some(home) = message.home {
        table.insert(HOME.into(), long(&home.to_string()));
        if message.redone {
            table.insert(REDONE.into(), AMQPValue::Boolean(true));
        }
    }
    let mut properties = BasicProperties::default().with_delivery_mode(2).with_headers(table);
    if let Some(id) = short(&envelope.tx_id.to_string()) {
        properties = properties.with_message_id(id);
    }
    if let Some(id) = short(envelope.correlation_id.as_str()) {
        properties = properties.with_correlation_id(id);
    }
    if let Some(text) = envelope.content_type.as_deref() {
        let text = short(text).ok_or(WireError::ContentType(text.len()))?;
        properties = properties.with_content_type(text);
    }
    Ok(properties)
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

/// Where a delivery comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Published by this installation for one of its own receivers: a journal row should exist.
    Own {
        tx_id: TxId,
        root_id: Option<RootId>,
        /// The row's `attempts` when it was published; 0 when the header is missing or absurd.
        attempts: i32,
        /// Microseconds since 1970 of the publish, by the database's clock.
        published_at: Option<i64>,
    },
    /// Anybody else's, a hand-over of our own included: to be adopted.
    Foreign {
        /// AMQP's `message_id` as it came: the key of the inbox.
        message_id: Option<String>,
    },
}

/// A delivery, read. What could not be read is absent; nothing that a sender writes makes this fail.
#[derive(Clone)]
pub struct Incoming {
    pub source: Source,
    /// Also for a copy that was published again. A hint only: RabbitMQ sets it on never-delivered messages after a hard restart (protocol §5).
    pub redelivered: bool,
    /// The business id; `None`: the sender gave none, or none that is valid, and one is to be minted.
    pub message_id: Option<MessageId>,
    pub correlation_id: Option<MessageId>,
    pub content_type: Option<String>,
    /// String-typed headers by lower-case name, ours left out.
    pub headers: Headers,
    pub body: Bytes,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("source", &self.source)
            .field("redelivered", &self.redelivered)
            .field("message_id", &self.message_id)
            .field("correlation_id", &self.correlation_id)
            .field("content_type", &self.content_type)
            .field("headers", &self.headers.keys())
            .field("bytes", &self.body.len())
            .finish()
    }
}

/// Reads a delivery for the installation `home`.
pub(super) fn decode(properties: &BasicProperties, redelivered: bool, body: Bytes, home: HomeId) -> Incoming {
    let empty = FieldTable::default();
    let table = properties.headers().as_ref().unwrap_or(&empty);
    let id = properties.message_id().as_ref().map(ShortString::as_str);
    let named = text(table, MESSAGE_ID).and_then(|text| MessageId::parse(text).ok());
    let source = own(table, id, home)
        .unwrap_or_else(|| Source::Foreign { message_id: id.filter(|id| !id.is_empty()).map(str::to_owned) });
    let message_id = match &source {
        Source::Own { .. } => named,
        Source::Foreign { .. } => named.or_else(|| id.and_then(|id| MessageId::parse(id).ok())),
    };
    let redone = matches!(table.inner().get(REDONE), Some(AMQPValue::Boolean(true)));
    let redelivered = redelivered || redone;
    let correlation_id = properties.correlation_id().as_ref().and_then(|id| MessageId::parse(id.as_str()).ok());
    let content_type = properties.content_type().as_ref().map(|text| text.as_str().to_owned());
    Incoming { source, redelivered, message_id, correlation_id, content_type, headers: travelling(table), body }
}

fn own(table: &FieldTable, id: Option<&str>, home: HomeId) -> Option<Source> {
    let claimed = Uuid::try_parse(text(table, HOME)?).ok()?;
    if HomeId(claimed) != home {
        return None;
    }
    let tx_id = TxId(Uuid::try_parse(id?).ok()?);
    Some(Source::Own {
        tx_id,
        root_id: match text(table, ROOT_ID) {
            Some(text) => Uuid::try_parse(text).ok().map(RootId),
            None => Some(tx_id.into()),
        },
        attempts: number(table, ATTEMPTS).and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0).unwrap_or(0),
        published_at: number(table, PUBLISHED_AT),
    })
}

fn text<'a>(table: &'a FieldTable, name: &str) -> Option<&'a str> {
    value_text(table.inner().get(name)?)
}

fn value_text(value: &AMQPValue) -> Option<&str> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

fn number(table: &FieldTable, name: &str) -> Option<i64> {
    match table.inner().get(name)? {
        AMQPValue::ShortShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortInt(n) => Some(i64::from(*n)),
        AMQPValue::ShortUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongInt(n) => Some(i64::from(*n)),
        AMQPValue::LongUInt(n) => Some(i64::from(*n)),
        AMQPValue::LongLongInt(n) => Some(*n),
        _ => None,
    }
}

/// The headers that travel along, up to both bounds; the rest stays behind.
fn travelling(table: &FieldTable) -> Headers {
    let mut headers = Headers::new();
    let mut bytes = 0;
    for (name, value) in table {
        let name = name.as_str();
        let Some(value) = value_text(value) else { continue };
        let cost = name.len() + value.len() + HEADER_OVERHEAD;
        let ours = OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
        if name.is_empty() || ours || bytes + cost > MAX_HEADER_BYTES {
            continue;
        }
        if headers.len() == MAX_HEADERS {
            break;
        }
        bytes += cost;
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    headers
}

#[cfg(test)]
mod tests;
