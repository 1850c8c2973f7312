//! The private servers that all rounds use, with a fresh database and virtual host for each.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use posthaste::dev::{Options, PrivatePostgres, PrivateRabbit, fresh_name, start_both};

use super::database::Database;

pub struct Servers {
    pub postgres: PrivatePostgres,
    pub rabbit: PrivateRabbit,
    /// The maintenance database.
    pub admin: Database,
}

/// What one side of one round works on; gone afterwards.
pub struct Ground {
    names: Vec<String>,
    pub urls: Vec<String>,
    vhost: String,
    pub amqp: String,
}

/// The share of the machine's memory beyond which RabbitMQ blocks its publishers, if nobody says otherwise. A private one is
/// given 1 GB, which a few rounds with messages of 64 KiB fill: then the product refuses, and the floor waits.
const WATERMARK: &str = "0.4";

impl Servers {
    pub async fn start() -> Result<Self> {
        let (postgres, rabbit) = start_both(&Options::default()).await?;
        let set = rabbit.eval(&format!("vm_memory_monitor:set_vm_memory_high_watermark({WATERMARK})")).await?;
        ensure!(set == "ok", "RabbitMQ's limit of memory: {set}");
        let admin = Database::connect(&postgres.url("postgres")).await?;
        Ok(Self { postgres, rabbit, admin })
    }

    /// Databases of its own, as copies of these (`None`: empty), and a virtual host.
    pub async fn ground(&self, templates: &[Option<&str>]) -> Result<Ground> {
        let vhost = fresh_name("bench");
        let amqp = self.rabbit.create_vhost(&vhost).await?;
        let (mut names, mut urls) = (Vec::new(), Vec::new());
        for template in templates {
            let name = fresh_name("bench");
            self.create(&name, *template).await?;
            urls.push(self.postgres.url(&name));
            names.push(name);
        }
        Ok(Ground { names, urls, vhost, amqp })
    }

    async fn create(&self, name: &str, template: Option<&str>) -> Result<()> {
        let from = template.unwrap_or("template1");
        // Copied as files: with a million rows everything else writes them to the WAL once more.
        let how = if self.version().await? >= 150_000 { " STRATEGY file_copy" } else { "" };
        self.admin.batch(&format!("CREATE DATABASE \"{name}\" TEMPLATE \"{from}\"{how}")).await
    }

    /// The databases and queues of a round that is over.
    pub async fn clear(&self, ground: Ground) -> Result<()> {
        for name in ground.names {
            self.admin.batch(&format!("DROP DATABASE \"{name}\" WITH (FORCE)")).await?;
        }
        let remove = format!("rabbit_vhost:delete(<<\"{}\">>, <<\"bench\">>)", ground.vhost);
        self.rabbit.eval(&remove).await?;
        Ok(())
    }

    /// Neither side pays for what the other left to be written.
    pub async fn checkpoint(&self) -> Result<()> {
        self.admin.batch("CHECKPOINT").await
    }

    /// What was written to the WAL so far.
    pub async fn wal_bytes(&self) -> Result<f64> {
        Ok(self.admin.number("SELECT (pg_current_wal_insert_lsn() - '0/0')::int8").await? as f64)
    }

    /// How often the WAL was flushed so far, by whoever has ended: a process that still runs tells its last seconds late.
    pub async fn flushes(&self) -> Result<f64> {
        let sql = if self.version().await? >= 180_000 {
            "SELECT sum(fsyncs)::int8 FROM pg_stat_io WHERE object = 'wal'"
        } else {
            "SELECT wal_sync FROM pg_stat_wal"
        };
        Ok(self.admin.number(sql).await? as f64)
    }

    async fn version(&self) -> Result<i64> {
        self.admin.number("SELECT current_setting('server_version_num')::int8").await
    }

    /// Waits until nobody is connected to these databases any more.
    pub async fn until_left(&self, ground: &Ground) -> Result<()> {
        let names = ground.names.join("','");
        // Not an autovacuum worker: it goes when its database is dropped.
        let clients = "backend_type = 'client backend'";
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {clients} AND datname IN ('{names}')");
        let begun = Instant::now();
        while self.admin.number(&sql).await? > 0 {
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("somebody is still connected to {names}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub fn postgres_pid(&mut self) -> Result<u32> {
        self.postgres.pid().context("PostgreSQL has ended")
    }

    pub fn rabbit_pid(&mut self) -> Result<u32> {
        self.rabbit.pid().context("RabbitMQ has ended")
    }

    pub async fn shutdown(self) -> Result<()> {
        drop(self.admin);
        let (postgres, rabbit) = tokio::join!(self.postgres.shutdown(), self.rabbit.shutdown());
        Ok(postgres.and(rabbit)?)
    }
}
