//! Instances that stand still beyond their lease, while they accept and while they process (I9).

use super::some_seconds;
use crate::support::{App, Clock, LONG, eventually, run};
use crate::trial::{Trial, seed};

#[test]
#[ignore = "a minute each; make hang runs them"]
fn an_instance_that_stands_still_for_minutes_costs_nothing() {
    run(async {
        let (clock, servers) = Clock::with_servers().await;
        let mut first = App::start(servers).await;
        let mut second = first.sibling();
        second.run();
        second.ready(LONG).await;
        let trial = Trial::start("pause", seed(), &[first.api, second.api]);
        let mut minutes = 0;
        for _ in 0..2 {
            for app in [&mut first, &mut second] {
                some_seconds(2).await;
                let fenced = async || app.db.count("posthaste.instance WHERE state = 'FENCED'", &[]).await;
                let before = fenced().await;
                app.freeze().await;
                // For everybody else it was seven minutes.
                minutes += 7;
                clock.set(minutes * 60);
                let more = async || if fenced().await > before { Ok(()) } else { Err(format!("{before}")) };
                eventually("it is fenced", LONG, more).await;
                app.thaw();
                // Another has taken over its work; it notices and ends, and a new start is a new instance.
                assert_eq!(app.ended(LONG).await, Some(70));
                app.run();
                app.ready(LONG).await;
            }
        }
        assert_eq!(first.stop().await, Some(0));
        trial.judge(&mut second).await.accepted_at_least(50);
    });
}
