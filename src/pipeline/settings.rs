//! Adapters and their steps; checked by `config`.

use std::time::Duration;

use crate::model::{AdapterName, Destination, Mode, TransactionAttribute};

/// One adapter: a named pipeline that a receiver or another adapter enters.
#[derive(Debug, Clone)]
pub struct AdapterSettings {
    pub name: AdapterName,
    pub configuration: String,
    pub description: Option<String>,
    /// How the pipeline joins its caller's transaction. Default Supports. With a receiver: the receiver's.
    pub transaction_attribute: TransactionAttribute,
    pub steps: Vec<StepSettings>,
}

#[derive(Debug, Clone)]
pub struct StepSettings {
    pub name: String,
    pub input: Input,
    pub kind: StepKind,
}

/// What a step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Input {
    /// What the step before left.
    #[default]
    Payload,
    /// What this adapter was given.
    OriginalMessage,
}

#[derive(Debug, Clone)]
pub enum StepKind {
    AmqpSender(AmqpSenderSettings),
    Query(QuerySettings),
    Call(CallSettings),
}

#[derive(Debug, Clone)]
pub struct AmqpSenderSettings {
    pub connection: String,
    pub queue: String,
    pub destination: Destination,
    /// `Own` when a receiver of this home consumes the queue, else `Handover`.
    pub mode: Mode,
    /// Attempts that the consuming receiver allows; for a queue of others how often it is published, 10.
    pub max_attempts: i32,
}

#[derive(Debug, Clone)]
pub struct QuerySettings {
    pub database: String,
    pub sql: String,
    pub params: Vec<Param>,
}

/// A bind parameter's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Param {
    Payload,
    OriginalMessage,
    MessageId,
    CorrelationId,
    /// A header that travels along, by lower-case name; absent is SQL NULL.
    Header(String),
}

#[derive(Debug, Clone)]
pub struct CallSettings {
    pub adapter: AdapterName,
}

/// The longest a transaction may take, unless the receiver says otherwise.
pub const DEFAULT_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);
