//! The management API against a real PostgreSQL.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "in a test a panic is the report")]

#[cfg(test)]
#[path = "console/home.rs"]
mod home;

#[cfg(test)]
#[path = "console/actions.rs"]
mod actions;
#[cfg(test)]
#[path = "console/browse.rs"]
mod browse;
#[cfg(test)]
#[path = "console/protection.rs"]
mod protection;
#[cfg(test)]
#[path = "console/trace.rs"]
mod trace;
