//! A transaction over several databases: all or none of them, whatever crashes (protocol §6).
//!
//! Pure: `protocol` (a coordinator), `recovery` (what it left behind), `invariants`. With effects: `driver` and `janitor`,
//! through `ports`.

mod branches;
pub mod driver;
pub mod faults;
mod gid;
pub mod invariants;
pub mod janitor;
pub mod ports;
pub mod protocol;
pub mod recovery;
mod running;

pub use branches::{Branches, MAX_BRANCHES};
pub use gid::{Gid, Gtrid};
pub use running::{AtWork, Coordinators};
