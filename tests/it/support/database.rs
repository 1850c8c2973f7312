//! Looking into a database by SQL. A connection per question, so that outages leave nothing half-open behind.

use std::time::Duration;

use futures_util::future::poll_fn;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls, Row};

#[derive(Clone)]
pub struct Database {
    config: Config,
}

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Database {
    pub fn new(mut config: Config) -> Self {
        config.connect_timeout(Duration::from_secs(5)).application_name("it");
        Self { config }
    }

    pub async fn try_rows(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        let question = async move { client.query(sql, params).await };
        let (rows, _closed) = tokio::join!(question, connection);
        rows
    }

    pub async fn rows(&self, sql: &str, params: Params<'_>) -> Vec<Row> {
        self.try_rows(sql, params).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The first column of every row.
    pub async fn column<T: FromSqlOwned>(&self, sql: &str, params: Params<'_>) -> Vec<T> {
        self.rows(sql, params).await.iter().map(|row| row.get(0)).collect()
    }

    /// The one value that `sql` selects.
    pub async fn one<T: FromSqlOwned>(&self, sql: &str, params: Params<'_>) -> T {
        let rows = self.rows(sql, params).await;
        assert_eq!(rows.len(), 1, "{sql}");
        rows[0].get(0)
    }

    /// The number of rows of a table, with an optional condition.
    pub async fn count(&self, what: &str, params: Params<'_>) -> i64 {
        self.one(&format!("SELECT count(*) FROM {what}"), params).await
    }

    /// Several statements, one after the other, in one session.
    pub async fn batch(&self, sql: &str) {
        let (client, connection) = self.config.connect(NoTls).await.unwrap();
        let question = async move { client.batch_execute(sql).await };
        let (done, _closed) = tokio::join!(question, connection);
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// A session of its own, which ends with what is answered.
    pub async fn session(&self) -> (Client, JoinSet<()>) {
        let (client, connection) = self.config.connect(NoTls).await.unwrap();
        let mut session = JoinSet::new();
        session.spawn(async move { drop(connection.await) });
        (client, session)
    }

    /// Listens; what is heard comes while the session is there.
    pub async fn listen(&self, channel: &str) -> ((Client, JoinSet<()>), UnboundedReceiver<String>) {
        let (client, mut connection) = self.config.connect(NoTls).await.unwrap();
        let (tell, heard) = unbounded_channel();
        let mut session = JoinSet::new();
        session.spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    let _nobody_listens = tell.send(notification.payload().to_owned());
                }
            }
        });
        client.batch_execute(&format!("LISTEN {channel}")).await.unwrap();
        ((client, session), heard)
    }

    pub fn name(&self) -> &str {
        self.config.get_dbname().unwrap_or_default()
    }
}
