//! Faults drawn from a seeded dice, done to an installation under load (protocol §9.4).

mod installation;
mod plan;
mod surroundings;

pub use installation::Installation;
pub use plan::Plan;
