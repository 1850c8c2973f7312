//! The compare-and-set of a group: for each of its rows what `take_first` is for one.

use posthaste::model::Mode;
use posthaste::store::Wanted;

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
