//! A flight over publishes whose answers come when a test says so.

use tokio::sync::oneshot;

use super::*;

type Say = oneshot::Sender<Said>;

fn just(answer: Answer) -> Said {
    Said { answer, returned: None, end: None }
}

/// So many publishes without an answer.
fn open(many: usize) -> (Vec<Option<Say>>, Flight<'static>) {
    let (say, publishes): (Vec<_>, Vec<_>) = (0..many)
        .map(|_| {
            let (say, said) = oneshot::channel();
            let publish: Publish<'static> = said.map(|said| said.unwrap_or(just(Answer::Failed))).boxed();
            (Some(say), Some(publish))
        })
        .unzip();
    (say, Flight::of(publishes, Arc::default()))
}

fn ack(say: &mut [Option<Say>], which: &[usize]) {
    for at in which {
        say[*at].take().unwrap().send(just(Answer::Acked)).unwrap();
    }
}

/// Acknowledged, with a return in the hand.
fn ack_with_a_return(say: &mut [Option<Say>], at: usize) {
    let returned = ReturnedMessage { tx_id: None, queue: "q".to_owned(), reason: "NO_ROUTE".to_owned() };
    say[at].take().unwrap().send(Said { returned: Some(returned), ..just(Answer::Acked) }).unwrap();
}

/// Who is told while nothing more is answered.
async fn told(flight: &mut Flight<'_>) -> Vec<usize> {
    let mut told = Vec::new();
    flight.land(Instant::now() + Duration::from_millis(20), |at, _| told.push(at)).await;
    told
}

#[tokio::test]
async fn who_is_confirmed_is_told_once_while_others_are_open() {
    let (mut say, mut flight) = open(4);
    assert!(told(&mut flight).await.is_empty());
    ack(&mut say, &[1, 0]);
    assert_eq!(told(&mut flight).await, [0, 1]);
    ack(&mut say, &[2]);
    assert_eq!(told(&mut flight).await, [2]);
    assert!(!flight.is_over());
    ack(&mut say, &[3]);
    assert_eq!((told(&mut flight).await, flight.is_over()), (vec![3], true));
    assert_eq!(flight.told, [true; 4]);
}

#[tokio::test]
async fn who_stands_behind_an_open_one_is_told_when_that_is_answered_whatever_the_answer_is() {
    let (mut say, mut flight) = open(5);
    ack(&mut say, &[1, 3]);
    assert!(told(&mut flight).await.is_empty());
    // Its channel has ended.
    drop(say[0].take());
    assert_eq!(told(&mut flight).await, [1]);
    say[2].take().unwrap().send(just(Answer::Nacked)).unwrap();
    assert_eq!(told(&mut flight).await, [3]);
    assert_eq!(flight.answers, [Answer::Failed, Answer::Acked, Answer::Nacked, Answer::Acked, Answer::Open]);
    assert_eq!(flight.told, [false, true, false, true, false]);
}

#[tokio::test]
async fn before_anybody_is_told_everything_behind_him_is_read() {
    let (mut say, mut flight) = open(3);
    let mut told = Vec::new();
    poll_fn(|cx| {
        flight.read_from(0, cx);
        ack(&mut say, &[2]);
        flight.advance(cx, &mut |at, _| told.push(at));
        assert_eq!((told.as_slice(), flight.answers[2]), ([].as_slice(), Answer::Open));
        ack(&mut say, &[0]);
        flight.advance(cx, &mut |at, _| told.push(at));
        assert_eq!((told.as_slice(), flight.answers[2]), ([0].as_slice(), Answer::Acked));
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn a_return_that_another_confirm_brings_is_seen_before_anybody_is_told() {
    let (mut say, mut flight) = open(4);
    let mut told = Vec::new();
    poll_fn(|cx| {
        flight.read_from(0, cx);
        // The first one's return, on the third one's confirm: both stand there when the first is looked at.
        ack(&mut say, &[0]);
        ack_with_a_return(&mut say, 2);
        flight.advance(cx, &mut |at, _| told.push(at));
        Poll::Ready(())
    })
    .await;
    assert_eq!((told, flight.returned.len()), (vec![], 1));
    assert_eq!(flight.answers, [Answer::Acked, Answer::Open, Answer::Acked, Answer::Open]);
}

#[tokio::test]
async fn once_something_has_come_back_nobody_is_told_any_more() {
    let (mut say, mut flight) = open(4);
    ack(&mut say, &[0]);
    assert_eq!(told(&mut flight).await, [0]);
    ack_with_a_return(&mut say, 1);
    assert_eq!(told(&mut flight).await, Vec::<usize>::new());
    ack(&mut say, &[2, 3]);
    assert_eq!((told(&mut flight).await, flight.is_over()), (vec![], true));
    assert_eq!(flight.told, [true, false, false, false]);
}

#[tokio::test]
async fn the_broker_s_reason_is_that_of_the_first_who_heard_one() {
    let (mut say, mut flight) = open(3);
    drop(say[0].take());
    for (at, reason) in [(1, "406 too large"), (2, "504 closed")] {
        let end = End { about: super::super::end::About::Message, scope: Scope::Channel, reason: reason.into() };
        say[at].take().unwrap().send(Said { end: Some(end), ..just(Answer::Failed) }).unwrap();
    }
    assert!(told(&mut flight).await.is_empty() && flight.is_over());
    assert_eq!(flight.end.unwrap().reason.as_ref(), "406 too large");
}
