//! How fast a backlog goes through after an outage, beside one that nothing has happened to. It prints rates and asserts
//! none: they are the machine's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::some_seconds;
use crate::support::{App, LONG, Servers, eventually, run};

const MESSAGES: usize = 20_000;
const RECEIVER: &str = "writeDb";

impl App {
    /// Messages that wait in the queue, and nobody reads it.
    async fn backlog(&self, name: &str) {
        self.stop_adapter(RECEIVER).await;
        let ids: Vec<String> = (0..MESSAGES).map(|number| format!("{name}-{number}")).collect();
        for some in ids.chunks(64) {
            let replies = join_all(some.iter().map(|id| self.post(id, id))).await;
            assert!(replies.iter().all(|reply| reply.status == 202), "{replies:?}");
        }
    }

    async fn done(&self, name: &str) -> i64 {
        self.db.count("message WHERE message LIKE $1", &[&format!("{name}-%")]).await
    }

    /// Messages a second from now on.
    async fn rate(&self, name: &str) -> f64 {
        let (began, before) = (Instant::now(), self.done(name).await);
        let all = i64::try_from(MESSAGES).unwrap();
        eventually("the backlog is done", Duration::from_secs(300), async || match self.done(name).await {
            done if done == all => Ok(()),
            done => Err(format!("{done}")),
        })
        .await;
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let rate = (all - before) as f64 / began.elapsed().as_secs_f64();
        eprintln!("backlog: {name}: {rate:.0} messages/s ({} of {all})", all - before);
        rate
    }

    async fn undisturbed(&self, name: &str) -> f64 {
        self.backlog(name).await;
        some_seconds(3).await;
        self.start_adapter(RECEIVER).await;
        self.rate(name).await
    }

    async fn half_done(&self, name: &str) {
        eventually("a part is done", LONG, async || match self.done(name).await {
            done if done > 500 => Ok(()),
            done => Err(format!("{done}")),
        })
        .await;
    }
}

#[test]
#[ignore = "a minute each; make hang runs them"]
fn a_backlog_goes_through_after_an_outage() {
    run(async {
        let servers = Servers::own().await;
        let mut app = App::start(Arc::clone(&servers)).await;
        app.undisturbed("warm").await;
        let mut usual = app.undisturbed("usual-1").await;

        app.backlog("broker").await;
        some_seconds(3).await;
        servers.kill9_rabbit().await;
        servers.start_rabbit().await;
        app.ready(LONG).await;
        app.start_adapter(RECEIVER).await;
        let broker = app.rate("broker").await;

        app.backlog("database").await;
        app.start_adapter(RECEIVER).await;
        app.half_done("database").await;
        servers.stop_postgres().await;
        servers.start_postgres().await;
        app.ready(LONG).await;
        let database = app.rate("database").await;

        app.backlog("killed").await;
        app.start_adapter(RECEIVER).await;
        app.half_done("killed").await;
        app.kill9().await;
        app.run();
        app.ready(LONG).await;
        let killed = app.rate("killed").await;

        usual = usual.max(app.undisturbed("usual-2").await);
        app.settled(LONG).await;
        assert_eq!(app.error_rows().await, []);
        for (what, rate) in [("broker", broker), ("database", database), ("killed", killed)] {
            eprintln!("backlog: {what}: {:.2} of the usual rate", rate / usual);
        }
    });
}
