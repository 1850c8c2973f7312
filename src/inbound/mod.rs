//! A message comes in: HTTP, checked, then accepted in one decision (protocol §4).

mod accept;
mod answer;
mod api;
mod connection;
mod connections;
mod finishing;
mod group;
pub mod lent;
mod line;
mod openapi;
pub mod origin;
mod path;
pub mod problem;
mod progress;
mod request;
mod respond;
pub mod server;
mod settings;
mod socket;
mod trying;
mod unpack;
pub mod verdict;
pub mod well_formed;

pub use accept::Acceptor;
pub use answer::{Answer, NotReady};
pub use api::PublicApi;
pub use group::Groups;
pub use path::Path;
pub use settings::{Accept, ApiSettings, DuplicateKey, InboundSettings, MessageLogSettings};
