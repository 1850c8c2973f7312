//! Faults that the rules must catch: each takes one safeguard of the protocol away.

use super::harness::mutants;
use super::rules::Rule;

mutants! {
    /// A foreign message is adopted whatever the inbox says.
    NoInbox caught_by I1 in "adopt",
    /// What the broker has confirmed is never published again.
    RedoOnlyUntilConfirm caught_by I1 in "consume",
    /// A resent message keeps its tx_id.
    ResendReusesTxId caught_by I1 in "resend",
    /// The claim of a resend reads the row and deletes it later.
    ResendReadsFirst caught_by I1 in "resend",
    /// A resend that fails again gets a new messagekey.
    ResendLosesItsKey caught_by I1 in "resend",
    /// No unique index on (slotid, dedup_key).
    NoUniqueKey caught_by I4 in "accept",
    /// A conflict with a transaction that is still open is answered as a duplicate.
    DuplicateOfTheUndecided caught_by I4 in "accept",
    /// A refusal before the statement does not look the id up.
    RefusalWithoutLook caught_by I3 in "accept",
    /// `none` for SQLSTATE 55P03.
    NoneWhileWaiting caught_by I2 in "accept",
    /// `none` although an earlier try of the request is undecided.
    NoneAfterUnknown caught_by I2 in "accept",
    /// A row that was read is a duplicate's answer, wherever else it stands.
    DuplicateFromARead caught_by I4 in "standby",
    /// PostgreSQL's warning that a commit did not wait for its standby is overheard.
    WarningIsSuccess caught_by I1 in "standby",
    /// A group whose connection was lost is tried alone as if for the first time.
    LostGroupIsUndone caught_by I2 in "accept",
    /// A delivery is acknowledged before COMMIT.
    AckBeforeCommit caught_by Carried in "consume",
    /// No probe before COMMIT: a broken transaction looks committed.
    CommitTagIgnored caught_by Carried in "commit",
    /// A delivery whose row is locked is acknowledged.
    AckWhenLocked caught_by Carried in "zombie",
    /// A mark that does not compare `attempts`.
    MarkWithoutAttempts caught_by Carried in "retry",
    /// A retry that does not compare state and `attempts`.
    RetryWithoutFence caught_by I1 in "zombie",
    /// Giving up without comparing state and `attempts`.
    GiveUpWithoutFence caught_by I1 in "zombie",
    /// The compare-and-set does not name the state.
    TakeWithoutState caught_by I1 in "zombie",
    /// The compare-and-set does not name the destination.
    TakeWithoutDestination caught_by I5 in "astray",
    /// An own message without a row is processed.
    ProcessedWithoutRow caught_by I5 in "astray",
    /// Whoever finds a row whose attempts a crash has used up leaves it to others.
    NobodyGivesUp caught_by Settles in "redone",
    /// A start that does not compare anything.
    StartWithoutFence caught_by I7 in "retry",
    /// A redelivered message enters without a start.
    RedeliveredUncounted caught_by I7 in "consume",
    /// A copy that was published again is not told from a first one.
    RedoneUncounted caught_by I7 in "redone",
    /// A start forgets that its message was noted by a process that died.
    NotedUncounted caught_by I7 in "adopt",
    /// A stop is taken for a crash.
    StopCounts caught_by Stops in "deployed",
    /// A message that is dispatched in process enters without a start.
    DirectUncounted caught_by I7 in "adopt",
    /// The sweeper publishes what is not due.
    DelayIgnored caught_by Delay in "retry",
    /// A publish that the queue or the connection kept back counts as one that the broker does not take.
    BackPressureCounts caught_by Blamed in "refused",
    /// Messages for queues of others carry our home id.
    HandoverWithOwnHeader caught_by I1 in "handover",
    /// Clean-up removes E rows.
    CleanUpOfErrors caught_by I8 in "retention",
    /// Clean-up removes log rows whose message is still on its way.
    CleanUpOfOpen caught_by I8 in "retention",
    /// Clean-up removes log rows before they expire.
    CleanUpOfUnexpired caught_by I8 in "retention",
    /// A message of others is adopted, and its row is not named.
    AdoptNamesNothing caught_by I9 in "adopt",
    /// A confirmed publish takes its row out of `due`, though it is open.
    MarkForgetsDue caught_by I9 in "consume",
}
