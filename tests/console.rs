//! The management API against a real PostgreSQL.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "in a test a panic is the report")]

#[path = "console/home.rs"]
mod home;

#[path = "console/actions.rs"]
mod actions;
#[path = "console/browse.rs"]
mod browse;
#[path = "console/protection.rs"]
mod protection;
#[path = "console/trace.rs"]
mod trace;
