//! The management API against a real PostgreSQL.

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
