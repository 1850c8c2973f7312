//! The crash matrix (protocol §9.3): every point × everything that may go wrong there, on real servers. Afterwards the
//! invariants are judged in SQL. A point that is never met fails it.
//!
//! `POSTHASTE_CASES=md5:exit,rc` runs only cases whose names contain one of these.

#[cfg(test)]
#[path = "crash_matrix/aside.rs"]
mod aside;
#[cfg(test)]
#[path = "crash_matrix/binary.rs"]
mod binary;
#[cfg(test)]
#[path = "crash_matrix/case.rs"]
mod case;
#[cfg(test)]
#[path = "crash_matrix/instance.rs"]
mod instance;
#[cfg(test)]
#[path = "crash_matrix/matrix.rs"]
mod matrix;
#[cfg(test)]
#[path = "crash_matrix/messages.rs"]
mod messages;
#[cfg(test)]
#[path = "crash_matrix/outside.rs"]
mod outside;
#[cfg(test)]
#[path = "crash_matrix/site.rs"]
mod site;
#[cfg(test)]
#[path = "crash_matrix/support.rs"]
#[allow(dead_code, reason = "what tests/it shares is more than what is needed here")]
mod support;
#[cfg(test)]
#[path = "crash_matrix/tasks.rs"]
mod tasks;
#[cfg(test)]
#[path = "crash_matrix/verdict.rs"]
mod verdict;

#[test]
fn whatever_goes_wrong_at_a_point_nothing_is_lost_torn_or_done_twice() {
    matrix::run(matrix::short());
}

#[tokio::test]
async fn a_task_that_panics_is_told_begins_anew_and_nothing_is_lost() {
    tasks::run_all(&site::Ground::prepare().await).await;
}

#[tokio::test]
async fn a_message_whose_task_panics_takes_effect_and_keeps_no_place_among_the_deliveries() {
    tasks::messages_panic(&site::Ground::prepare().await).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_parked_once_though_the_process_dies_before_its_acknowledgement() {
    aside::parked_once(site::Ground::prepare().await).await;
}

#[test]
#[ignore = "a quarter of an hour; make crash-matrix runs it"]
fn the_same_for_hangs_and_cuts_and_while_others_recover() {
    matrix::run(matrix::rest());
}

#[test]
fn the_search_for_crash_points_finds_them_in_a_program_that_has_them() {
    assert_eq!(binary::marks(), ["fault-point-", "POSTHASTE_FAULT"]);
}
