//! Questions to one database.

use anyhow::{Context as _, Result};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

pub struct Database {
    client: Client,
    connection: JoinHandle<()>,
}

impl Database {
    pub async fn connect(url: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("connect to PostgreSQL")?;
        let connection = tokio::spawn(async move {
            // An error is told to whoever asks next.
            let _told = connection.await;
        });
        Ok(Self { client, connection })
    }

    /// One whole number; NULL counts as 0.
    pub async fn number(&self, sql: &str) -> Result<i64> {
        let row = self.client.query_one(sql, &[]).await.with_context(|| sql.to_owned())?;
        Ok(row.try_get::<_, Option<i64>>(0)?.unwrap_or(0))
    }

    pub async fn text(&self, sql: &str) -> Result<String> {
        Ok(self.client.query_one(sql, &[]).await.with_context(|| sql.to_owned())?.try_get(0)?)
    }

    pub async fn batch(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.with_context(|| sql.to_owned())
    }

    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
