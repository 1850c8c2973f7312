//! Newtypes for everything that identifies something.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Longest message or correlation id, in characters: AMQP's short string holds 255 bytes.
pub const MAX_ID_LENGTH: usize = 255;

/// Why a text is not a valid message or correlation id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("it is empty; send 1 to {MAX_ID_LENGTH} visible ASCII characters")]
    Empty,
    #[error("it has {0} characters; at most {MAX_ID_LENGTH} are possible")]
    TooLong(usize),
    #[error("character {0} is not visible ASCII (! to ~)")]
    NotVisibleAscii(usize),
}

/// The business id of a message: 1 to 255 visible ASCII characters. Also the form of a correlation id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct MessageId(Arc<str>);

impl MessageId {
    /// Checks and takes an id. Nothing is trimmed or altered.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if let Some(at) = text.bytes().position(|byte| !(0x21..=0x7e).contains(&byte)) {
            return Err(IdError::NotVisibleAscii(at + 1));
        }
        if text.len() > MAX_ID_LENGTH {
            return Err(IdError::TooLong(text.len()));
        }
        Ok(Self(text.into()))
    }

    /// An id for a message whose sender gave none.
    #[must_use]
    pub fn mint() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            #[must_use]
            pub fn new(text: &str) -> Self {
                Self(text.into())
            }

            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A named part of `ibisstore`: 1 to 100 characters.
    SlotId
);
name!(
    /// An adapter's name, unique over all configurations.
    AdapterName
);
name!(
    /// Where a journal row is to be processed: `connection/queue`.
    Destination
);

impl Destination {
    /// The destination of a queue on a named connection.
    #[must_use]
    pub fn queue(connection: &str, queue: &str) -> Self {
        Self::new(&format!("{connection}/{queue}"))
    }

    /// Where its messages wait when the broker does not take them: a slot of the same name, cut and told apart by a hash
    /// where that is longer than a slot's may be.
    #[must_use]
    pub fn error_slot(&self) -> SlotId {
        if self.0.chars().count() <= SlotId::LONGEST {
            return SlotId::new(&self.0);
        }
        let hash: String = Sha256::digest(self.0.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let start: String = self.0.chars().take(SlotId::LONGEST - hash.len() - 1).collect();
        SlotId::new(&format!("{start}~{hash}"))
    }
}

impl SlotId {
    /// In characters: the column's.
    pub const LONGEST: usize = 100;
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id!(
    /// One journal row: a UUIDv7, so that the primary key is in time order.
    TxId
);
uuid_id!(
    /// The acceptance that a row descends from: the `TxId` of the first journal row.
    RootId
);
uuid_id!(
    /// One start of one process.
    Incarnation
);
uuid_id!(
    /// The installation: the home database's identity, carried by its own messages on the wire.
    HomeId
);

impl TxId {
    #[must_use]
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }

    /// An id whose time is given, in microseconds since 1970.
    #[must_use]
    pub fn mint_at(micros: i64) -> Self {
        let micros = u64::try_from(micros).unwrap_or(0);
        let nanos = u32::try_from(micros % 1_000_000).unwrap_or(0) * 1000;
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos)))
    }

    /// The time in it, in milliseconds since 1970; for people, not for decisions.
    #[must_use]
    pub fn millis(self) -> u64 {
        u64::try_from(self.0.as_u128() >> 80).unwrap_or(u64::MAX)
    }
}

impl From<TxId> for RootId {
    fn from(tx_id: TxId) -> Self {
        Self(tx_id.0)
    }
}

impl Incarnation {
    #[must_use]
    pub fn mint() -> Self {
        Self(Uuid::now_v7())
    }
}

/// `ibisstore.messagekey`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageKey(pub i64);

impl fmt::Display for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_255_visible_characters_is_taken_and_256_are_not() {
        assert!(MessageId::parse(&"x".repeat(255)).is_ok());
        assert_eq!(MessageId::parse(&"x".repeat(256)), Err(IdError::TooLong(256)));
    }

    #[test]
    fn an_id_with_a_space_a_control_or_an_accent_is_refused_where_it_stands() {
        assert_eq!(MessageId::parse("a b"), Err(IdError::NotVisibleAscii(2)));
        assert_eq!(MessageId::parse("\0"), Err(IdError::NotVisibleAscii(1)));
        assert_eq!(MessageId::parse("caf\u{e9}"), Err(IdError::NotVisibleAscii(4)));
        assert_eq!(MessageId::parse(""), Err(IdError::Empty));
    }

    #[test]
    fn the_slot_of_a_queue_with_a_long_name_fits_and_is_its_own() {
        let slot = |queue: &str| Destination::queue("rabbit", queue).error_slot().as_str().to_owned();
        assert_eq!(slot("others"), "rabbit/others");
        assert_eq!(slot(&"x".repeat(93)), format!("rabbit/{}", "x".repeat(93)));
        for queue in ["x".repeat(94), "x".repeat(255), "é".repeat(120)] {
            assert_eq!(slot(&queue).chars().count(), SlotId::LONGEST, "{queue}");
            assert_ne!(slot(&queue), slot(&format!("{queue}x")));
        }
    }
}
