//! A group's attempt: messages that nobody has tried share a transaction, and answer for themselves (protocol §7).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::ReceiverSettings;
use super::attempt::{Blame, Verdict, after_failure, blame};
use super::process::{AttemptEnd, Failed, Processor, attempt_span, count_processed, span_of_success};
use super::way::Way;
use crate::model::{Envelope, TxId};
use crate::pipeline::{Engine, PlannedStep, StepFailure};
use crate::store::{CommitError, InRows, StepCall, StoreError, Wanted, WorkTransaction};
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

impl Member<'_> {
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted { tx_id: self.envelope.tx_id, sha256: &self.sha256 }
    }

    pub(super) fn calls(&self) -> Vec<&StepCall<'_>> {
        self.steps.iter().map(|step| &step.call).collect()
    }
}

/// How a transaction of several ended.
pub(super) enum Together {
    /// With what became of each member, in their order.
    Committed(Vec<Tried>),
    /// What one of them did has undone all; with savepoints it would be told from the others.
    OneFailed,
    /// Some could not be taken, which has undone all; with savepoints the others can.
    NotAllTaken,
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
            match self.all_or_none(settings, &members).await {
                Together::OneFailed => self.pace.failed(),
                Together::NotAllTaken => {}
                end => {
                    self.tell(settings, &members, end, &mut fates).await;
                    return fates;
                }
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
    async fn all_or_none(&self, settings: &ReceiverSettings, members: &[Member<'_>]) -> Together {
        let calls: Vec<Vec<&StepCall<'_>>> = members.iter().map(Member::calls).collect();
        if let Some(rows) = InRows::of(&calls) {
            match self.store.takes_rows(&rows).await {
                Ok(true) => return self.in_rows(settings, members, &rows).await,
                Ok(false) => {}
                Err(error) => return infrastructure(&error),
            }
        }
        self.together(settings, members).await
    }

    /// In one round trip.
    async fn in_rows(&self, settings: &ReceiverSettings, members: &[Member<'_>], rows: &InRows<'_>) -> Together {
        let began = Instant::now();
        let wanted: Vec<Wanted<'_>> = members.iter().map(Member::wanted).collect();
        match self.store.commit_rows(&settings.destination, &wanted, rows, bound(settings)).await {
            Ok(()) => {
                self.pace.grouped(began.elapsed(), members.len());
                Together::Committed(members.iter().map(|_| Tried::Done).collect())
            }
            Err(error) if error.is_not_all() => {
                rolled_back(&error.to_string(), members.len()).await.unwrap_or(Together::NotAllTaken)
            }
            Err(CommitError::RolledBack(error)) => self.undone(&error, members.len()).await,
            // The next start of each, which locks its row, tells (DQ2).
            Err(CommitError::Unknown(error)) => Together::Infrastructure { reason: error.to_string(), undone: false },
        }
    }

    /// One message's steps after the other's.
    async fn together(&self, settings: &ReceiverSettings, members: &[Member<'_>]) -> Together {
        let began = Instant::now();
        let transaction = match self.store.begin_work().await {
            Ok(transaction) => transaction,
            Err(error) => return infrastructure(&error),
        };
        let wanted: Vec<Wanted<'_>> = members.iter().map(Member::wanted).collect();
        let taken: HashMap<TxId, i32> = match transaction.take_group(&self.store, &settings.destination, &wanted).await
        {
            Ok(taken) => taken.into_iter().collect(),
            Err(error) => return self.undo(transaction, &error, members.len()).await,
        };
        let is_taken = |member: &&Member<'_>| taken.contains_key(&member.envelope.tx_id);
        let calls: Vec<&StepCall<'_>> = members.iter().filter(is_taken).flat_map(Member::calls).collect();
        let run = tokio::time::timeout(bound(settings), transaction.execute_all(&self.store, &calls)).await;
        match run {
            Ok(Ok(())) => {}
            Ok(Err(failed)) => return self.undo(transaction, &failed.error, members.len()).await,
            Err(_elapsed) => {
                self.pace.grouped_in_vain();
                transaction.cancel().await;
                return rolled_back("not finished in time", members.len()).await.unwrap_or(Together::Undone);
            }
        }
        let tried = |member| if is_taken(&member) { Tried::Done } else { Tried::NotTaken };
        let end = self.commit(transaction, members.iter().map(tried).collect()).await;
        if matches!(end, Together::Committed(_)) {
            self.pace.grouped(began.elapsed(), members.len());
        }
        end
    }

    async fn undo(&self, transaction: WorkTransaction, error: &StoreError, members: usize) -> Together {
        transaction.roll_back(&self.store).await;
        self.undone(error, members).await
    }

    async fn undone(&self, error: &StoreError, members: usize) -> Together {
        let end = match blame(error) {
            Blame::Message | Blame::Unclear => Together::OneFailed,
            Blame::Nobody => {
                self.pace.grouped_in_vain();
                Together::Undone
            }
        };
        rolled_back(&error.to_string(), members).await.unwrap_or(end)
    }

    pub(super) async fn commit(&self, transaction: WorkTransaction, tried: Vec<Tried>) -> Together {
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
                count_processed(settings, tried.iter().filter(|tried| matches!(tried, Tried::Done)).count());
                for (member, tried) in members.iter().zip(tried) {
                    let fate = match tried {
                        Tried::Done => self.done(settings, member),
                        Tried::NotTaken => {
                            let span = attempt_span(settings, member.envelope, 1);
                            let read = self.read_unclaimed(settings, member.envelope).instrument(span);
                            Fate::Ended(Box::pin(read).await)
                        }
                        Tried::Failed { failure, max_attempts, took } => {
                            let failed = Failed { way: Way::First, max_attempts, took };
                            Box::pin(self.member_failed(settings, member, &failed, failure)).await
                        }
                        Tried::Unclear => {
                            self.pace.failed();
                            Fate::Alone
                        }
                    };
                    fates.iter_mut().skip(member.at).take(1).for_each(|place| *place = fate.clone());
                }
            }
            Together::OneFailed | Together::NotAllTaken | Together::Undone => {}
            Together::Infrastructure { reason, undone } => {
                let lost = Fate::Ended(AttemptEnd::Infrastructure { reason, undone });
                fates.iter_mut().filter(|fate| **fate == Fate::Alone).for_each(|fate| *fate = lost.clone());
            }
        }
    }

    fn done(&self, settings: &ReceiverSettings, member: &Member<'_>) -> Fate {
        let sent = member.steps.iter().filter_map(PlannedStep::sent).collect();
        let span = span_of_success(settings, member.envelope);
        let _entered = span.as_ref().map(tracing::Span::enter);
        self.committed(member.envelope, sent);
        Fate::Ended(AttemptEnd::Done)
    }

    async fn member_failed(
        &self,
        settings: &ReceiverSettings,
        member: &Member<'_>,
        failed: &Failed,
        failure: StepFailure,
    ) -> Fate {
        self.pace.failed();
        // Nobody ends in the error store for what happened in company.
        if after_failure(failure.kind, failed.way.n(), failed.max_attempts, settings) == Verdict::GiveUp {
            return Fate::Alone;
        }
        let span = attempt_span(settings, member.envelope, 1);
        Fate::Ended(self.failed(settings, member.envelope, failed, failure).instrument(span).await)
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
