//! A synchronous standby that is lost, found again, lost once more and promoted (protocol §3, MD9).

use std::sync::Arc;

use super::some_seconds;
use crate::support::{App, LONG, Servers, Standby, eventually, run};
use crate::trial::{Trial, seed};

#[test]
#[ignore = "a minute each; make hang runs them"]
fn a_standby_that_is_lost_found_lost_and_promoted_costs_nothing() {
    run(async {
        let servers = Servers::own().await;
        let mut standby = Standby::of(&servers).await;
        let mut first = App::start(Arc::clone(&servers)).await;
        let mut second = first.sibling();
        second.run();
        second.ready(LONG).await;
        let trial = Trial::start("standby", seed(), &[first.api, second.api]);
        some_seconds(3).await;
        standby.stop().await;
        // Longer than a lease: nobody may take the others for dead, since nobody's write comes through.
        some_seconds(12).await;
        standby.start().await;
        first.ready(LONG).await;
        second.ready(LONG).await;
        some_seconds(3).await;

        standby.stop().await;
        some_seconds(6).await;
        // Now what waited is visible, and the standby that takes over never had it.
        servers.stop_postgres_immediately().await;
        servers.start_postgres().await;
        some_seconds(6).await;
        standby.promote().await;
        eventually("the home may be told where it is", LONG, async || {
            let settled = first.command(&["migrate", "--home", "same"]);
            if settled.status.success() { Ok(()) } else { Err(format!("{settled:?}")) }
        })
        .await;
        first.ready(LONG).await;
        second.ready(LONG).await;
        some_seconds(3).await;
        assert_eq!(first.stop().await, Some(0));
        trial.judge(&mut second).await.accepted_at_least(50);
    });
}
