//! What happens to a row of the journal: claims, starts, retries, the error store, marks.

use std::time::Duration;

use posthaste::model::{JournalState, Mode, SlotId};
use posthaste::store::{Claim as RealClaim, FailedAttempt, GivenUpBy, Mark, OpenRow, StoreError, Unpublished};

use super::bench::{Bench, GONE, ME, OTHER, Placed, WATCH, destination, every_row, incarnation};
use super::postgres::{Age, Row, fresh};
use super::starts::start;
use super::statements::{self, Claim, Failed, GaveUp, Seen, Waits};
use crate::support::run;

const HOUR: Duration = Duration::from_secs(3600);

/// What a writer saw of a row: rightly, or with one thing different.
fn claims(row: &Row) -> Vec<Claim> {
    let right = Claim { tx: 0, queue: row.queue, attempts: row.attempts, body: row.body };
    vec![
        right,
        Claim { attempts: right.attempts + 1, ..right },
        Claim { queue: 1 - right.queue, ..right },
        Claim { body: right.body + 1, ..right },
    ]
}

/// Every row with every claim on it.
pub async fn cases(bench: &Bench) -> Vec<(Placed, Claim)> {
    let (mut rows, mut wanted) = (Vec::new(), Vec::new());
    for row in every_row() {
        for claim in claims(&row) {
            rows.push(row.clone());
            wanted.push(claim);
        }
    }
    assert!(rows.len() > 400, "{}", rows.len());
    bench.place(rows).await.into_iter().zip(wanted).collect()
}

pub async fn compare(bench: &Bench, statement: &str, cases: Vec<(Placed, Claim)>) {
    let placed: Vec<Placed> = cases.into_iter().map(|(placed, _)| placed).collect();
    bench.compare(statement, &placed).await;
}

async fn take_is_the_model_s(started: bool) {
    let bench = Bench::new().await;
    let mut cases = cases(&bench).await;
    let mut taken = 0;
    for (placed, claim) in &mut cases {
        let before = placed.model.journal[0].clone();
        let transaction = bench.store.begin_work().await.unwrap();
        let (attempts, sha256) = (i32::from(claim.attempts), [claim.body]);
        let real =
            RealClaim { tx_id: placed.tx, destination: &destination(claim.queue), attempts, started, sha256: &sha256 };
        let real = transaction.take(&bench.store, real).await.unwrap();
        transaction.commit(&bench.store).await.unwrap();
        let take = if started { statements::take_started } else { statements::take_first };
        let model = take(&mut placed.model, ME, *claim).unwrap();
        assert_eq!(real, model.map(i32::from), "{before:?} {claim:?}");
        if model.is_some() {
            statements::commit_attempt(&mut placed.model, 0, started);
            taken += 1;
        }
    }
    assert!(taken > 5, "{taken}");
    compare(&bench, "take", cases).await;
}

#[test]
fn take_first_is_the_model_s() {
    run(take_is_the_model_s(false));
}

#[test]
fn take_started_is_the_model_s() {
    run(take_is_the_model_s(true));
}

/// The record of a failed attempt, as the product and as the model writes it.
fn failed<'a>(placed: &Placed, claim: Claim, queue: &'a posthaste::model::Destination) -> (FailedAttempt<'a>, Failed) {
    let n = claim.attempts + 1;
    let real = FailedAttempt {
        tx_id: placed.tx,
        destination: queue,
        seen: i32::from(claim.attempts),
        n: i32::from(n),
        adapter: "a",
        step: Some("s"),
        error: "no",
        took: Duration::ZERO,
    };
    (real, Failed { tx: 0, queue: claim.queue, seen: claim.attempts, n })
}

#[test]
fn retry_is_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let mut cases = cases(&bench).await;
        for (placed, claim) in &mut cases {
            let (before, queue) = (placed.model.journal[0].clone(), destination(claim.queue));
            let (real, model) = failed(placed, *claim, &queue);
            let real = bench.store.retry(&real, HOUR).await.unwrap();
            assert_eq!(Ok(real), statements::retry(&mut placed.model, model), "{before:?} {claim:?}");
        }
        compare(&bench, "retry", cases).await;
    });
}

#[test]
fn give_up_is_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let mut cases = cases(&bench).await;
        let gone = Row { log_key: Some(2), ..fresh(0, 5, Mode::Own, 0, 2) };
        let claim = claims(&gone)[0];
        cases.extend(bench.place(vec![gone]).await.into_iter().map(|placed| (placed, claim)));
        let slot = SlotId::new("errors");
        for (index, (placed, claim)) in cases.iter_mut().enumerate() {
            let (before, queue) = (placed.model.journal[0].clone(), destination(claim.queue));
            let (real, model) = failed(placed, *claim, &queue);
            let by = if index % 2 == 0 { GivenUpBy::Attempt } else { GivenUpBy::Observer };
            let real = bench.store.give_up(&real, &slot, "here", by).await;
            let model = statements::give_up(&mut placed.model, model).unwrap();
            let alike = match (&real, model) {
                (Ok(None), GaveUp::Overtaken) | (Err(StoreError::Unexpected(_)), GaveUp::BodyGone) => true,
                (Ok(Some(_)), GaveUp::Kept(key)) => {
                    bench.error_row(placed).await == Some(before.return_to == Some(key))
                }
                (Ok(_) | Err(_), _) => false,
            };
            assert!(alike, "{before:?} {claim:?}: {real:?}, not {model:?}");
        }
        compare(&bench, "give_up", cases).await;
    });
}

#[test]
fn reopen_is_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let mut cases = cases(&bench).await;
        for (placed, claim) in &mut cases {
            bench.store.reopen(placed.tx, &destination(claim.queue), i32::from(claim.attempts)).await.unwrap();
            statements::reopen(&mut placed.model, 0, claim.queue, claim.attempts).unwrap();
        }
        compare(&bench, "reopen", cases).await;
    });
}

#[test]
fn mark_and_publish_failed_are_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        for mode in [Mode::Own, Mode::Handover] {
            let rows = || every_row().into_iter().map(move |row| Row { mode, ..row });
            for wrong in [0, 1] {
                let mut placed = bench.place(rows().collect()).await;
                for one in &mut placed {
                    let attempts = one.model.journal[0].attempts + wrong;
                    let published_at = jiff::Timestamp::now().as_microsecond();
                    let mark = Mark { tx_id: one.tx, attempts: i32::from(attempts), mode, published_at };
                    let real = bench.store.mark(&[mark], HOUR).await.unwrap();
                    assert_eq!(real == 1, statements::mark(&mut one.model, 0, attempts), "{:?}", one.model.journal);
                }
                bench.compare("mark", &placed).await;

                let mut placed = bench.place(rows().collect()).await;
                for one in &mut placed {
                    let attempts = one.model.journal[0].attempts + wrong;
                    let counts = attempts != 1;
                    let failed = Unpublished { tx_id: one.tx, attempts: i32::from(attempts), counts };
                    bench.store.publish_failed(&[failed], HOUR).await.unwrap();
                    statements::publish_failed(&mut one.model, 0, attempts, counts);
                }
                bench.compare("publish_failed", &placed).await;
            }
        }
    });
}

fn seen_by_sweeper(placed: &Placed, seen: Seen) -> OpenRow {
    let row = &placed.model.journal[0];
    OpenRow {
        tx_id: placed.tx,
        destination: destination(row.queue),
        mode: row.mode,
        state: if seen.published { JournalState::Published } else { JournalState::Ready },
        attempts: i32::from(seen.attempts),
        max_attempts: 2,
        publishes: 0,
        owner: seen.owner.map(incarnation),
        running_by: None,
        started: None,
        published_at: None,
        published: None,
        due: true,
        publish_due: true,
        has_due_row: false,
    }
}

#[test]
fn claim_is_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let owners = [None, Some(ME), Some(OTHER), Some(GONE)];
        let mut rows: Vec<Row> = every_row();
        rows.extend(every_row().into_iter().map(|row| Row { log_key: Some(2), return_to: None, ..row }));
        for (wrong_attempts, wrong_state, owner) in
            [(0, false, None), (1, false, None), (0, true, None), (0, false, Some(0)), (0, false, Some(1))]
        {
            let mut placed = bench.place(rows.clone()).await;
            for one in &mut placed {
                let row = one.model.journal[0].clone();
                let seen = Seen {
                    tx: 0,
                    attempts: row.attempts + wrong_attempts,
                    published: (row.state == JournalState::Published) != wrong_state,
                    owner: owner.map_or(row.owner, |index: usize| owners[index]),
                };
                let real = bench.store.claim(&[seen_by_sweeper(one, seen)], HOUR).await.unwrap();
                let model = statements::claim(&mut one.model, ME, seen);
                assert_eq!(real.first().map(|claimed| claimed.suspect), model, "{row:?} {seen:?}");
            }
            bench.compare("claim", &placed).await;
        }
    });
}

#[test]
fn whoever_reads_a_row_reads_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let placed = bench.place(every_row()).await;
        for one in &placed {
            let (row, db) = (&one.model.journal[0], &one.model);
            let real = bench.store.journal_row(one.tx, WATCH).await.unwrap().unwrap();
            let seen = (real.state, real.attempts, real.due, real.runner_lives, real.running_by);
            let lives = db.is_live(row.running_by) && !row.overdue;
            let known = (row.state, i32::from(row.attempts), row.due, lives, row.running_by.map(incarnation));
            assert_eq!(seen, known, "{row:?}");
        }
        let mut open = bench.store.look_through(uuid::Uuid::nil(), 10_000).await.unwrap().rows;
        // What stands in `due` is read there when its time has come.
        bench.client.execute("UPDATE posthaste.due SET at = clock_timestamp()", &[]).await.unwrap();
        open.extend(bench.store.due_rows(10_000).await.unwrap());
        for one in &placed {
            let row = &one.model.journal[0];
            let real = open.iter().find(|real| real.tx_id == one.tx);
            let seen = real.map(|real| (real.state, real.due, real.publish_due, real.published_at.is_some()));
            let known = (row.state, row.due, row.publish_due, row.published != Age::Never);
            assert_eq!(seen, row.open().then_some(known), "{row:?}");
            let overdue = real.and_then(|real| real.started).map(|since| since > WATCH);
            let runs = row.open() && row.running_by.is_some();
            assert_eq!(overdue, runs.then_some(row.overdue), "{row:?}");
        }
    });
}

#[test]
fn who_waits_for_a_row_that_is_held_and_who_does_not_is_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let mut placed = bench.place(vec![fresh(0, 5, Mode::Own, 0, 2)]).await.remove(0);
        let (tx, queue) = (placed.tx, destination(0));
        let claim = Claim { tx: 0, queue: 0, attempts: 0, body: 5 };
        let real_claim = RealClaim { tx_id: tx, destination: &queue, attempts: 0, started: false, sha256: &[5] };
        let holder = bench.store.begin_work().await.unwrap();
        assert_eq!(holder.take(&bench.store, real_claim).await.unwrap(), Some(2));
        assert_eq!(statements::take_first(&mut placed.model, OTHER, claim), Ok(Some(2)));

        let (store, model) = (&bench.store, &mut placed.model);
        assert_eq!(start(&bench, tx, &queue, 5).await, None);
        assert_eq!(statements::start(model, ME, 0, 0, 5), None);
        assert!(store.note_in_hand(&[tx], &queue).await.unwrap().is_empty());
        assert!(!statements::note(model, ME, 0, 0));
        let mark = Mark { tx_id: tx, attempts: 0, mode: Mode::Own, published_at: 1 };
        assert_eq!(store.mark(&[mark], HOUR).await.unwrap(), 0);
        assert!(!statements::mark(model, 0, 0));
        let unpublished = Unpublished { tx_id: tx, attempts: 0, counts: true };
        store.publish_failed(&[unpublished], HOUR).await.unwrap();
        statements::publish_failed(model, 0, 0, true);
        let seen = Seen { tx: 0, attempts: 0, published: false, owner: None };
        assert!(
            store
                .claim(&[seen_by_sweeper(&Placed { tx, index: 0, model: model.clone() }, seen)], HOUR)
                .await
                .unwrap()
                .is_empty()
        );
        assert_eq!(statements::claim(model, ME, seen), None);

        let taking = async {
            let second = store.begin_work().await.unwrap();
            let taken = second.take(store, real_claim).await;
            second.roll_back(store).await;
            taken.map(|_| ())
        };
        let (record, fails) = failed(&Placed { tx, index: 0, model: model.clone() }, claim, &queue);
        let slot = SlotId::new("errors");
        let giving_up = async { store.give_up(&record, &slot, "here", GivenUpBy::Attempt).await.map(|_| ()) };
        let retrying = async { store.retry(&record, HOUR).await.map(|_| ()) };
        let (taken, given_up, retried, reopened) =
            tokio::join!(taking, giving_up, retrying, store.reopen(tx, &queue, 0));
        for (name, answer) in [("take", taken), ("give_up", given_up), ("retry", retried), ("reopen", reopened)] {
            assert_eq!(answer.unwrap_err().sqlstate(), Some("55P03"), "{name}");
        }
        assert_eq!(statements::take_first(model, ME, claim), Err(Waits));
        assert_eq!(statements::give_up(model, fails), Err(Waits));
        assert_eq!(statements::retry(model, fails), Err(Waits));
        assert_eq!(statements::reopen(model, 0, 0, 0), Err(Waits));

        holder.roll_back(store).await;
        statements::roll_back(model, 0);
        bench.compare("what waits and what does not", &[placed]).await;
    });
}
