use std::collections::BTreeSet;

use super::*;

const TWO: u8 = 2;

fn events() -> Vec<Event> {
    let mut events =
        vec![Event::WorkFailed, Event::Decided, Event::DecisionRefused, Event::DecisionUnknown, Event::GaveUp];
    events.extend([Outcome::Commit, Outcome::Abort].map(Event::Read));
    events.extend((0..=TWO).map(|count| Event::Worked { wrote: Branches::first(count) }));
    for branch in 0..=TWO {
        events.extend([Event::Prepared(branch), Event::PrepareRefused(branch), Event::PrepareUnknown(branch)]);
        events.extend([Event::Finished(branch), Event::Missing(branch)]);
    }
    events
}

/// Every state that two branches can reach, with the way each step was taken.
fn walk() -> Vec<(State, Event, State, Actions)> {
    let (mut seen, mut waiting, mut steps) = (BTreeSet::new(), vec![State::Working], Vec::new());
    while let Some(state) = waiting.pop() {
        if !seen.insert(state) {
            continue;
        }
        for event in events() {
            if let Ok((after, actions)) = state.step(event) {
                waiting.push(after);
                steps.push((state, event, after, actions));
            }
        }
    }
    steps
}

fn run(events: &[Event]) -> (State, Vec<Action>) {
    events.iter().fold((State::Working, Vec::new()), |(state, mut all), event| {
        let (after, actions) = state.step(*event).unwrap();
        all.extend(actions);
        (after, all)
    })
}

#[test]
fn everything_ends_or_has_something_to_do_or_to_wait_for() {
    let steps = walk();
    assert!(steps.len() > 60, "{}", steps.len());
    for (state, event, after, actions) in steps {
        let waits = match after {
            State::Preparing { waiting, .. } => !waiting.is_empty(),
            State::Finishing { left, .. } => !left.is_empty(),
            State::Deciding { .. } | State::Unsure { .. } | State::Ended { .. } => true,
            State::Working => false,
        };
        assert!(waits, "{state:?} {event:?} {after:?}");
        assert!(actions.len() <= 4 && actions.iter().all(not_empty), "{actions:?}");
    }
}

fn not_empty(action: &Action) -> bool {
    match action {
        Action::Prepare(set) | Action::Commit(set) | Action::RollBack(set) => !set.is_empty(),
        _ => true,
    }
}

#[test]
fn nothing_is_decided_before_every_branch_is_prepared_and_no_branch_commits_before_the_decision() {
    for (state, event, _, actions) in walk() {
        for action in actions {
            match action {
                Action::Decide(set) if !set.is_empty() => {
                    let State::Preparing { waiting, prepared, failed, .. } = state else { panic!("{state:?}") };
                    let Event::Prepared(last) = event else { panic!("{event:?}") };
                    assert!(!failed && waiting.without(last).is_empty() && prepared.with(last) == set);
                }
                Action::Commit(_) => {
                    assert!(matches!(event, Event::Decided | Event::Read(Outcome::Commit)), "{state:?} {event:?}");
                }
                Action::RollBack(_) => assert!(!matches!(event, Event::Decided | Event::Read(Outcome::Commit))),
                _ => {}
            }
        }
    }
}

#[test]
fn an_event_that_cannot_happen_is_an_error_and_changes_nothing() {
    for (state, event) in [
        (State::Working, Event::Decided),
        (State::Deciding { branches: Branches::first(1) }, Event::Prepared(0)),
        (State::Ended { outcome: Some(Outcome::Commit), left: Branches::NONE }, Event::WorkFailed),
        (run(&[Event::Worked { wrote: Branches::first(1) }]).0, Event::Prepared(1)),
    ] {
        assert_eq!(state.step(event), Err(Illegal { state, event }));
    }
}

#[test]
fn work_in_the_home_alone_is_committed_in_one_phase() {
    let (state, actions) = run(&[Event::Worked { wrote: Branches::NONE }, Event::Decided]);
    assert_eq!(state, State::Ended { outcome: Some(Outcome::Commit), left: Branches::NONE });
    assert_eq!(actions, [Action::Decide(Branches::NONE)]);
}

#[test]
fn an_unanswered_prepare_aborts_and_is_rolled_back_like_a_prepared_one() {
    let both = Branches::first(2);
    let (state, actions) = run(&[Event::Worked { wrote: both }, Event::Prepared(0), Event::PrepareUnknown(1)]);
    assert_eq!(state, State::Finishing { outcome: Outcome::Abort, left: both, hazard: false });
    assert_eq!(actions, [Action::Prepare(both), Action::RollBack(both), Action::RollBackHome]);
}

#[test]
fn an_unanswered_commit_asks_the_log_and_does_what_it_says() {
    let one = Branches::first(1);
    let unsure = [Event::Worked { wrote: one }, Event::Prepared(0), Event::DecisionUnknown];
    assert_eq!(run(&unsure).1.last(), Some(&Action::AskTheLog));
    for (outcome, action) in [(Outcome::Commit, Action::Commit(one)), (Outcome::Abort, Action::RollBack(one))] {
        let (_, actions) = run(&[unsure.as_slice(), &[Event::Read(outcome)]].concat());
        assert_eq!(actions.last(), Some(&action));
    }
    let (given_up, _) = run(&[unsure.as_slice(), &[Event::GaveUp]].concat());
    assert_eq!(given_up, State::Ended { outcome: None, left: one });
}

#[test]
fn a_branch_that_somebody_else_has_finished_raises_an_alarm_and_keeps_the_decision() {
    let decided = [Event::Worked { wrote: Branches::first(1) }, Event::Prepared(0), Event::Decided];
    let (_, alarmed) = run(&[decided.as_slice(), &[Event::Missing(0)]].concat());
    assert_eq!(alarmed.last(), Some(&Action::Alert(0)));
    let (_, well) = run(&[decided.as_slice(), &[Event::Finished(0)]].concat());
    assert_eq!(well.last(), Some(&Action::Forget));
}
