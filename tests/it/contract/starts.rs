//! What makes an attempt count: starts, and notes of what is tried among others.

use posthaste::model::{Destination, TxId};
use posthaste::store::{Start, StartRequest};

use super::bench::{Bench, ME, WATCH, destination};
use super::journal::{cases, compare};
use super::statements;
use crate::support::run;

#[test]
fn start_is_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let mut cases = cases(&bench).await;
        for (placed, claim) in &mut cases {
            let before = placed.model.journal[0].clone();
            let queue = destination(claim.queue);
            let real = start(&bench, placed.tx, &queue, claim.body).await;
            let model = statements::start(&mut placed.model, ME, 0, claim.queue, claim.body);
            assert_eq!(real, model.map(i32::from), "{before:?} {claim:?}");
        }
        compare(&bench, "start", cases).await;
    });
}

/// The number of the attempt that a start alone began.
pub async fn start(bench: &Bench, tx_id: TxId, destination: &Destination, body: u8) -> Option<i32> {
    let (adapter, watch, sha256) = ("a", WATCH, &[body][..]);
    let request = StartRequest { tx_id, destination, sha256, adapter, watch, max_attempts: 2, alone: true };
    match bench.store.start(&request).await.unwrap() {
        Start::Begun { n, .. } => Some(n),
        Start::NotNow => None,
        Start::Alone => panic!("it is alone"),
    }
}

#[test]
fn note_is_the_model_s() {
    run(async {
        let bench = Bench::new().await;
        let mut cases = cases(&bench).await;
        let mut noted = 0;
        for (placed, claim) in &mut cases {
            let before = placed.model.journal[0].clone();
            let real = bench.store.note_in_hand(&[placed.tx], &destination(claim.queue)).await.unwrap();
            let model = statements::note(&mut placed.model, ME, 0, claim.queue);
            assert_eq!(real.contains(&placed.tx), model, "{before:?} {claim:?}");
            noted += usize::from(model);
        }
        assert!(noted > 5, "{noted}");
        compare(&bench, "note", cases).await;
    });
}
