//! A pipeline and its COMMIT: the same for whoever received the message.

use std::time::Duration;

use bytes::Bytes;

use super::pipe::{FailureKind, StepFailure, Work};
use super::{AdapterRegistry, Pipelines};
use crate::model::{AdapterName, Envelope, TxId};
use crate::store::{CommitError, Outgoing, Store, StoreError, WorkTransaction};

/// What a pipeline runs on.
#[derive(Clone, Copy)]
pub struct Engine<'a> {
    pub store: &'a Store,
    pub registry: &'a AdapterRegistry,
    pub mint: &'a (dyn Fn() -> TxId + Send + Sync),
}

/// Why nothing can be built on it.
#[derive(Debug)]
pub enum NotCommitted {
    /// Rolled back, or the connection closed before a COMMIT was sent: nothing was done.
    Failed(StepFailure),
    /// The COMMIT was sent and not answered: only the database can tell.
    Unknown(StoreError),
}

impl Pipelines {
    /// Runs the adapter that a message enters, at most for `bound`, and commits. Answers the journal rows that it
    /// inserted, with their payloads, to be published now.
    pub async fn run_and_commit(
        &self,
        adapter: &AdapterName,
        envelope: &Envelope,
        transaction: WorkTransaction,
        engine: Engine<'_>,
        bound: Duration,
    ) -> Result<Vec<(Outgoing, Bytes)>, NotCommitted> {
        let mut work = Work {
            store: engine.store,
            transaction: &transaction,
            registry: engine.registry,
            pipelines: self,
            envelope,
            original: envelope.body.clone(),
            sent: Vec::new(),
            chain: Vec::new(),
            mint: engine.mint,
        };
        let run = Box::pin(self.run(adapter, &mut work));
        let result = tokio::time::timeout(bound, run).await;
        let sent = std::mem::take(&mut work.sent);
        match result {
            Ok(Ok(())) => match transaction.commit(engine.store).await {
                Ok(()) => Ok(sent),
                Err(CommitError::RolledBack(error)) => {
                    let kind = FailureKind::of(&error);
                    Err(NotCommitted::Failed(at(adapter, "commit", error.to_string(), kind)))
                }
                Err(CommitError::Unknown(error)) => Err(NotCommitted::Unknown(error)),
            },
            Ok(Err(failure)) => {
                transaction.roll_back(engine.store).await;
                Err(NotCommitted::Failed(failure))
            }
            Err(_elapsed) => {
                transaction.cancel().await;
                let reason = format!("not finished within {bound:?}");
                Err(NotCommitted::Failed(at(adapter, "transactionTimeout", reason, FailureKind::Step)))
            }
        }
    }
}

fn at(adapter: &AdapterName, step: &str, reason: String, kind: FailureKind) -> StepFailure {
    StepFailure { step: step.to_owned(), chain: adapter.to_string(), reason, kind }
}
