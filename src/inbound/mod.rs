//! A message comes in: HTTP, checked, then accepted in one decision (protocol §4).

mod accept;
mod answer;
mod api;
mod finishing;
mod group;
mod line;
mod path;
pub mod problem;
mod request;
pub mod server;
mod settings;
pub mod verdict;

pub use accept::Acceptor;
pub use answer::{Answer, NotReady};
pub use api::PublicApi;
pub use group::Groups;
pub use path::Path;
pub use settings::{Accept, ApiSettings, DuplicateKey, InboundSettings, MessageLogSettings};
