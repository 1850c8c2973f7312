use futures_util::FutureExt;

use super::*;

/// A closure of the shape that is wanted: assigned to a name it would get a narrower one.
fn shaped<S, T, R: for<'a> FnMut(&'a mut S) -> BoxFuture<'a, T>>(run: R) -> R {
    run
}

fn sweeper() -> Task {
    Task::new("sweeper", NeededFor::Processing)
}

async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// A task that panics in its first runs and then goes on until the stop, spawned under a watch.
fn failing(watch: &Watch, times: u32) -> (CancellationToken, tokio_util::task::TaskTracker, Arc<Mutex<u32>>) {
    let (stop, tasks, runs) = (CancellationToken::new(), tokio_util::task::TaskTracker::new(), Arc::new(Mutex::new(0)));
    let (watch, token, counted) = (watch.clone(), stop.clone(), runs.clone());
    tasks.spawn(async move {
        let inner = token.clone();
        let run = shaped(|_: &mut ()| {
            let (token, counted) = (inner.clone(), counted.clone());
            async move {
                let run = {
                    let mut counted = counted.lock().unwrap();
                    *counted += 1;
                    *counted
                };
                assert!(run > times, "run {run} on purpose");
                token.cancelled().await;
            }
            .boxed()
        });
        let mut nothing = ();
        watch.until_stopped(sweeper(), &token, &mut nothing, run).await;
    });
    tasks.close();
    (stop, tasks, runs)
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_told_at_once_begins_anew_and_is_well_when_it_has_lived_for_a_while() {
    let watch = Watch::default();
    let (stop, tasks, runs) = failing(&watch, 1);
    pass(0.05).await;
    let troubles = watch.troubles();
    assert_eq!(troubles.len(), 1);
    assert_eq!(troubles[0].needed_for, NeededFor::Processing);
    assert_eq!(troubles[0].what, "the task sweeper has ended too early and begins anew: run 1 on purpose");
    assert_eq!(*runs.lock().unwrap(), 1);
    pass(0.1).await;
    assert_eq!((*runs.lock().unwrap(), watch.troubles()), (2, troubles));
    pass(1.0).await;
    assert_eq!((*runs.lock().unwrap(), watch.troubles().len()), (2, 0));
    stop.cancel();
    tasks.wait().await;
    assert!(watch.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_to_ten_seconds_and_it_is_in_trouble_all_the_while_and_since_the_first_time() {
    let watch = Watch::default();
    let (_stop, _tasks, runs) = failing(&watch, u32::MAX);
    pass(0.05).await;
    let since = watch.troubles()[0].since;
    // 0.1 + 0.2 + … + 6.4 s: eight runs; then one in ten seconds.
    pass(12.7).await;
    assert_eq!(*runs.lock().unwrap(), 8);
    for more in 1..=5 {
        pass(10.0).await;
        assert_eq!((*runs.lock().unwrap(), watch.troubles()[0].since), (8 + more, since));
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_again_before_it_is_well_was_never_well() {
    let watch = Watch::default();
    let stop = CancellationToken::new();
    let run = shaped(|_: &mut ()| {
        async {
            pass(0.9).await;
            assert!(std::hint::black_box(false), "again");
        }
        .boxed()
    });
    let looks = async {
        pass(1.0).await;
        for _ in 0..200 {
            assert_eq!(watch.troubles().len(), 1);
            pass(0.1).await;
        }
        stop.cancel();
    };
    let mut nothing = ();
    tokio::join!(watch.until_stopped(sweeper(), &stop, &mut nothing, run), looks);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_has_lived_for_a_minute_begins_with_a_short_pause_again() {
    let (watch, stop) = (Watch::default(), CancellationToken::new());
    let mut began = Vec::new();
    let (start, token) = (Instant::now(), stop.clone());
    let run = shaped(|began: &mut Vec<Duration>| {
        let stop = token.clone();
        async move {
            began.push(start.elapsed());
            if began.len() == 4 {
                pass(60.0).await;
            }
            if began.len() == 6 {
                stop.cancel();
            }
            assert!(std::hint::black_box(false), "on purpose");
        }
        .boxed()
    });
    watch.until_stopped(sweeper(), &stop, &mut began, run).await;
    let pauses: Vec<u128> = began.windows(2).map(|two| (two[1] - two[0]).as_millis()).collect();
    assert_eq!(pauses, [100, 200, 400, 60_100, 200]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_has_asked_for_is_no_better_than_a_panic() {
    let (watch, stop) = (Watch::default(), CancellationToken::new());
    let mut runs = 0;
    let run = shaped(|runs: &mut u32| {
        *runs += 1;
        if *runs == 3 {
            stop.cancel();
        }
        futures_util::future::ready(()).boxed()
    });
    let looks = async {
        pass(0.05).await;
        watch.troubles()
    };
    let ((), troubles) = tokio::join!(watch.until_stopped(sweeper(), &stop, &mut runs, run), looks);
    assert_eq!(runs, 3);
    assert_eq!(troubles[0].what, "the task sweeper has ended too early and begins anew: it has come to its end");
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_no_restart_whether_the_task_ends_or_panics() {
    for panics in [false, true] {
        let (watch, stop) = (Watch::default(), CancellationToken::new());
        stop.cancel();
        let mut runs = 0;
        let run = shaped(|runs: &mut u32| {
            *runs += 1;
            async move { assert!(!panics, "during the stop") }.boxed()
        });
        watch.until_stopped(sweeper(), &stop, &mut runs, run).await;
        assert_eq!((runs, watch.troubles().len()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_to_come_to_an_end_may() {
    let (watch, stop) = (Watch::default(), CancellationToken::new());
    let mut runs = 0;
    let run = shaped(|runs: &mut u32| {
        *runs += 1;
        let run = *runs;
        async move {
            assert!(run > 1, "on purpose");
            run
        }
        .boxed()
    });
    assert_eq!(watch.until_done(sweeper(), &stop, &mut runs, run).await, Some(2));
    assert_eq!(watch.troubles(), []);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_hangs_is_told_until_it_comes_round() {
    let (watch, stop) = (Watch::default(), CancellationToken::new());
    let task = sweeper().turns_within(Duration::from_secs(300));
    let both = (watch.clone(), stop.clone());
    let run = shaped(|_: &mut ()| {
        let (watch, stop) = both.clone();
        async move {
            pass(200.0).await;
            watch.turn("sweeper");
            pass(400.0).await;
            watch.turn("sweeper");
            pass(200.0).await;
            stop.cancel();
        }
        .boxed()
    });
    let looks = async {
        let mut told = Vec::new();
        for _ in 0..7 {
            pass(99.0).await;
            told.push(watch.troubles().len());
        }
        told
    };
    let mut nothing = ();
    let ((), told) = tokio::join!(watch.until_stopped(task, &stop, &mut nothing, run), looks);
    // At 99, 198, … 693 s; it came round at 200 and at 600 s.
    assert_eq!(told, [0, 0, 0, 0, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_keeps_a_task_from_its_work_is_told_once_it_has_lasted_since_it_began_and_until_it_is_over() {
    let (watch, stop) = (Watch::default(), CancellationToken::new());
    let both = (watch.clone(), stop.clone());
    let run = shaped(|_: &mut ()| {
        let (watch, stop) = both.clone();
        async move {
            watch.held_up("sweeper", Some("no room".to_owned()));
            let told = |watch: &Watch| watch.troubles().into_iter().map(|one| one.what).collect::<Vec<_>>();
            pass(1.9).await;
            assert_eq!(told(&watch), Vec::<String>::new());
            pass(0.2).await;
            assert_eq!(told(&watch), ["no room"]);
            let since = watch.troubles()[0].since;
            pass(10.0).await;
            assert_eq!(watch.troubles()[0].since, since);
            watch.held_up("sweeper", None);
            assert_eq!(told(&watch), Vec::<String>::new());
            stop.cancel();
        }
        .boxed()
    });
    watch.until_stopped(sweeper(), &stop, &mut (), run).await;
}
