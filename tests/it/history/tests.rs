//! The judge judged: no false alarm, and each planted fault found as what it is.

use proptest::prelude::*;

use super::generate::{correct_history, http};
use super::{Answer, FinalState, Kind, Operation, check};

fn post(id: &str, start: u64, end: u64, answer: Answer) -> Operation {
    let poison = id == "failed";
    Operation { client: 1, message_id: id.to_owned(), body: format!("body of {id}"), poison, start, end, answer }
}

fn texts(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| format!("body of {id}")).collect()
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// One message of each fate: done, in the error store, accepted without the client knowing, refused, never sent.
fn clean() -> (Vec<Operation>, FinalState) {
    let log = vec![
        post("done", 10, 20, http(202, None)),
        post("done", 15, 30, http(304, None)),
        post("failed", 10, 20, http(202, None)),
        post("unsure", 10, 20, Answer::Timeout),
        post("unsure", 40, 50, http(304, None)),
        post("refused", 10, 20, http(503, Some("none"))),
        post("refused", 30, 40, http(400, None)),
        post("unsent", 10, 20, Answer::NotSent),
        post("gone", 10, 20, Answer::Reset),
    ];
    let end = FinalState {
        message: texts(&["done", "unsure"]),
        other_message: texts(&["done", "unsure"]),
        logged: ids(&["done", "failed", "unsure"]),
        errors: ids(&["failed"]),
        ..FinalState::default()
    };
    (log, end)
}

/// Plants a fault in the clean history and asserts that exactly `kind` is found, once, with this offender.
#[track_caller]
fn finds(kind: Kind, offender: &str, plant: impl FnOnce(&mut Vec<Operation>, &mut FinalState)) {
    let (mut log, mut end) = clean();
    plant(&mut log, &mut end);
    let found = check(&log, &end);
    let kinds: Vec<Kind> = found.0.keys().copied().collect();
    assert_eq!(kinds, [kind], "{found}");
    assert_eq!(found.0[&kind].iter().map(String::as_str).collect::<Vec<_>>(), [offender]);
}

fn without(rows: &mut Vec<String>, text: &str) {
    rows.retain(|row| row != text);
}

#[test]
fn a_clean_history_passes() {
    let (log, end) = clean();
    let found = check(&log, &end);
    assert!(found.none(), "{found}");
}

#[test]
fn an_accepted_message_without_effect_and_without_error_row_is_lost() {
    finds(Kind::Lost, "done", |_, end| {
        without(&mut end.message, "body of done");
        without(&mut end.other_message, "body of done");
    });
    finds(Kind::Lost, "failed", |_, end| end.errors.clear());
}

#[test]
fn a_logged_message_whose_client_saw_a_time_out_can_be_lost_too() {
    finds(Kind::Lost, "unsure", |_, end| {
        without(&mut end.message, "body of unsure");
        without(&mut end.other_message, "body of unsure");
    });
}

#[test]
fn an_effect_twice_in_a_table_is_a_duplicate() {
    finds(Kind::Duplicated, "done", |_, end| end.message.push("body of done".into()));
    finds(Kind::Duplicated, "unsure", |_, end| end.other_message.push("body of unsure".into()));
    finds(Kind::Duplicated, "done", |_, end| {
        end.message.push("body of done".into());
        end.other_message.push("body of done".into());
    });
}

#[test]
fn an_effect_and_an_error_row_is_a_duplicate() {
    finds(Kind::Duplicated, "done", |_, end| end.errors.push("done".into()));
    finds(Kind::Duplicated, "failed", |_, end| end.errors.push("failed".into()));
}

#[test]
fn an_effect_in_one_table_only_is_torn() {
    finds(Kind::Torn, "done", |_, end| without(&mut end.other_message, "body of done"));
    finds(Kind::Torn, "unsure", |_, end| without(&mut end.message, "body of unsure"));
}

#[test]
fn a_trace_of_an_id_that_nobody_posted_is_a_phantom() {
    finds(Kind::Phantom, "stranger", |_, end| {
        end.message.push("stranger".into());
        end.other_message.push("stranger".into());
    });
    finds(Kind::Phantom, "stranger", |_, end| end.logged.push("stranger".into()));
    finds(Kind::Phantom, "stranger", |_, end| end.open.push("stranger".into()));
}

#[test]
fn an_effect_of_a_message_with_only_negative_answers_is_a_phantom() {
    for id in ["refused", "unsent"] {
        finds(Kind::Phantom, id, |_, end| {
            end.message.push(format!("body of {id}"));
            end.other_message.push(format!("body of {id}"));
            end.logged.push(id.into());
        });
        finds(Kind::Phantom, id, |_, end| end.errors.push(id.into()));
    }
}

#[test]
fn a_duplicate_answer_for_an_id_that_was_never_accepted_is_false() {
    finds(Kind::FalseDuplicate, "gone", |log, _| log.push(post("gone", 60, 70, http(304, None))));
    finds(Kind::FalseDuplicate, "refused", |log, _| log.push(post("refused", 60, 70, http(304, None))));
    finds(Kind::FalseDuplicate, "new", |log, _| log.push(post("new", 60, 70, http(304, None))));
}

#[test]
fn a_duplicate_answer_that_ends_before_the_accepting_request_starts_is_false() {
    finds(Kind::FalseDuplicate, "done", |log, _| log.push(post("done", 1, 9, http(304, None))));
    finds(Kind::FalseDuplicate, "unsure", |log, _| log.push(post("unsure", 1, 9, http(304, None))));
}

#[test]
fn an_earlier_request_of_unknown_fate_does_not_excuse_a_duplicate_answer_before_the_202() {
    finds(Kind::FalseDuplicate, "done", |log, _| {
        log.push(post("done", 1, 3, Answer::Reset));
        log.push(post("done", 5, 9, http(304, None)));
    });
}

#[test]
fn two_202_for_one_id_are_found() {
    finds(Kind::TwiceAccepted, "done", |log, _| log.push(post("done", 60, 70, http(202, None))));
    finds(Kind::TwiceAccepted, "failed", |_, end| end.logged.push("failed".into()));
}

#[test]
fn a_good_message_in_the_error_store_is_found() {
    for id in ["done", "unsure"] {
        finds(Kind::Blamed, id, |_, end| {
            without(&mut end.message, &format!("body of {id}"));
            without(&mut end.other_message, &format!("body of {id}"));
            end.errors.push(id.into());
        });
    }
}

#[test]
fn an_effect_that_is_not_in_the_message_log_is_found() {
    finds(Kind::Unlogged, "done", |_, end| without(&mut end.logged, "done"));
    finds(Kind::Unlogged, "failed", |_, end| without(&mut end.logged, "failed"));
}

#[test]
fn a_parked_message_of_a_client_is_found() {
    finds(Kind::Parked, "done", |_, end| end.parked.push("done".into()));
    finds(Kind::Parked, "failed", |_, end| {
        end.errors.clear();
        end.parked.push("failed".into());
    });
}

#[test]
fn open_rows_and_a_queue_that_is_not_empty_are_stuck() {
    finds(Kind::Stuck, "failed", |_, end| {
        end.errors.clear();
        end.open.push("failed".into());
    });
    finds(Kind::Stuck, "3 in the queue", |_, end| end.queue_depth = 3);
}

#[test]
fn a_prepared_transaction_that_stays_is_orphaned() {
    finds(Kind::OrphanedPrepared, "posthaste:1:2:3:4", |_, end| end.prepared.push("posthaste:1:2:3:4".into()));
}

#[test]
fn an_answer_outside_the_contract_is_found() {
    for answer in [http(200, None), http(302, None), http(500, None), http(503, Some("maybe"))] {
        finds(Kind::OutsideContract, "gone", |log, _| log.push(post("gone", 60, 70, answer)));
    }
}

#[test]
fn the_report_names_each_kind_with_its_count_and_ids() {
    let (log, mut end) = clean();
    end.message.push("body of done".into());
    let report = check(&log, &end).to_string();
    assert!(report.contains("Duplicated: 1 (done)"), "{report}");
    assert!(report.contains("Lost: 0\n"), "{report}");
    assert_eq!(report.lines().count(), Kind::ALL.len());
}

proptest! {
    #[test]
    fn no_correct_history_raises_an_alarm((log, end) in correct_history()) {
        let found = check(&log, &end);
        prop_assert!(found.none(), "{}", found);
    }

    #[test]
    fn a_row_taken_from_any_correct_history_is_missed((log, end) in correct_history(), which in any::<prop::sample::Index>()) {
        prop_assume!(!end.message.is_empty());
        let row = which.index(end.message.len());

        let mut torn = end;
        torn.message.remove(row);
        let found = check(&log, &torn);
        prop_assert_eq!((found.of(Kind::Torn), found.0.len()), (1, 1), "{}", found);

        let mut lost = torn;
        lost.other_message.remove(row);
        let found = check(&log, &lost);
        prop_assert_eq!((found.of(Kind::Lost), found.0.len()), (1, 1), "{}", found);
    }

    #[test]
    fn a_row_put_twice_into_any_correct_history_is_seen((log, end) in correct_history(), which in any::<prop::sample::Index>()) {
        prop_assume!(!end.message.is_empty());
        let mut doubled = end.clone();
        doubled.message.push(which.get(&end.message).clone());
        let found = check(&log, &doubled);
        prop_assert_eq!((found.of(Kind::Duplicated), found.0.len()), (1, 1), "{}", found);
    }
}
