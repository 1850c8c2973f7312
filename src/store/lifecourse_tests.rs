use uuid::Uuid;

use super::*;

fn id(n: u128) -> TxId {
    TxId(Uuid::from_u128(n))
}

/// It comes from the one with the number before.
fn leg(n: u128, cause: Cause, mode: Mode, state: JournalState, attempts: i32) -> Leg {
    let parent = (cause != Cause::Accepted).then(|| id(n - 1));
    Leg { tx_id: id(n), cause, parent, mode, state, attempts }
}

fn own(state: JournalState, attempts: i32) -> Leg {
    leg(1, Cause::Accepted, Mode::Own, state, attempts)
}

fn resend(n: u128, state: JournalState) -> Leg {
    leg(n, Cause::Resend, Mode::Direct, state, i32::from(state != JournalState::Ready))
}

fn state(waiting: &[StoreType], legs: &[Leg]) -> MessageState {
    state_of(waiting, false, legs)
}

#[test]
fn a_message_on_its_way_is_accepted_then_processed() {
    assert_eq!(state(&[], &[own(JournalState::Ready, 0)]).as_str(), "accepted");
    assert_eq!(state(&[], &[own(JournalState::Published, 0)]).as_str(), "accepted", "our queues are our own affair");
    assert_eq!(state(&[], &[own(JournalState::Done, 1)]).as_str(), "processed");
    assert_eq!(state(&[], &[]).as_str(), "processed");
}

#[test]
fn a_message_is_enqueued_on_a_queue_of_others_alone() {
    let handed_over = leg(1, Cause::Accepted, Mode::Handover, JournalState::Done, 0);
    assert_eq!(state(&[], &[handed_over]).as_str(), "enqueued");
}

#[test]
fn a_failed_attempt_makes_it_retrying_and_what_waits_for_a_person_is_error() {
    assert_eq!(state(&[], &[own(JournalState::Ready, 2)]), MessageState::Retrying);
    assert_eq!(state(&[], &[own(JournalState::Published, 2)]), MessageState::Retrying);
    assert_eq!(state(&[StoreType::Error], &[own(JournalState::Error, 4)]), MessageState::Error);
    assert_eq!(state(&[StoreType::Hold], &[]).as_str(), "error");
}

#[test]
fn a_successful_resend_speaks_for_the_attempts_before_it() {
    let failed = own(JournalState::Error, 4);
    assert_eq!(state(&[], &[failed, resend(2, JournalState::Ready)]), MessageState::Retrying);
    let twice = [failed, resend(2, JournalState::Error), resend(3, JournalState::Done)];
    assert_eq!(state(&[], &twice), MessageState::Processed);
    // By the clocks that made their ids the second try came before everything.
    let [first, second, third] = [30, 20, 10].map(id);
    let back = [
        Leg { tx_id: first, ..twice[0] },
        Leg { tx_id: second, parent: Some(first), ..twice[1] },
        Leg { tx_id: third, parent: Some(second), ..twice[2] },
    ];
    assert_eq!(state(&[], &back), MessageState::Processed);
    // Neither in the store nor deleted: nothing answers for it.
    assert_eq!(state(&[], &[failed]), MessageState::Error);
    assert_eq!(state(&[], &[failed, resend(2, JournalState::Error)]), MessageState::Error);
}

#[test]
fn a_message_that_a_person_has_deleted_is_deleted_unless_more_of_it_is_on_its_way() {
    let failed = own(JournalState::Error, 4);
    assert_eq!(state_of(&[], true, &[failed]).as_str(), "deleted");
    assert_eq!(state_of(&[], true, &[failed, resend(2, JournalState::Error)]), MessageState::Deleted);
    assert_eq!(state_of(&[], true, &[]), MessageState::Deleted, "the journal has forgotten it");
    let onward = |state| leg(3, Cause::Outgoing, Mode::Handover, state, 0);
    let done = own(JournalState::Done, 1);
    assert_eq!(state_of(&[], true, &[done, onward(JournalState::Error)]), MessageState::Deleted);
    assert_eq!(state_of(&[], true, &[failed, onward(JournalState::Ready)]), MessageState::Accepted);
    assert_eq!(state_of(&[StoreType::Error], true, &[failed, onward(JournalState::Error)]), MessageState::Error);
    let again = [failed, resend(2, JournalState::Done)];
    assert_eq!(state_of(&[], true, &again), MessageState::Processed, "a resend has succeeded");
}

#[test]
fn a_message_that_went_on_to_others_counts_as_processed_once_all_of_it_is_done() {
    let onward = |state| leg(2, Cause::Outgoing, Mode::Handover, state, 0);
    assert_eq!(state(&[], &[own(JournalState::Done, 1), onward(JournalState::Ready)]), MessageState::Accepted);
    assert_eq!(state(&[], &[own(JournalState::Done, 1), onward(JournalState::Done)]), MessageState::Processed);
}

fn attempt(n: i32, outcome: AttemptOutcome) -> Attempt {
    Attempt {
        tx_id: TxId(Uuid::from_u128(1)),
        n,
        adapter: Some("writeDb".into()),
        step: None,
        started_at: Some(Timestamp::UNIX_EPOCH),
        finished_at: None,
        outcome,
        error: None,
        instance: None,
    }
}

fn progress(mode: Mode, state: JournalState, attempts: i32) -> Option<Progress> {
    let tx_id = TxId(Uuid::from_u128(1));
    Some(Progress { tx_id, mode, state, attempts, started_at: None, finished_at: Some(Timestamp::UNIX_EPOCH) })
}

fn outcomes(attempts: &[Attempt]) -> Vec<(i32, AttemptOutcome)> {
    attempts.iter().map(|attempt| (attempt.n, attempt.outcome)).collect()
}

#[test]
fn a_first_attempt_that_succeeded_is_shown_though_it_left_no_row() {
    let shown = true_attempts(progress(Mode::Own, JournalState::Done, 1), vec![], |_| false);
    assert_eq!(outcomes(&shown), [(1, AttemptOutcome::Succeeded)]);
    assert_eq!(shown[0].finished_at, Some(Timestamp::UNIX_EPOCH));
    let others = true_attempts(progress(Mode::Handover, JournalState::Done, 0), vec![], |_| false);
    assert!(others.is_empty(), "a hand-over is no attempt");
}

#[test]
fn the_last_running_row_of_a_done_message_succeeded_and_earlier_ones_crashed() {
    let rows = vec![attempt(1, AttemptOutcome::Running), attempt(2, AttemptOutcome::Running)];
    let shown = true_attempts(progress(Mode::Own, JournalState::Done, 2), rows, |_| false);
    assert_eq!(outcomes(&shown), [(1, AttemptOutcome::Crashed), (2, AttemptOutcome::Succeeded)]);
}

#[test]
fn a_running_row_has_crashed_when_its_instance_is_dead_or_the_message_was_given_up() {
    let open = progress(Mode::Own, JournalState::Published, 1);
    let rows = || vec![attempt(1, AttemptOutcome::Running)];
    assert_eq!(outcomes(&true_attempts(open, rows(), |_| false)), [(1, AttemptOutcome::Running)]);
    assert_eq!(outcomes(&true_attempts(open, rows(), |_| true)), [(1, AttemptOutcome::Crashed)]);
    let given_up = progress(Mode::Own, JournalState::Error, 1);
    assert_eq!(outcomes(&true_attempts(given_up, rows(), |_| false)), [(1, AttemptOutcome::Crashed)]);
}
