//! Blows that need more than a signal: a clock, a standby, a queue's owner, a copy of the home.

use std::time::Duration;

use tokio::time::sleep;

use super::installation::Installation;
use crate::backpressure::process;
use crate::hang::restored_copy::{from_a_template, is_held_up};
use crate::support::{LONG, Standby, eventually};

impl Installation {
    /// Ahead or behind, and right again.
    pub(super) async fn jump_clock(&self, seconds: i64, lasts: Duration) {
        self.clock.set(seconds);
        sleep(lasts).await;
        self.clock.set(0);
    }

    /// Every commit waits for a standby, which goes and comes back; then none does.
    pub(super) async fn lose_standby(&self, lasts: Duration) {
        let mut standby = Standby::of(&self.servers).await;
        standby.stop().await;
        sleep(lasts).await;
        standby.start().await;
        let postgres = self.servers.postgres.lock().await;
        for setting in ["synchronous_standby_names", "wal_keep_size"] {
            postgres.sql(&format!("ALTER SYSTEM RESET {setting}")).await.unwrap();
        }
        postgres.sql("SELECT pg_reload_conf()").await.unwrap();
    }

    /// The standby goes, its primary is restarted, which shows what waited, and the standby takes its place.
    pub(super) async fn promote_standby(&self, lasts: Duration) {
        let mut standby = Standby::of(&self.servers).await;
        standby.stop().await;
        sleep(lasts).await;
        self.servers.stop_postgres_immediately().await;
        self.servers.start_postgres().await;
        sleep(lasts).await;
        standby.promote().await;
        eventually("the home may be told where it is", LONG, async || {
            let settled = self.first_app().await.command(&["migrate", "--home", "same"]);
            if settled.status.success() { Ok(()) } else { Err(format!("{settled:?}")) }
        })
        .await;
    }

    /// As an administrator's policy does it: whatever is published to the queue comes back.
    pub(super) async fn reject_publishes(&self, lasts: Duration) {
        let vhost = self.amqp_url.rsplit('/').next().unwrap();
        let set = format!(
            "rabbit_policy:set(<<\"{vhost}\">>, <<\"full\">>, <<\".*\">>,
             [{{<<\"max-length\">>, 0}}, {{<<\"overflow\">>, <<\"reject-publish\">>}}], 0, <<\"queues\">>, <<\"nemesis\">>)"
        );
        assert_eq!(self.at_broker(&set.replace('\n', " ")).await, "ok");
        sleep(lasts).await;
        let clear = format!("rabbit_policy:delete(<<\"{vhost}\">>, <<\"full\">>, <<\"nemesis\">>)");
        assert_eq!(self.at_broker(&clear).await, "ok");
    }

    /// The queue's process stands still.
    pub(super) async fn withhold_confirms(&self, lasts: Duration) {
        let process = process(&*self.first_app().await);
        // One that is not there yet, after a deletion, cannot stand still.
        let suspend = async || match self.at_broker(&format!("sys:suspend({process})")).await.as_str() {
            "ok" => Ok(()),
            other => Err(other.to_owned()),
        };
        eventually("the queue stands still", LONG, suspend).await;
        sleep(lasts).await;
        assert_eq!(self.at_broker(&format!("sys:resume({process})")).await, "ok");
    }

    /// An instance on a copy of the home, at the same broker, which must take nothing.
    pub(super) async fn start_a_copy(&self, lasts: Duration) {
        let mut copy = from_a_template(&*self.first_app().await).await;
        let knew = copy.db.count("ibisstore WHERE type <> 'E'", &[]).await;
        copy.run();
        is_held_up(&copy, knew).await;
        sleep(lasts).await;
        copy.kill9().await;
        let name = copy.db.name().to_owned();
        self.servers.postgres.lock().await.sql(&format!(r#"DROP DATABASE "{name}" WITH (FORCE)"#)).await.unwrap();
    }

    async fn at_broker(&self, expression: &str) -> String {
        self.servers.rabbit.lock().await.eval(expression).await.unwrap()
    }
}
