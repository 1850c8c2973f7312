//! A database's clock that jumps ahead and back under load (I8, I9).

use super::some_seconds;
use crate::support::{App, Clock, LONG, run};
use crate::trial::{Trial, seed};

#[test]
#[ignore = "a minute each; make hang runs them"]
fn a_clock_that_jumps_costs_nothing() {
    run(async {
        let (clock, servers) = Clock::with_servers().await;
        let mut first = App::start(servers).await;
        let mut second = first.sibling();
        second.run();
        second.ready(LONG).await;
        let trial = Trial::start("clock", seed(), &[first.api, second.api]);
        // Two hours ahead and right again, an hour behind, forty days ahead, and five minutes for good.
        for ahead in [0, 7200, 0, -3600, 0, 40 * 86_400, 0, 300] {
            clock.set(ahead);
            some_seconds(4).await;
        }
        // One of them dies with what it has accepted meanwhile.
        first.kill9().await;
        clock.set(900);
        trial.judge(&mut second).await.accepted_at_least(50);
    });
}
