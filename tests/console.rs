//! The management API against a real PostgreSQL.

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
#[path = "console/conflicts.rs"]
mod conflicts;
#[cfg(test)]
#[path = "console/large.rs"]
mod large;
#[cfg(test)]
#[path = "console/protection.rs"]
mod protection;
#[cfg(test)]
#[path = "console/trace.rs"]
mod trace;
