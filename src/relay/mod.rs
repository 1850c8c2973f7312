//! From the journal to the broker: publishing after the decision, marking, and redoing what was lost (protocol §4).
//!
//! Deliberately not here: accepting and processing. The relay moves what is already decided, and a second publish never
//! harms.

mod act;
mod admission;
mod batch;
mod board;
mod clock;
mod decide;
mod direct;
mod epoch;
mod failures;
mod heartbeat;
mod lease;
mod marker;
mod page;
mod publish;
mod recovery;
mod room;
mod running;
mod suspects;
mod sweeper;
mod topology;
mod trouble;
mod turns;
mod walk;

pub use admission::NotTaken;
pub use board::{OpenCounts, Troubled};
pub use clock::DatabaseClock;
pub use decide::{Facts, MAX_PUBLISHES, Next, decide, redo_after};
pub use direct::Direct;
pub use failures::{AfterPublish, after_publish};
pub use heartbeat::{Fenced, Shared, beating, heartbeat};
pub use lease::LeaseObserver;
pub use publish::{DestinationSettings, Published, Relay, RelaySettings};
pub use recovery::{T_RECOVER, last_round, recover, recovery};
pub use room::{Occupied, Room, SMALL};
pub use running::Running;
pub use sweeper::{sweep, sweeper};
pub use topology::{verifier, verify_destinations};
