//! What one would write by hand to insert into two databases or into neither, in a process of its own: both prepared,
//! then both committed. It finds nothing again after a crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::task::JoinSet;
use tokio_postgres::Statement;

use super::database::Database;
use super::load::body;

/// `tasks` loops at the same time, until so many messages have been written.
pub async fn run(one: &str, other: &str, tasks: usize, messages: u64) -> Result<()> {
    let begun = Arc::new(AtomicU64::new(0));
    let mut loops = JoinSet::new();
    for task in 0..tasks {
        let one = Half::connect(one, "message", "one").await?;
        let other = Half::connect(other, "\"otherMessage\"", "other").await?;
        let begun = begun.clone();
        loops.spawn(async move {
            let mut dice = fastrand::Rng::new();
            loop {
                let number = begun.fetch_add(1, Ordering::Relaxed);
                if number >= messages {
                    return Ok::<(), anyhow::Error>(());
                }
                let text = String::from_utf8(body(&mut dice, 16))?;
                let gid = format!("by-hand-{task}-{number}");
                // Both databases at the same time, in each phase.
                tokio::try_join!(one.prepare(&gid, &text), other.prepare(&gid, &text))?;
                tokio::try_join!(one.commit(&gid), other.commit(&gid))?;
            }
        });
    }
    while let Some(ended) = loops.join_next().await {
        ended??;
    }
    Ok(())
}

/// A connection to one of the two.
struct Half {
    database: Database,
    insert: Statement,
    /// Tells its transactions from the other half's: both databases may be on one server.
    mark: &'static str,
}

impl Half {
    async fn connect(url: &str, table: &str, mark: &'static str) -> Result<Self> {
        let database = Database::connect(url).await?;
        let insert = database.client().prepare(&format!("INSERT INTO {table} (message) VALUES ($1)")).await?;
        Ok(Self { database, insert, mark })
    }

    async fn prepare(&self, gid: &str, text: &str) -> Result<()> {
        let client = self.database.client();
        let (begin, values) = (client.batch_execute("BEGIN"), [&text as &(dyn tokio_postgres::types::ToSql + Sync)]);
        // Sent together: the server takes them in this order.
        let (begun, inserted) = tokio::join!(begin, client.execute(&self.insert, &values));
        begun?;
        inserted?;
        self.database.batch(&format!("PREPARE TRANSACTION '{gid}-{}'", self.mark)).await
    }

    async fn commit(&self, gid: &str) -> Result<()> {
        self.database.batch(&format!("COMMIT PREPARED '{gid}-{}'", self.mark)).await
    }
}
