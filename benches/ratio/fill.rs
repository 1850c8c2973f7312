//! Databases that rounds are copied from: migrated ones, and one that has seen a million messages.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use posthaste::dev::fresh_name;

use super::database::Database;
use super::product::{Application, Product};
use super::servers::Servers;

/// Made when a row first asks for them.
#[derive(Default)]
pub struct Templates {
    made: BTreeMap<String, Vec<String>>,
}

/// How many messages the database of `stored` has seen.
const STORED: u32 = 1_000_000;

/// As the engine leaves a message that was processed at first go, spread over the last six days: the row of the message
/// log and the DONE row of the journal. Message ids are random, like those of the load.
const FILL: &str = "
CREATE TEMPORARY TABLE past AS
SELECT n, at, md5('id' || n) AS id,
       (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5('a' || n), 1, 3)
        || '8' || substr(md5('b' || n), 1, 15))::uuid AS tx_id,
       substr(md5('body' || n), 1, 16)::bytea AS body
FROM (SELECT n, clock_timestamp() - ({STORED} - n) * interval '6 days' / {STORED} - interval '1 hour' AS at
      FROM generate_series(1, {STORED}) n) s;
INSERT INTO ibisstore (type, slotid, host, messageid, correlationid, messagedate, message, expirydate, dedup_key, tx_id,
                       root_id, content_type, sha256)
SELECT 'A', 'write-db-req', 'bench', id, id, at, body, at + interval '30 days', id, tx_id, tx_id, 'text/plain', sha256(body)
FROM past ORDER BY n;
INSERT INTO posthaste.journal (tx_id, root_id, log_key, sha256, mode, destination, max_attempts, state, attempts,
                               publish_after, published_at, finished_at)
SELECT tx_id, root_id, messagekey, sha256, 'OWN', '{DESTINATION}', 2, 'DONE', 1, messagedate + interval '10 seconds',
       NULL, messagedate + interval '20 milliseconds'
FROM ibisstore ORDER BY messagekey;
DROP TABLE past";

impl Templates {
    /// The first database of this application's template.
    pub async fn of(&mut self, servers: &Servers, application: Application) -> Result<String> {
        let all = self.all_of(servers, application).await?;
        all.into_iter().next().context("an application without databases")
    }

    /// All of them, in the application's order.
    pub async fn all_of(&mut self, servers: &Servers, application: Application) -> Result<Vec<String>> {
        self.get(servers, &format!("{application:?}"), application).await
    }

    async fn get(&mut self, servers: &Servers, key: &str, application: Application) -> Result<Vec<String>> {
        if let Some(names) = self.made.get(key) {
            return Ok(names.clone());
        }
        let (mut names, mut urls) = (Vec::new(), Vec::new());
        for _ in application.databases() {
            let name = fresh_name("template");
            urls.push(servers.postgres.create_database(&name).await?);
            names.push(name);
        }
        let ground = servers.ground(&[]).await?;
        Product::lay_out(application, &urls, &ground.amqp)?.migrate().await?;
        servers.clear(ground).await?;
        self.made.insert(key.to_owned(), names.clone());
        Ok(names)
    }

    /// One that has seen a million messages.
    pub async fn stored(&mut self, servers: &Servers) -> Result<String> {
        let is_made = self.made.contains_key("stored");
        let names = self.get(servers, "stored", Application::Text).await?;
        let name = names.into_iter().next().context("an application without databases")?;
        if !is_made {
            let database = Database::connect(&servers.postgres.url(&name)).await?;
            let fill = FILL.replace("{STORED}", &STORED.to_string()).replace("{DESTINATION}", "rabbit/myQueue");
            database.batch(&fill).await?;
            database.batch("VACUUM (ANALYZE)").await?;
            drop(database);
        }
        Ok(name)
    }
}
