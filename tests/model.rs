//! The transaction protocol, explored: the product's own decisions against a model of PostgreSQL and RabbitMQ, over every
//! interleaving, loss and crash within the bounds of each scenario (protocol §9.1).

#[cfg(test)]
#[path = "model/chance.rs"]
mod chance;
#[cfg(test)]
#[path = "model/finder.rs"]
mod finder;
#[cfg(test)]
#[path = "model/harness.rs"]
mod harness;
#[cfg(test)]
#[path = "model/lease.rs"]
mod lease;
#[cfg(test)]
#[path = "model/mutants.rs"]
mod mutants;
#[cfg(test)]
#[path = "model/postgres.rs"]
mod postgres;
#[cfg(test)]
#[path = "model/product.rs"]
mod product;
#[cfg(test)]
#[path = "model/requests.rs"]
mod requests;
#[cfg(test)]
#[path = "model/resends.rs"]
mod resends;
#[cfg(test)]
#[path = "model/rules.rs"]
mod rules;
#[cfg(test)]
#[path = "model/scenarios.rs"]
mod scenarios;
#[cfg(test)]
#[path = "model/sent.rs"]
mod sent;
#[cfg(test)]
#[path = "model/statements.rs"]
mod statements;
#[cfg(test)]
#[path = "model/sweeper.rs"]
mod sweeper;
#[cfg(test)]
#[path = "model/tasks.rs"]
mod tasks;
#[cfg(test)]
#[path = "model/tests.rs"]
mod tests;
#[cfg(test)]
#[path = "model/two_phase.rs"]
mod two_phase;
#[cfg(test)]
#[path = "model/work.rs"]
mod work;
#[cfg(test)]
#[path = "model/world.rs"]
mod world;
