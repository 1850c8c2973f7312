//! A pipeline and its COMMIT: the same for whoever received the message.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::pipe::{FailureKind, StepFailure, Work};
use super::runner::{failure, refused};
use super::{AdapterRegistry, Pipelines};
use crate::model::{AdapterName, Envelope, HomeId, TxId};
use crate::store::{BranchTransaction, Database, Outgoing, Plans, Store, StoreError, Target, WorkTransaction};
use crate::txn::driver::{Coordinator, NotCommitted as Undecided, commit};
use crate::txn::ports::Participant as _;

/// What a pipeline runs on.
#[derive(Clone, Copy)]
pub struct Engine<'a> {
    pub store: &'a Store,
    pub registry: &'a AdapterRegistry,
    pub mint: &'a (dyn Fn() -> TxId + Send + Sync),
}

/// A pipeline that went through.
#[derive(Debug)]
pub struct Committed {
    /// The journal rows that it inserted, with their payloads, to be published now.
    pub sent: Vec<(Outgoing, Bytes)>,
}

/// Why nothing can be built on it.
#[derive(Debug)]
pub enum NotCommitted {
    /// Rolled back, or the connection closed before a COMMIT was sent: nothing was done.
    Failed(StepFailure),
    /// The COMMIT was sent and not answered: only the database can tell.
    Unknown(StoreError),
    /// The instance stops: nothing was done.
    Stopped,
}

/// The open transactions of one attempt: the home's, and one in each other database that a step has touched.
#[derive(Debug)]
pub struct Transaction {
    pub home: WorkTransaction,
    branches: Vec<(String, BranchTransaction)>,
    /// The statement that failed for a value, which a kept plan may have read as another type.
    doubtful: Option<Doubtful>,
}

#[derive(Debug)]
struct Doubtful {
    /// `None`: in the home.
    branch: Option<String>,
    sql: String,
}

impl Transaction {
    /// With branches that are open already.
    #[must_use]
    pub fn of(home: WorkTransaction, branches: Vec<BranchTransaction>) -> Self {
        let named = branches.into_iter().map(|branch| (branch.database().name().to_owned(), branch));
        Self { home, branches: named.collect(), doubtful: None }
    }

    /// Runs a step's statement in a database; the first one there opens its branch.
    ///
    /// # Errors
    /// Any `Refused` leaves the transaction broken: roll back.
    pub async fn execute_step(
        &mut self,
        store: &Store,
        database: &str,
        sql: &str,
        params: &[Option<Bytes>],
    ) -> Result<u64, StoreError> {
        let target = store.databases.target(database)?;
        let answer = match target {
            Target::Home => self.home.execute_step(sql, params).await,
            Target::Branch(database) => self.branch(database).await?.execute_step(sql, params).await,
        };
        if answer.as_ref().is_err_and(StoreError::blames_a_value) && self.home.plans() == Plans::Kept {
            let branch = target.branch().map(|database| database.name().to_owned());
            self.doubtful = Some(Doubtful { branch, sql: sql.to_owned() });
        }
        answer
    }

    /// The branch in this database, opened by now.
    ///
    /// # Errors
    /// It could not be opened.
    pub async fn branch(&mut self, database: &Database) -> Result<&mut BranchTransaction, StoreError> {
        let at = match self.branches.iter().position(|(name, _)| name == database.name()) {
            Some(at) => at,
            None => {
                self.branches.push((database.name().to_owned(), database.begin_with(self.home.plans()).await?));
                self.branches.len() - 1
            }
        };
        match self.branches.get_mut(at) {
            Some((_, branch)) => Ok(branch),
            None => Err(StoreError::Unexpected("a branch that was just opened is gone".to_owned())),
        }
    }

    /// Rolls back everywhere; a connection that does not answer is closed. Answers whether the statement that failed for a
    /// value had a stale plan.
    pub async fn roll_back(mut self, store: &Store) -> bool {
        let doubtful = self.doubtful.take();
        let at_home = doubtful.as_ref().filter(|doubtful| doubtful.branch.is_none());
        let branches = self.branches.iter_mut().map(async |(name, branch)| match &doubtful {
            Some(Doubtful { branch: Some(at), sql }) if at == name => branch.roll_back_after(sql).await,
            Some(_) | None => {
                branch.roll_back().await;
                false
            }
        });
        let stale = join_all(branches).await.contains(&true);
        match at_home {
            Some(doubtful) => self.home.roll_back_after(store, &doubtful.sql).await,
            None => {
                self.home.roll_back(store).await;
                stale
            }
        }
    }

    /// Ends what runs, after a time-out; the connections are closed.
    pub async fn cancel(self) {
        join_all(self.branches.iter().map(|(_, branch)| branch.cancel())).await;
        self.home.cancel().await;
    }

    /// All or none (protocol §6), for this journal row and those that share the transaction.
    ///
    /// # Errors
    /// See [`Undecided`].
    pub async fn commit(self, store: &Store, tx_id: TxId, others: &[TxId]) -> Result<(), Undecided<StoreError>> {
        let home = match store.home() {
            Some(home) => home,
            // No gid is made of it.
            None if self.branches.is_empty() => HomeId(uuid::Uuid::nil()),
            None => return Err(Undecided::Defect("the home has no identity yet".to_owned())),
        };
        let (incarnation, coordinators) = (store.incarnation, &store.coordinators);
        let coordinator = Coordinator { home, incarnation, tx_id, others, coordinators };
        let branches = self.branches.into_iter().map(|(_, branch)| branch).collect();
        commit(coordinator, self.home.on_its_way(store), branches, store).await
    }
}

impl Pipelines {
    /// Runs the adapter that a message enters, at most for `bound` and until `stop`, and commits.
    pub async fn run_and_commit(
        &self,
        adapter: &AdapterName,
        envelope: &Envelope,
        home: WorkTransaction,
        engine: Engine<'_>,
        bound: Duration,
        stop: &CancellationToken,
    ) -> Result<Committed, NotCommitted> {
        // In a new session there is no stale plan to blame.
        let believed = match home.plans() {
            Plans::Kept => std::convert::identity,
            Plans::New => FailureKind::without_plans,
        };
        let mut transaction = Transaction::of(home, Vec::new());
        let mut work = Work {
            store: engine.store,
            transaction: &mut transaction,
            registry: engine.registry,
            pipelines: self,
            envelope,
            original: envelope.body.clone(),
            sent: Vec::new(),
            chain: Vec::new(),
            mint: engine.mint,
        };
        let run = Box::pin(self.run(adapter, &mut work));
        let result = stop.run_until_cancelled(tokio::time::timeout(bound, run)).await;
        let sent = std::mem::take(&mut work.sent);
        match result {
            Some(Ok(Ok(()))) => match transaction.commit(engine.store, envelope.tx_id, &[]).await {
                Ok(()) => Ok(Committed { sent }),
                Err(Undecided::RolledBack(error)) => {
                    let kind = believed(FailureKind::of(&error));
                    Err(NotCommitted::Failed(StepFailure { kind, ..at(adapter, "commit", refused(&error)) }))
                }
                Err(Undecided::Unknown(error)) => Err(NotCommitted::Unknown(error)),
                Err(Undecided::Defect(reason)) => Err(NotCommitted::Unknown(StoreError::Unexpected(reason))),
            },
            Some(Ok(Err(failure))) => {
                let stale = transaction.roll_back(engine.store).await;
                let kind = if stale { FailureKind::StalePlan } else { believed(failure.kind) };
                Err(NotCommitted::Failed(StepFailure { kind, ..failure }))
            }
            Some(Err(_elapsed)) => {
                transaction.cancel().await;
                let late = failure(format!("not finished within {bound:?}"), FailureKind::Step);
                Err(NotCommitted::Failed(at(adapter, "transactionTimeout", late)))
            }
            // Its statement would go on, and hold its locks, after this process has gone.
            None => {
                transaction.cancel().await;
                Err(NotCommitted::Stopped)
            }
        }
    }
}

fn at(adapter: &AdapterName, step: &str, failure: StepFailure) -> StepFailure {
    StepFailure { step: step.to_owned(), chain: adapter.to_string(), ..failure }
}
