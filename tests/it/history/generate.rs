//! Correct histories: a small model of what an honest system may answer, with all freedom that the contract leaves.

use proptest::prelude::*;

use super::{Answer, FinalState, Operation};

pub fn http(status: u16, outcome: Option<&str>) -> Answer {
    Answer::Http { status, outcome: outcome.map(str::to_owned) }
}

fn negative() -> impl Strategy<Value = Answer> {
    prop_oneof![
        Just(http(400, None)),
        Just(http(413, None)),
        Just(http(503, Some("none"))),
        Just(http(500, Some("none"))),
        Just(Answer::NotSent),
    ]
}

fn unknown() -> impl Strategy<Value = Answer> {
    prop_oneof![Just(http(503, Some("unknown"))), Just(Answer::Timeout), Just(Answer::Reset)]
}

/// One request: when it starts, how long it takes, where within it its turn comes, and what it answers in each case.
#[derive(Debug, Clone)]
struct Request {
    start: u64,
    length: u64,
    turn: u64,
    accepts: bool,
    when_refused: Answer,
    when_accepted: Answer,
    when_repeated: Answer,
}

fn request() -> impl Strategy<Value = Request> {
    let when_refused = prop_oneof![negative(), unknown()];
    let when_accepted = prop_oneof![3 => Just(http(202, None)), 1 => unknown()];
    let when_repeated = prop_oneof![3 => Just(http(304, None)), 1 => unknown(), 1 => negative()];
    (0..1000_u64, 1..100_u64, 0..100_u64, any::<bool>(), when_refused, when_accepted, when_repeated).prop_map(
        |(start, length, turn, accepts, when_refused, when_accepted, when_repeated)| Request {
            start,
            length,
            turn: turn % length,
            accepts,
            when_refused,
            when_accepted,
            when_repeated,
        },
    )
}

/// One id's requests and whether an accepted message succeeds or ends in the error store.
fn life() -> impl Strategy<Value = (Vec<Request>, bool)> {
    (prop::collection::vec(request(), 0..8), any::<bool>())
}

/// A history without any fault, with at least `accepted` accepted ids among others.
pub fn correct_history() -> impl Strategy<Value = (Vec<Operation>, FinalState)> {
    prop::collection::vec(life(), 1..20).prop_map(|lives| {
        let mut log = Vec::new();
        let mut end = FinalState::default();
        for (number, (requests, succeeds)) in lives.into_iter().enumerate() {
            live(&format!("id-{number}"), requests, succeeds, &mut log, &mut end);
        }
        log.sort_by_key(|op| op.start);
        (log, end)
    })
}

fn live(id: &str, mut requests: Vec<Request>, succeeds: bool, log: &mut Vec<Operation>, end: &mut FinalState) {
    requests.sort_by_key(|request| request.start + request.turn);
    let mut accepted = false;
    for (client, request) in requests.into_iter().enumerate() {
        let answer = match (accepted, request.accepts) {
            (true, _) => request.when_repeated,
            (false, true) => request.when_accepted,
            (false, false) => request.when_refused,
        };
        accepted |= request.accepts;
        log.push(Operation {
            client: u32::try_from(client).unwrap(),
            message_id: id.to_owned(),
            body: format!("body of {id}"),
            poison: !succeeds,
            start: request.start,
            end: request.start + request.length,
            answer,
        });
    }
    if !accepted {
        return;
    }
    end.logged.push(id.to_owned());
    if succeeds {
        end.message.push(format!("body of {id}"));
        end.other_message.push(format!("body of {id}"));
    } else {
        end.errors.push(id.to_owned());
    }
}
