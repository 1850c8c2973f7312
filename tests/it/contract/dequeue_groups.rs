//! The compare-and-set of a group: for each of its rows what `take_first` is for one.

use std::time::Duration;

use bytes::Bytes;
use posthaste::model::Mode;
use posthaste::store::{CommitError, InRows, InsertRows, StepCall, Wanted};

use super::bench::{Bench, ME, OTHER, destination};
use super::journal::{cases, compare};
use super::postgres::fresh;
use super::statements::{self, Claim, Waits};
use crate::support::run;

#[test]
fn take_group_takes_exactly_what_take_first_takes_one_by_one() {
    run(async {
        let bench = Bench::new().await;
        let (mut cases, mut taken) = (cases(&bench).await, 0);
        // Nobody has tried what is grouped.
        cases.retain(|(_, claim)| claim.attempts == 0);
        for queue in [0, 1] {
            let bodies: Vec<[u8; 1]> = cases.iter().map(|(_, claim)| [claim.body]).collect();
            let here = cases.iter().zip(&bodies).filter(|((_, claim), _)| claim.queue == queue);
            let wanted: Vec<Wanted<'_>> =
                here.map(|((placed, _), body)| Wanted { tx_id: placed.tx, sha256: body }).collect();
            assert!(wanted.len() > 30, "{}", wanted.len());
            let transaction = bench.store.begin_work().await.unwrap();
            let real = transaction.take_group(&bench.store, &destination(queue), &wanted).await.unwrap();
            transaction.commit(&bench.store).await.unwrap();
            for (placed, claim) in cases.iter_mut().filter(|(_, claim)| claim.queue == queue) {
                let before = placed.model.journal[0].clone();
                let real = real.iter().find(|(tx_id, _)| *tx_id == placed.tx).map(|(_, max_attempts)| *max_attempts);
                let model = statements::take_first(&mut placed.model, ME, *claim).unwrap();
                assert_eq!(real, model.map(i32::from), "{before:?} {claim:?}");
                if model.is_some() {
                    statements::commit_attempt(&mut placed.model, 0, false);
                    taken += 1;
                }
            }
        }
        assert!(taken > 5, "{taken}");
        compare(&bench, "take_group", cases).await;
    });
}

#[test]
fn take_group_waits_for_a_row_that_is_held_as_take_first_does() {
    run(async {
        let bench = Bench::new().await;
        let mut placed = bench.place(vec![fresh(0, 5, Mode::Own, 0, 2)]).await.remove(0);
        let (store, queue) = (&bench.store, destination(0));
        let wanted = [Wanted { tx_id: placed.tx, sha256: &[5] }];
        let claim = Claim { tx: 0, queue: 0, attempts: 0, body: 5 };
        let holder = store.begin_work().await.unwrap();
        assert_eq!(holder.take_group(store, &queue, &wanted).await.unwrap(), [(placed.tx, 2)]);
        assert_eq!(statements::take_first(&mut placed.model, OTHER, claim), Ok(Some(2)));
        let second = store.begin_work().await.unwrap();
        let refused = second.take_group(store, &queue, &wanted).await.unwrap_err();
        assert_eq!(refused.sqlstate(), Some("55P03"), "{refused}");
        assert_eq!(statements::take_first(&mut placed.model, ME, claim), Err(Waits));
        second.roll_back(store).await;
        holder.roll_back(store).await;
    });
}

const BOUND: Duration = Duration::from_secs(3);
const INSERT: &str = "INSERT INTO done (message) VALUES ($1)";

/// For each message a row with this text.
fn calls<'a>(rows: &'a InsertRows, texts: &[&'static [u8]]) -> Vec<StepCall<'a>> {
    let call = |text: &&'static [u8]| StepCall::Query {
        sql: INSERT,
        params: vec![Some(Bytes::from_static(text))],
        rows: Some(rows),
    };
    texts.iter().map(call).collect()
}

#[test]
fn what_goes_in_one_round_trip_takes_all_rows_or_leaves_no_trace() {
    run(async {
        let bench = Bench::new().await;
        bench.db.batch("CREATE TABLE public.done (message varchar(5) NOT NULL)").await;
        let (store, queue, rows) = (&bench.store, destination(0), InsertRows::of(INSERT).unwrap());
        let claim = Claim { tx: 0, queue: 0, attempts: 0, body: 5 };
        let mut placed = bench.place(vec![fresh(0, 5, Mode::Own, 0, 2); 3]).await;
        for (texts, hashes, sqlstate) in [
            // Another body than the second row's.
            ([b"one".as_slice(), b"two", b"three"], [[5], [6], [5]], Some("PH001")),
            // The last text does not fit.
            ([b"one", b"two", b"too long"], [[5], [5], [5]], Some("22001")),
            // Cannot even be sent: what was sent before it comes to nothing, too.
            ([b"one", b"\xff", b"three"], [[5], [5], [5]], Some("22023")),
            ([b"one", b"two", b"three"], [[5], [5], [5]], None),
        ] {
            let wanted: Vec<Wanted<'_>> =
                placed.iter().zip(&hashes).map(|(row, sha256)| Wanted { tx_id: row.tx, sha256 }).collect();
            let calls = calls(&rows, &texts);
            let in_rows = InRows::of(&calls.iter().map(|call| vec![call]).collect::<Vec<_>>()).unwrap();
            assert!(store.takes_rows(&in_rows).await.unwrap());
            let ended = store.commit_rows(&queue, &wanted, &in_rows, BOUND).await;
            let refused = match &ended {
                Ok(()) => None,
                Err(CommitError::RolledBack(error)) => error.sqlstate(),
                Err(CommitError::Unknown(error)) => panic!("{error}"),
            };
            assert_eq!(refused, sqlstate, "{ended:?}");
            assert_eq!(ended.as_ref().is_err_and(CommitError::is_not_all), sqlstate == Some("PH001"));
            let inserted = if sqlstate.is_none() { 3 } else { 0 };
            assert_eq!(bench.db.count("public.done", &[]).await, inserted, "{ended:?}");
            if ended.is_ok() {
                for row in &mut placed {
                    assert_eq!(statements::take_first(&mut row.model, ME, claim), Ok(Some(2)));
                    statements::commit_attempt(&mut row.model, 0, false);
                }
            }
            bench.compare("commit_rows", &placed).await;
        }
        // The sessions are as good as before.
        let (in_use, _size) = store.rows.usage();
        assert_eq!(in_use, 0);
    });
}

#[test]
fn a_session_whose_begin_has_failed_writes_nothing_and_one_that_was_touched_is_not_used_again() {
    run(async {
        let bench = Bench::new().await;
        bench.db.batch("CREATE TABLE public.done (message text NOT NULL)").await;
        let (store, queue, rows) = (&bench.store, destination(0), InsertRows::of(INSERT).unwrap());
        let session = store.rows.session().await.unwrap();
        let refused = session.client().unwrap().execute("INSERT INTO done VALUES ('x')", &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "25006", "{refused}");
        session.client().unwrap().batch_execute("SET lock_timeout = 0").await.unwrap();
        session.release();

        let placed = bench.place(vec![fresh(0, 5, Mode::Own, 0, 2)]).await.remove(0);
        let wanted = [Wanted { tx_id: placed.tx, sha256: &[5] }];
        let calls = calls(&rows, &[b"one"]);
        let in_rows = InRows::of(&[vec![&calls[0]]]).unwrap();
        let touched = store.commit_rows(&queue, &wanted, &in_rows, BOUND).await.unwrap_err();
        assert!(matches!(&touched, CommitError::RolledBack(error) if error.sqlstate() == Some("PH002")), "{touched:?}");
        store.commit_rows(&queue, &wanted, &in_rows, BOUND).await.unwrap();
        assert_eq!(bench.db.count("public.done", &[]).await, 1);
    });
}
