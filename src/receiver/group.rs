//! A group's attempt: messages that nobody has tried share a transaction, and answer for themselves (protocol §7).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::ReceiverSettings;
use super::attempt::{Blame, Verdict, after_failure, blame};
use super::process::{AttemptEnd, Failed, Processor, attempt_span, span_of_success};
use crate::model::{Envelope, TxId};
use crate::pipeline::{Engine, PlannedStep, StepFailure};
use crate::store::{Claim, InRows, StepCall, StoreError, Wanted, WorkTransaction};
use crate::txn::faults::{Point, reach};
use crate::txn::ports::{Decided, HomeTransaction};

/// What became of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Ended(AttemptEnd),
    /// Nothing was done and nothing counted: it is to be tried in a transaction of its own.
    Alone,
}

/// With a savepoint each, so many at a time: PostgreSQL caches 64 subtransactions of a transaction.
const WITH_SAVEPOINTS: usize = 32;

/// A group that takes so long has become slow on its way: its messages are better off side by side.
const SLOW_GROUP: Duration = Duration::from_secs(3);

/// A message whose work is known.
pub(super) struct Member<'a> {
    /// Its place among the messages that were given.
    at: usize,
    pub envelope: &'a Envelope,
    pub sha256: [u8; 32],
    pub steps: Vec<PlannedStep<'a>>,
}

/// How a transaction of several ended.
pub(super) enum Together {
    /// With what became of each member, in their order.
    Committed(Vec<Tried>),
    /// What one of them did has undone all; with savepoints it would be told from the others.
    OneFailed,
    /// Undone, and nobody is known to be at fault.
    Undone,
    /// The database is at fault.
    Infrastructure { reason: String, undone: bool },
}

/// A member's part of a transaction that was committed.
pub(super) enum Tried {
    Done,
    /// The compare-and-set left it out.
    NotTaken,
    /// Undone by itself.
    Failed {
        failure: StepFailure,
        max_attempts: i32,
        took: Duration,
    },
    /// Undone by itself, and it may be that it only failed in company.
    Unclear,
}

impl Processor {
    /// Tries messages that nobody has tried, together. Answers what became of each, in their order.
    pub async fn group(&self, settings: &ReceiverSettings, envelopes: &[&Envelope]) -> Vec<Fate> {
        let mut fates = vec![Fate::Alone; envelopes.len()];
        let mint = || self.relay.mint();
        let engine = Engine { store: &self.store, registry: &self.registry, mint: &mint };
        let plan = |(at, envelope)| -> Option<Member<'_>> {
            let envelope: &Envelope = envelope;
            let steps = self.pipelines.plan(&settings.adapter, envelope, engine)?;
            Some(Member { at, envelope, sha256: envelope.sha256(), steps })
        };
        let members: Vec<Member<'_>> = envelopes.iter().copied().enumerate().filter_map(plan).collect();
        if members.is_empty() {
            return fates;
        }
        if members.iter().any(Member::reaches_others) {
            self.across(settings, members, &mut fates).await;
            return fates;
        }
        if !self.pace.careful() {
            let end = self.together(settings, &members).await;
            if let Together::OneFailed = end {
                self.pace.failed();
            } else {
                self.tell(settings, &members, end, &mut fates).await;
                return fates;
            }
        }
        for some in members.chunks(WITH_SAVEPOINTS) {
            let end = self.one_by_one(settings, some).await;
            let lost = matches!(end, Together::Infrastructure { .. });
            self.tell(settings, some, end, &mut fates).await;
            if lost {
                break;
            }
        }
        fates
    }

    /// All or none, as fast as it gets.
    async fn together(&self, settings: &ReceiverSettings, members: &[Member<'_>]) -> Together {
        let began = Instant::now();
        let transaction = match self.store.begin_work().await {
            Ok(transaction) => transaction,
            Err(error) => return infrastructure(&error),
        };
        let wanted: Vec<Wanted<'_>> =
            members.iter().map(|member| Wanted { tx_id: member.envelope.tx_id, sha256: &member.sha256 }).collect();
        let calls = |taken: &dyn Fn(&Member<'_>) -> bool| -> Vec<Vec<&StepCall<'_>>> {
            let messages = members.iter().filter(|member| taken(member));
            messages.map(|member| member.steps.iter().map(|step| &step.call).collect()).collect()
        };
        let rows = InRows::of(&calls(&|_all| true));
        let take_rows = async {
            match &rows {
                Some(rows) => transaction.takes_rows(&self.store, rows).await,
                None => Ok(false),
            }
        };
        let take = transaction.take_group(&self.store, &settings.destination, &wanted);
        let (taken, in_rows) = match tokio::try_join!(biased; take, take_rows) {
            Ok((taken, in_rows)) => (taken.into_iter().collect::<HashMap<TxId, i32>>(), in_rows),
            Err(error) => return self.undo(transaction, &error, members.len()).await,
        };
        let calls = calls(&|member| taken.contains_key(&member.envelope.tx_id));
        let rows = InRows::of(&calls).filter(|_rows| in_rows);
        let run = async {
            match &rows {
                Some(rows) => transaction.execute_in_rows(&self.store, rows).await,
                None => transaction.execute_all(&self.store, &calls.concat()).await.map_err(|failed| failed.error),
            }
        };
        let run = tokio::time::timeout(bound(settings), run).await;
        match run {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return self.undo(transaction, &error, members.len()).await,
            Err(_elapsed) => {
                self.pace.grouped_in_vain();
                transaction.cancel().await;
                return rolled_back("not finished in time", members.len()).await.unwrap_or(Together::Undone);
            }
        }
        let tried = |member: &Member<'_>| {
            if taken.contains_key(&member.envelope.tx_id) { Tried::Done } else { Tried::NotTaken }
        };
        let end = self.commit(transaction, members.iter().map(tried).collect()).await;
        if matches!(end, Together::Committed(_)) {
            self.pace.grouped(began.elapsed(), members.len());
        }
        end
    }

    async fn undo(&self, transaction: WorkTransaction, error: &StoreError, members: usize) -> Together {
        transaction.roll_back(&self.store).await;
        let end = match blame(error) {
            Blame::Message | Blame::Unclear => Together::OneFailed,
            Blame::Nobody => {
                self.pace.grouped_in_vain();
                Together::Undone
            }
        };
        rolled_back(&error.to_string(), members).await.unwrap_or(end)
    }

    async fn commit(&self, transaction: WorkTransaction, tried: Vec<Tried>) -> Together {
        match transaction.on_its_way(&self.store).commit().await {
            Decided::Yes => Together::Committed(tried),
            // A constraint that was deferred, say: only a transaction of its own tells whose.
            Decided::No(error) => {
                self.pace.grouped_in_vain();
                rolled_back(&error.to_string(), tried.len()).await.unwrap_or(Together::Undone)
            }
            // The next start of each, which locks its row, tells (DQ2).
            Decided::Unknown(error) => Together::Infrastructure { reason: error.to_string(), undone: false },
        }
    }

    /// With a savepoint each: whoever fails harms nobody.
    async fn one_by_one(&self, settings: &ReceiverSettings, members: &[Member<'_>]) -> Together {
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
        let calls: Vec<&StepCall<'_>> = member.steps.iter().map(|step| &step.call).collect();
        let Err(failed) = transaction.execute_all(&self.store, &calls).await else {
            transaction.keep(&self.store).await?;
            return Ok(Tried::Done);
        };
        let step = member.steps.get(failed.at);
        match (blame(&failed.error), step) {
            (Blame::Nobody, _) => Err(failed.error),
            (Blame::Message, Some(step)) => {
                transaction.undo(&self.store).await?;
                Ok(Tried::Failed { failure: step.failed(&failed.error), max_attempts, took: began.elapsed() })
            }
            (Blame::Unclear, _) | (Blame::Message, None) => {
                transaction.undo(&self.store).await?;
                Ok(Tried::Unclear)
            }
        }
    }

    /// What a transaction's end means for each of its members. When the database is at fault, those that nothing is known
    /// about yet are not tried either.
    pub(super) async fn tell(
        &self,
        settings: &ReceiverSettings,
        members: &[Member<'_>],
        end: Together,
        fates: &mut [Fate],
    ) {
        match end {
            Together::Committed(tried) => {
                for (member, tried) in members.iter().zip(tried) {
                    let fate = self.told(settings, member, tried).await;
                    fates.iter_mut().skip(member.at).take(1).for_each(|place| *place = fate.clone());
                }
            }
            Together::OneFailed | Together::Undone => {}
            Together::Infrastructure { reason, undone } => {
                let lost = Fate::Ended(AttemptEnd::Infrastructure { reason, undone });
                fates.iter_mut().filter(|fate| **fate == Fate::Alone).for_each(|fate| *fate = lost.clone());
            }
        }
    }

    async fn told(&self, settings: &ReceiverSettings, member: &Member<'_>, tried: Tried) -> Fate {
        let span = || attempt_span(settings, member.envelope, 1);
        match tried {
            Tried::Done => {
                let sent = member.steps.iter().filter_map(PlannedStep::sent).collect();
                let span = span_of_success(settings, member.envelope);
                let _entered = span.as_ref().map(tracing::Span::enter);
                self.committed(settings, member.envelope, sent);
                Fate::Ended(AttemptEnd::Done)
            }
            Tried::NotTaken => Fate::Ended(self.read_unclaimed(settings, member.envelope).instrument(span()).await),
            Tried::Failed { failure, max_attempts, took } => {
                self.pace.failed();
                // Nobody ends in the error store for what happened in company.
                if after_failure(failure.kind, 1, max_attempts, settings) == Verdict::GiveUp {
                    return Fate::Alone;
                }
                let failed = Failed { seen: 0, n: 1, max_attempts, took };
                Fate::Ended(self.failed(settings, member.envelope, &failed, failure).instrument(span()).await)
            }
            Tried::Unclear => {
                self.pace.failed();
                Fate::Alone
            }
        }
    }
}

pub(super) fn bound(settings: &ReceiverSettings) -> Duration {
    settings.transaction_timeout.min(SLOW_GROUP)
}

/// Passes GR1, where a test may interrupt.
pub(super) async fn rolled_back(reason: &str, members: usize) -> Option<Together> {
    tracing::debug!(members, reason, "a group was rolled back");
    let injected = reach(Point::GR1).await.err()?;
    Some(Together::Infrastructure { reason: injected.to_string(), undone: true })
}

pub(super) fn infrastructure(error: &StoreError) -> Together {
    if error.is_infrastructure() {
        Together::Infrastructure { reason: error.to_string(), undone: true }
    } else {
        Together::Undone
    }
}
