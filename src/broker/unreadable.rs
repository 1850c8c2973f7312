//! A message that the library cannot read, from its bytes: what is wrong with it, and what of it can be kept. Pure.

use bytes::Bytes;
use lapin::protocol::basic::parse_properties;
use sha2::{Digest, Sha256};

use super::frames::{Rest, fits};
use super::nested::Walk;
use super::wire::{HEADER_OVERHEAD, MAX_HEADER_BYTES, MAX_HEADERS, MESSAGE_ID, OURS};
use crate::model::{Headers, MessageId, TxId};

/// What brokers add to a message that they deliver again.
const OF_DELIVERY: [&[u8]; 2] = [b"x-delivery-count", b"x-acquired-count"];

/// What stands before the properties in their frame: class, weight and the size of the body.
pub(super) const BEFORE_PROPERTIES: usize = 12;

/// What of it can be kept. Texts that are not UTF-8 have signs of replacement (U+FFFD) in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// What is wrong with it, for people.
    pub what: String,
    /// The same whenever this message is delivered; `None`: without an id of its own a repeat cannot be told from another
    /// message.
    pub tx_id: Option<TxId>,
    /// The business id; `None`: it has none that is valid.
    pub message_id: Option<MessageId>,
    pub correlation_id: Option<MessageId>,
    pub content_type: Option<String>,
    /// String-typed headers by lower-case name, ours left out.
    pub headers: Headers,
    pub body: Bytes,
}

/// Everything of a message but its body, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    pub exchange: Vec<u8>,
    pub routing_key: Vec<u8>,
    /// With their flags in front.
    pub properties: Vec<u8>,
    /// The largest frame that the library takes, in bytes.
    pub frame_max: u32,
}

impl Envelope {
    /// Whether the library is let read it, and can.
    pub(super) fn is_readable(&self) -> bool {
        if !self.fits() {
            return false;
        }
        let names = std::str::from_utf8(&self.exchange).is_ok() && std::str::from_utf8(&self.routing_key).is_ok();
        let mut found = Found::default();
        let _whole = found.properties(Rest(&self.properties));
        names
            && !found.walk.too_deep
            && parse_properties(self.properties.as_slice()).is_ok_and(|(rest, _)| rest.is_empty())
    }

    /// Whether its frame of properties is one that the library takes.
    fn fits(&self) -> bool {
        fits(BEFORE_PROPERTIES + self.properties.len(), self.frame_max)
    }

    pub(super) fn keep(&self, queue: &str, body: Bytes) -> Unreadable {
        let mut found = Found::default();
        found.text("exchange", &self.exchange);
        found.text("routing key", &self.routing_key);
        let whole = found.properties(Rest(&self.properties)).is_some();
        let what = match found.wrong.as_slice() {
            [] if found.walk.too_deep => "its headers are tables in tables without end".to_owned(),
            [] if !self.fits() => {
                format!("its headers are too large for our client: {} bytes", self.properties.len())
            }
            [] => "its properties are not what AMQP says".to_owned(),
            wrong => format!("its {} {} not UTF-8", wrong.join(" and "), if wrong.len() == 1 { "is" } else { "are" }),
        };
        let id = found.id.filter(|id| whole && !id.is_empty());
        let tx_id = id.map(|_| found.identity(&[queue.as_bytes(), &self.exchange, &self.routing_key, &body]));
        let Found { correlation, content_type, headers, business, .. } = found;
        Unreadable {
            what,
            tx_id,
            message_id: business.or_else(|| parsed(id?)),
            correlation_id: correlation.and_then(parsed),
            content_type: content_type.map(lossy),
            headers,
            body,
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn parsed(bytes: &[u8]) -> Option<MessageId> {
    MessageId::parse(std::str::from_utf8(bytes).ok()?).ok()
}

/// The short strings among the properties, in their order; the others have a length of their own.
enum Property {
    Text(&'static str),
    Table,
    Octets(usize),
}

const PROPERTIES: [Property; 14] = [
    Property::Text("content type"),
    Property::Text("content encoding"),
    Property::Table,
    Property::Octets(1),
    Property::Octets(1),
    Property::Text("correlation id"),
    Property::Text("reply-to"),
    Property::Text("expiration"),
    Property::Text("message id"),
    Property::Octets(8),
    Property::Text("type"),
    Property::Text("user id"),
    Property::Text("app id"),
    Property::Text("cluster id"),
];

/// What was found on the way through the bytes.
#[derive(Debug, Default)]
struct Found<'a> {
    wrong: Vec<&'static str>,
    walk: Walk,
    id: Option<&'a [u8]>,
    correlation: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    headers: Headers,
    /// Its header says so.
    business: Option<MessageId>,
    /// What it is recognised by: the properties that are no headers, and headers that are strings. The broker writes all of
    /// them anew when it adds to them, in whatever order and with other types of numbers.
    parts: Vec<&'a [u8]>,
    named: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Found<'a> {
    fn text(&mut self, name: &'static str, bytes: &[u8]) {
        if std::str::from_utf8(bytes).is_err() {
            self.wrong(name);
        }
    }

    fn wrong(&mut self, name: &'static str) {
        if !self.wrong.contains(&name) {
            self.wrong.push(name);
        }
    }

    /// `None`: they end too early.
    fn properties(&mut self, mut rest: Rest<'a>) -> Option<()> {
        let flags = rest.u16()?;
        for (property, bit) in PROPERTIES.iter().zip(0_u16..) {
            if flags & (1 << (15 - bit)) == 0 {
                continue;
            }
            match property {
                Property::Octets(length) => self.parts.push(rest.take(*length)?),
                Property::Table => self.headers(rest.long()?)?,
                Property::Text(name) => {
                    let bytes = rest.short()?;
                    self.text(name, bytes);
                    self.parts.push(bytes);
                    match *name {
                        "message id" => self.id = Some(bytes),
                        "correlation id" => self.correlation = Some(bytes),
                        "content type" => self.content_type = Some(bytes),
                        _ => {}
                    }
                }
            }
        }
        Some(())
    }

    fn identity(&mut self, of: &[&[u8]]) -> TxId {
        self.named.sort_unstable();
        let named = self.named.iter().flat_map(|(name, value)| [*name, *value]);
        let mut hash = Sha256::new();
        for part in of.iter().chain(&self.parts).copied().chain(named) {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash.finalize()).for_each(|(byte, hashed)| *byte = hashed);
        TxId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    fn headers(&mut self, table: &'a [u8]) -> Option<()> {
        let (mut rest, mut room) = (Rest(table), MAX_HEADER_BYTES);
        while !rest.0.is_empty() {
            let name = rest.short()?;
            self.text("header name", name);
            let value = self.walk.value(&mut rest, 0);
            if self.walk.strange_name {
                self.wrong("header name");
            }
            let value = value?;
            let Some(value) = value else { continue };
            if !OF_DELIVERY.contains(&name) {
                self.named.push((name, value));
            }
            let (name, value) = (lossy(name), lossy(value));
            if name.eq_ignore_ascii_case(MESSAGE_ID) {
                self.business = MessageId::parse(&value).ok();
            }
            let cost = name.len() + value.len() + HEADER_OVERHEAD;
            let ours = OURS.iter().any(|ours| ours.eq_ignore_ascii_case(&name));
            if name.is_empty() || ours || cost > room || self.headers.len() == MAX_HEADERS {
                continue;
            }
            room -= cost;
            self.headers.insert(name.to_lowercase(), value);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
