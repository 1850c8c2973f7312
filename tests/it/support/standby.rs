//! A synchronous standby of a private PostgreSQL, to be lost, found again and promoted.

use std::sync::Arc;

use posthaste::dev::PrivatePostgres;

use super::{Database, SOON, Servers, eventually, same};

/// Sessions of ours whose commit waits for the standby.
pub const WAITING: &str =
    "pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name LIKE 'posthaste:%' AND query LIKE $1";

pub struct Standby {
    pub servers: Arc<Servers>,
    server: PrivatePostgres,
}

impl Standby {
    /// From now on every commit on these servers' PostgreSQL waits for it.
    pub async fn of(servers: &Arc<Servers>) -> Self {
        let primary = servers.postgres.lock().await;
        let server = primary.start_standby().await.unwrap_or_else(|error| panic!("no standby: {error}"));
        for setting in ["wal_keep_size = '512MB'", "synchronous_standby_names = '*'"] {
            primary.sql(&format!("ALTER SYSTEM SET {setting}")).await.unwrap();
        }
        primary.sql("SELECT pg_reload_conf()").await.unwrap();
        drop(primary);
        let standby = Self { servers: Arc::clone(servers), server };
        standby.follows().await;
        standby
    }

    /// Waits until commits wait for it and it answers.
    pub async fn follows(&self) {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'";
        let follows = async || same(self.servers.postgres.lock().await.sql(sql).await.unwrap().trim(), &"1");
        eventually("the standby follows", SOON * 3, follows).await;
    }

    pub async fn stop(&mut self) {
        self.server.kill9().await.unwrap();
    }

    pub async fn start(&mut self) {
        self.server.start_again().await.unwrap();
        self.follows().await;
    }

    /// It takes the place and the port of its primary, which is killed. Nothing waits for a standby any more.
    pub async fn promote(mut self) {
        let mut primary = self.servers.postgres.lock().await;
        if primary.pid().is_some() {
            primary.kill9().await.unwrap();
        }
        self.server.take_the_place_of(&mut primary).await.unwrap();
        *primary = self.server;
    }
}

/// The process ids of our sessions that run this and wait for the standby; waits until there is one.
pub async fn waiting(db: &Database, query: &str) -> Vec<i32> {
    let sql = format!("SELECT pid FROM {WAITING}");
    eventually("a commit waits for the standby", SOON * 3, async || {
        let pids: Vec<i32> = db.column(&sql, &[&query]).await;
        if pids.is_empty() { Err("none does".to_owned()) } else { Ok(pids) }
    })
    .await
}
