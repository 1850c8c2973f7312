//! Faults that the rules must catch: each takes one safeguard of the protocol away.

use super::super::harness::mutants;
use super::rules::Rule;

mutants! {
    /// What another LIVE incarnation has prepared is recovered without fencing it.
    NoFence caught_by Lost in "zombie",
    /// The fence does not wait for a decision on its way.
    FenceDoesNotWait caught_by Lost in "zombie",
    /// A decision is written whatever its incarnation's row says.
    DecidesFenced caught_by Lost in "zombie",
    /// The fence is taken and read in one statement.
    FenceInOneStatement caught_by Lost in "zombie",
    /// The home's transaction runs under REPEATABLE READ.
    FenceUnderRepeatableRead caught_by Lost in "zombie",
    /// All attempts at a row have the same gtrid.
    GtridPerRow caught_by Lost in "losses",
    /// The decision is written once the home's COMMIT is answered.
    DecisionAfterCommit caught_by Lost in "crash",
    /// What this LIVE incarnation has prepared is rolled back, its coordinator at work or not.
    PresumesAbortOfItsOwn caught_by Lost in "unsure",
    /// What a coordinator of this incarnation has left is rolled back without a row in the log.
    NoTombstone caught_by Lost in "losses",
    /// What a coordinator of this incarnation has left stays.
    OrphansAreLeft caught_by Settles in "losses",
    /// An unsure coordinator takes an empty log for an abort.
    UnsurePresumesAbort caught_by Lost in "unsure",
    /// A fenced coordinator may still write ABORT.
    FencedAsksTheLog caught_by Misrecorded in "unsure",
    /// ABORT is written without the shared fence.
    AsksWithoutSharedFence caught_by Misrecorded in "unsure",
    /// ABORT is written beside a COMMIT on its way.
    KeyIsNotUnique caught_by Lost in "unsure",
    /// A decision is removed although its branches are still there.
    ForgetsBeforeAllAreGone caught_by Torn in "decided",
    /// A decision is removed although a database could not be asked.
    ForgetsUnasked caught_by Torn in "decided",
    /// A coordinator that gives up has its decision removed.
    ForgetsWhatIsLeft caught_by Lost in "decided",
    /// Owners are read after decisions.
    OutcomesBeforeOwners caught_by Lost in "zombie",
    /// The decisions to be removed are read after the databases.
    CommittedAfterDatabases caught_by Torn in "zombie",
    /// Recovery always rolls back.
    RecoveryIgnoresTheLog caught_by Lost in "crash",
    /// An incarnation without a row is taken for a fenced one, and not entered as such.
    UnknownIsFenced caught_by Lost in "absent",
    /// The decision is made once the first branch is prepared.
    CommitsBeforeAllPrepared caught_by Lost in "refusals",
    /// A branch that did not answer PREPARE is taken as not prepared.
    UnsureIsUnprepared caught_by Left in "losses",
    /// A branch is finished while its old session may still prepare it.
    OldSessionIsLeft caught_by Left in "losses",
    /// A graceful stop does not wait for a decision on its way.
    SignsOffWithoutLock caught_by Lost in "sign-off",
    /// An attempt does not lock the row.
    NoRowLock caught_by Once in "alone",
    /// Of rows that share an attempt only the first becomes DONE.
    FirstAloneIsDone caught_by Once in "group and loss",
    /// An attempt does the work of a row that the compare-and-set has left out.
    WorksForWhatIsDone caught_by Once in "group and refusal",
    /// A branch that is gone alerts, whoever may have finished it.
    AlertsThoughFenced caught_by Alert in "zombie",
}
