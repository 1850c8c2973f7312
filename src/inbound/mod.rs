//! A message comes in: HTTP, checked, then accepted in one decision (protocol §4).

mod accept;
mod api;
mod finishing;
mod group;
mod line;
pub mod problem;
mod request;
pub mod server;
mod settings;
pub mod verdict;

pub use accept::{Acceptor, Answer, Path};
pub use api::{PublicApi, path_of};
pub use group::Groups;
pub use settings::{Accept, ApiSettings, DuplicateKey, InboundSettings, MessageLogSettings};
