//! The replay of a group of which somebody failed: with a savepoint for each member (protocol §7).

use std::time::Instant;

use super::ReceiverSettings;
use super::attempt::{Blame, blame};
use super::group::{Member, Together, Tried, bound, infrastructure};
use super::process::Processor;
use crate::store::{Claim, StepCall, StoreError, WorkTransaction};
use crate::txn::faults::{Point, reach};

impl Processor {
    /// With a savepoint each: whoever fails harms nobody.
    pub(super) async fn one_by_one(&self, settings: &ReceiverSettings, members: &[Member<'_>]) -> Together {
        let began = Instant::now();
        let transaction = match self.store.begin_work().await {
            Ok(transaction) => transaction,
            Err(error) => return infrastructure(&error),
        };
        let run = async {
            let mut tried = Vec::with_capacity(members.len());
            for member in members {
                tried.push(self.one(&transaction, settings, member).await?);
                reach(Point::GR2).await?;
            }
            Ok::<_, StoreError>(tried)
        };
        match tokio::time::timeout(bound(settings), run).await {
            Ok(Ok(tried)) => {
                self.pace.grouped(began.elapsed(), tried.len());
                self.commit(transaction, tried).await
            }
            Ok(Err(error)) => {
                transaction.roll_back(&self.store).await;
                tracing::debug!(%error, "a replay was interrupted");
                Together::Undone
            }
            Err(_elapsed) => {
                transaction.cancel().await;
                Together::Undone
            }
        }
    }

    /// One member within its savepoint.
    ///
    /// # Errors
    /// Nobody is at fault, and the transaction is of no use any more.
    async fn one(
        &self,
        transaction: &WorkTransaction,
        settings: &ReceiverSettings,
        member: &Member<'_>,
    ) -> Result<Tried, StoreError> {
        let began = Instant::now();
        transaction.save(&self.store).await?;
        let claim = Claim {
            tx_id: member.envelope.tx_id,
            destination: &settings.destination,
            attempts: 0,
            started: false,
            sha256: &member.sha256,
        };
        let Some(max_attempts) = transaction.take(&self.store, claim).await? else {
            transaction.keep(&self.store).await?;
            return Ok(Tried::NotTaken);
        };
        let Err(failed) = transaction.execute_all(&self.store, &member.calls()).await else {
            transaction.keep(&self.store).await?;
            return Ok(Tried::Done);
        };
        let step = member.steps.get(failed.at);
        match (blame(&failed.error), step) {
            (Blame::Nobody, _) => Err(failed.error),
            (Blame::Message, Some(step)) => {
                transaction.undo(&self.store).await?;
                if let StepCall::Query { sql, .. } = &step.call
                    && failed.error.blames_a_value()
                    && transaction.is_outdated(&self.store, sql).await
                {
                    return Ok(Tried::Unclear);
                }
                Ok(Tried::Failed { failure: step.failed(&failed.error), max_attempts, took: began.elapsed() })
            }
            (Blame::Unclear, _) | (Blame::Message, None) => {
                transaction.undo(&self.store).await?;
                Ok(Tried::Unclear)
            }
        }
    }
}
