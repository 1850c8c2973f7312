//! An installation of one case: three databases and a virtual host of its own, on servers that all cases share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use posthaste::dev::{PrivatePostgres, PrivateRabbit, fresh_name, start_both};
use posthaste::store::{HomeDecision, PostgresSettings, settle_home};
use tokio::sync::Mutex;

use crate::instance::{Fault, Instance};
use crate::support::{Database, TcpRelay};

/// The `postgres` entries; the first is the home.
pub const DATABASES: [&str; 3] = ["main", "a", "b"];
/// The queues, and the adapters that read them.
pub const QUEUES: [&str; 2] = ["one", "three"];

/// What all cases share.
pub struct Ground {
    pub postgres: Mutex<PrivatePostgres>,
    rabbit: Mutex<PrivateRabbit>,
    /// Three migrated databases, from which each case's are copied.
    template: String,
    copying: Mutex<()>,
}

pub struct Site {
    pub case: String,
    pub ground: Arc<Ground>,
    /// As in `DATABASES`.
    pub databases: [Database; 3],
    pub amqp_url: String,
    /// In front of the servers, for the instance that is armed.
    pub postgres_relay: TcpRelay,
    pub amqp_relay: TcpRelay,
    name: String,
    ports: (u16, u16),
}

fn part(name: &str, database: &str) -> String {
    format!("{name}_{database}")
}

impl Ground {
    pub async fn prepare() -> Arc<Self> {
        let (postgres, rabbit) = start_both(&posthaste::dev::Options::default()).await.unwrap();
        let template = fresh_name("template");
        let mut urls = Vec::new();
        for database in DATABASES {
            urls.push(postgres.create_database(&part(&template, database)).await.unwrap());
        }
        let amqp = rabbit.create_vhost(&template).await.unwrap();
        let installer = Instance::lay_out("template", &resources(&urls, &amqp), None);
        let migrated = installer.command(&["migrate"]).await;
        assert!(migrated.status.success(), "{migrated:?}");
        // It would go round in the databases of all cases.
        let server = Database::new(postgres.url("postgres").parse().unwrap());
        server.rows("ALTER SYSTEM SET autovacuum = off", &[]).await;
        server.rows("SELECT pg_reload_conf()", &[]).await;
        Arc::new(Self {
            postgres: Mutex::new(postgres),
            rabbit: Mutex::new(rabbit),
            template,
            copying: Mutex::default(),
        })
    }

    async fn maintenance(&self) -> Database {
        Database::new(self.postgres.lock().await.url("postgres").parse().unwrap())
    }

    async fn copy(&self, name: &str) {
        let _alone = self.copying.lock().await;
        let maintenance = self.maintenance().await;
        for database in DATABASES {
            let (from, to) = (part(&self.template, database), part(name, database));
            maintenance.rows(&format!(r#"CREATE DATABASE "{to}" TEMPLATE "{from}""#), &[]).await;
        }
    }
}

impl Site {
    pub async fn lay_out(ground: Arc<Ground>, case: String) -> Self {
        let name = fresh_name("matrix");
        ground.copy(&name).await;
        let (ports, amqp_url, urls) = {
            let (postgres, rabbit) = (ground.postgres.lock().await, ground.rabbit.lock().await);
            let urls = DATABASES.map(|database| postgres.url(&part(&name, database)));
            ((postgres.port(), rabbit.port()), rabbit.create_vhost(&name).await.unwrap(), urls)
        };
        let databases = urls.each_ref().map(|url| Database::new(url.parse().unwrap()));
        let settings = PostgresSettings {
            name: DATABASES[0].to_owned(),
            url: urls[0].clone().into(),
            username: None,
            password: None,
            role: None,
            pool_max_size: 1,
            branches: 0,
        };
        settle_home(&settings, HomeDecision::Copy, 0, "tests").await.unwrap();
        let (postgres_relay, amqp_relay) = (relay_to(ports.0).await, relay_to(ports.1).await);
        Self { case, ground, databases, amqp_url, postgres_relay, amqp_relay, name, ports }
    }

    pub fn home(&self) -> &Database {
        &self.databases[0]
    }

    /// An instance that reaches the servers through the relays; not running.
    pub async fn armed(&self, fault: Fault) -> Instance {
        let (postgres, amqp) = self.urls().await;
        let through = |url: &str, port: u16, relay: &TcpRelay| {
            url.replace(&format!("127.0.0.1:{port}"), &relay.addr().to_string())
        };
        let postgres: Vec<String> =
            postgres.iter().map(|url| through(url, self.ports.0, &self.postgres_relay)).collect();
        let amqp = through(&amqp, self.ports.1, &self.amqp_relay);
        Instance::lay_out(&self.case, &resources(&postgres, &amqp), Some(fault))
    }

    /// An instance like any other; not running.
    pub async fn healthy(&self) -> Instance {
        let (postgres, amqp) = self.urls().await;
        Instance::lay_out(&self.case, &resources(&postgres, &amqp), None)
    }

    async fn urls(&self) -> (Vec<String>, String) {
        let postgres = self.ground.postgres.lock().await;
        (DATABASES.map(|database| postgres.url(&part(&self.name, database))).to_vec(), self.amqp_url.clone())
    }

    /// Nobody gets into this database any more, and who is in it is thrown out: what is prepared stays.
    pub async fn close(&self, database: &str) {
        let maintenance = self.ground.maintenance().await;
        let name = part(&self.name, database);
        maintenance.rows(&format!(r#"ALTER DATABASE "{name}" ALLOW_CONNECTIONS false"#), &[]).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        maintenance.rows(end, &[&name]).await;
    }

    /// Its queues cost the broker something, however quiet they are.
    pub async fn leave(self) {
        let remove = format!("rabbit_vhost:delete(<<\"{}\">>, <<\"tests\">>)", self.name);
        self.ground.rabbit.lock().await.eval(&remove).await.unwrap();
    }

    /// Deliveries that no consumer has settled, of each queue, as the queues' own processes know it.
    pub async fn unsettled(&self) -> String {
        let held = format!(
            "[element(2, element(2, ra:leader_query(amqqueue:get_pid(Q), fun rabbit_fifo:query_messages_checked_out/1))) \
             || Q <- rabbit_amqqueue:list(<<\"{}\">>)]",
            self.name
        );
        self.ground.rabbit.lock().await.eval(&held).await.unwrap()
    }

    pub async fn open(&self, database: &str) {
        let name = part(&self.name, database);
        let open = format!(r#"ALTER DATABASE "{name}" ALLOW_CONNECTIONS true"#);
        self.ground.maintenance().await.rows(&open, &[]).await;
    }
}

async fn relay_to(port: u16) -> TcpRelay {
    TcpRelay::start(([127, 0, 0, 1], port).into()).await
}

/// Where the configuration of these tests is.
pub fn configuration() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash_matrix/configuration")
}

fn resources(postgres: &[String], amqp: &str) -> String {
    let entries: String = DATABASES
        .iter()
        .zip(postgres)
        .map(|(name, url)| format!("  - {{ name: {name}, url: '{url}', poolMaxSize: 8 }}\n"))
        .collect();
    let queues: String =
        QUEUES.iter().map(|queue| format!("      - {{ name: {queue}, retryDelays: [50ms] }}\n")).collect();
    format!(
        "instance: {{ name: matrix, home: main, lease: 3s, stopTimeout: 20s }}
postgres:
{entries}amqp:
  - name: rabbit
    url: '{amqp}'
    createDestination: true
    queues:
{queues}"
    )
}
