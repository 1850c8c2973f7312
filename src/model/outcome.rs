//! The states and letters that stand in the database, with their texts in one place.

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text in the database, in JSON and on the page.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            #[must_use]
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(
    /// How a journal row's message reaches its consumer; fixed when the row is inserted.
    Mode {
        /// A queue that a receiver of this home consumes: redone until DONE.
        Own = "OWN",
        /// A queue of others: the broker's confirm ends our responsibility.
        Handover = "HANDOVER",
        /// Dispatched in process: resent, adopted and submitted messages.
        Direct = "DIRECT",
    }
);

words!(
    /// `journal.state`.
    JournalState {
        Ready = "READY",
        Published = "PUBLISHED",
        Done = "DONE",
        Error = "ERROR",
    }
);

words!(
    /// `ibisstore.type`.
    StoreType {
        /// Message log of a receiver.
        Log = "A",
        /// Error store.
        Error = "E",
        /// Waiting in a message store.
        Waiting = "M",
        /// In process.
        InProcess = "I",
        /// On hold, or parked.
        Hold = "H",
        /// Message log of a sender.
        SenderLog = "L",
    }
);

words!(
    /// The state of an adapter, shown alike everywhere.
    AdapterState {
        Starting = "STARTING",
        Started = "STARTED",
        Stopping = "STOPPING",
        Stopped = "STOPPED",
        Error = "ERROR",
    }
);

words!(
    /// How an adapter's pipeline joins the transaction that its caller brings (F10).
    TransactionAttribute {
        Required = "Required",
        Mandatory = "Mandatory",
        Supports = "Supports",
    }
);
