//! Posthaste: a transactional fire-and-forget pipeline.
//!
//! The modules stand in the order of a message's journey.

pub mod model;

pub mod txn;

pub mod broker;
pub mod console;
pub mod inbound;
pub mod pipeline;
pub mod receiver;
pub mod relay;
pub mod store;

pub mod cli;
pub mod config;
pub mod dev;

pub mod app;
pub mod lifecycle;
pub mod telemetry;
