//! What is measured in one round: the product or the floor, running, on a ground of its own.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use posthaste::dev::free_port;
use tempfile::TempDir;

use super::child::Measured;
use super::database::Database;
use super::product::{Application, Product};
use super::servers::{Ground, Servers};

/// A product or a floor that runs.
pub struct Side {
    pub ground: Ground,
    pub addresses: Vec<SocketAddr>,
    pub pids: Vec<u32>,
    what: What,
    /// Where the effects are to be seen: tables `message` and `"otherMessage"`.
    effects: Database,
}

enum What {
    Product(Vec<Product>),
    Floor { process: Measured, _folder: TempDir },
}

/// How long the backlog of a round may take.
const DRAINS_WITHIN: Duration = Duration::from_secs(180);

impl Side {
    pub async fn product(
        servers: &Servers,
        application: Application,
        template: &str,
        instances: usize,
    ) -> Result<Self> {
        let ground = servers.ground(&[Some(template)]).await?;
        let mut products = Vec::new();
        for number in 0..instances {
            let mut product = Product::lay_out(application, &ground.urls, &ground.amqp)?;
            if number == 0 {
                product.take_copy().await?;
            }
            product.start().await?;
            products.push(product);
        }
        let addresses = products.iter().map(|product| product.api).collect();
        let pids = products.iter().map(Product::pid).collect::<Result<_>>()?;
        Self::running(ground, addresses, pids, What::Product(products)).await
    }

    /// One instance of this program, in a database that it has migrated itself.
    pub async fn one(servers: &Servers, application: Application, program: &Path) -> Result<Self> {
        let ground = servers.ground(&[None]).await?;
        let mut product = Product::lay_out(application, &ground.urls, &ground.amqp)?;
        product.program = program.to_owned();
        product.migrate().await?;
        product.start().await?;
        let (addresses, pids) = (vec![product.api], vec![product.pid()?]);
        Self::running(ground, addresses, pids, What::Product(vec![product])).await
    }

    pub async fn floor(servers: &Servers, application: Application) -> Result<Self> {
        let ground = servers.ground(&[None]).await?;
        let (port, folder) = (free_port()?, TempDir::new()?);
        let column = if application == Application::Bytes { "bytes" } else { "text" };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("floor").args(&ground.urls).args([&ground.amqp, &port.to_string(), column]);
        let log = folder.path().join("floor.log");
        let process = Measured::start(command, &log)?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until_it_listens(address, &log).await?;
        let pids = vec![process.pid()];
        Self::running(ground, vec![address], pids, What::Floor { process, _folder: folder }).await
    }

    async fn running(ground: Ground, addresses: Vec<SocketAddr>, pids: Vec<u32>, what: What) -> Result<Self> {
        let url = ground.urls.first().map(String::as_str).unwrap_or_default();
        let effects = Database::connect(url).await?;
        Ok(Self { ground, addresses, pids, what, effects })
    }

    pub fn is_product(&self) -> bool {
        matches!(self.what, What::Product(_))
    }

    /// Where its messages wait.
    pub fn queue(&self) -> &'static str {
        if self.is_product() { "myQueue" } else { super::floor::QUEUE }
    }

    /// Waits until so many messages have taken effect and so many have failed, and answers when that was. There may be
    /// no more of either.
    pub async fn until_done(&self, good: u64, failed: u64) -> Result<Instant> {
        let asked = Instant::now();
        loop {
            let seen = self.seen(good).await?;
            if let Some(seen) = &seen {
                let now = Instant::now();
                ensure!(
                    seen.one <= good && seen.other <= good && seen.failed <= failed,
                    "too much: {seen:?} of {good}"
                );
                if (seen.one, seen.other, seen.failed) == (good, good, failed) {
                    return Ok(now);
                }
            }
            if asked.elapsed() > DRAINS_WITHIN {
                let log = match &self.what {
                    What::Product(products) => products.iter().map(Product::end_of_log).collect(),
                    What::Floor { .. } => String::new(),
                };
                bail!("of {good} messages and {failed} that fail only these were done: {seen:?}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Counting is left until it can be the end: a sequence is read at once, and is never behind its table.
    async fn seen(&self, good: u64) -> Result<Option<Seen>> {
        let drawn = self.number(r#"SELECT pg_sequence_last_value('"otherMessage_id_seq"')"#).await?;
        if drawn < good {
            return Ok(None);
        }
        let failed = "SELECT count(*) FROM ibisstore WHERE type = 'E'";
        Ok(Some(Seen {
            one: self.number("SELECT count(*) FROM message").await?,
            other: self.number(r#"SELECT count(*) FROM "otherMessage""#).await?,
            failed: if self.is_product() { self.number(failed).await? } else { 0 },
        }))
    }

    async fn number(&self, sql: &str) -> Result<u64> {
        Ok(u64::try_from(self.effects.number(sql).await?)?)
    }

    /// Ends it; afterwards nobody is connected to its databases.
    pub async fn stop(self, servers: &Servers) -> Result<Ground> {
        let Self { ground, what, effects, .. } = self;
        match what {
            What::Product(products) => {
                for mut product in products {
                    product.stop().await?;
                }
            }
            What::Floor { process, _folder } => process.stop().await?,
        }
        drop(effects);
        servers.until_left(&ground).await?;
        Ok(ground)
    }
}

/// What has become of the messages.
#[derive(Debug)]
struct Seen {
    one: u64,
    other: u64,
    failed: u64,
}

async fn until_it_listens(address: SocketAddr, log: &Path) -> Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        if begun.elapsed() > Duration::from_secs(30) {
            bail!("the floor does not listen: {}", std::fs::read_to_string(log).unwrap_or_default());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
