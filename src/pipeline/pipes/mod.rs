//! One file per kind of step.

pub mod amqp_sender;
pub mod call;
pub mod query;
