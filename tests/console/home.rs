//! A home database of its own and a console that listens on a port of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use posthaste::console::{ClaimedSlot, Console, ConsoleSettings, Readiness, SlotPurpose, router};
use posthaste::lifecycle::Lifecycle;
use posthaste::model::{AdapterName, Incarnation, SlotId};
use posthaste::pipeline::{AdapterRegistry, Announced};
use posthaste::receiver::Resender;
use posthaste::store::{PostgresSettings, SessionTimeouts, Store};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// Where the trial server is; `POSTHASTE_TEST_POSTGRES` says otherwise.
fn server() -> String {
    std::env::var("POSTHASTE_TEST_POSTGRES").unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432".to_owned())
}

async fn connect(tasks: &Lifecycle, url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    drop(tasks.tasks.spawn(connection));
    client
}

/// A migrated home and a running console. Its database goes with it.
pub struct Home {
    pub store: Store,
    pub sql: tokio_postgres::Client,
    pub http: Client,
    pub address: SocketAddr,
    pub readiness: Arc<Mutex<Readiness>>,
    pub registry: AdapterRegistry,
    name: String,
    tasks: Lifecycle,
}

impl Home {
    pub async fn start() -> Self {
        let tasks = Lifecycle::default();
        let name = format!("console_{}", Uuid::new_v4().simple());
        let admin = connect(&tasks, &format!("{}/postgres", server())).await;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let url = format!("{}/{name}", server());
        let sql = connect(&tasks, &url).await;
        sql.batch_execute("CREATE SCHEMA posthaste").await.unwrap();
        sql.batch_execute(include_str!("../../migrations/V1__engine.sql")).await.unwrap();

        let settings = PostgresSettings {
            name: "main".to_owned(),
            url: url.into(),
            username: None,
            password: None,
            pool_max_size: 4,
        };
        let store = Store::new(&settings, Incarnation::mint(), SessionTimeouts::default()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = AdapterRegistry::new(adapters(), Timestamp::now());
        let readiness = Arc::new(Mutex::new(Readiness { accepting: true, processing: true, reasons: Vec::new() }));
        let shown = Arc::clone(&readiness);
        let console = Console {
            store: store.clone(),
            registry: registry.clone(),
            resender: Resender::new(store.clone()),
            settings: ConsoleSettings { listen: address, unauthenticated: false },
            slots: slots(),
            readiness: Arc::new(move || shown.lock().unwrap().clone()),
            metrics: Arc::new(|| "posthaste_up 1\n".to_owned()),
        };
        let app = router(console, address);
        drop(tasks.tasks.spawn(async move { axum::serve(listener, app).await }));
        let http = Client::builder().no_proxy().build().unwrap();
        Self { store, sql, http, address, readiness, registry, name, tasks }
    }

    /// Ends everything and drops the database.
    pub async fn end(self) {
        self.store.house.close();
        self.store.accept.close();
        let admin = connect(&self.tasks, &format!("{}/postgres", server())).await;
        admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await.unwrap();
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    pub async fn get(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::of(self.request(Method::POST, path).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::DELETE, path)).await
    }

    pub async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> T {
        self.sql.query_one(sql, params).await.unwrap().get(0)
    }

    /// A stored row; answers its key and its root.
    pub async fn stored(&self, slot: &str, kind: &str, message_id: &str, body: &[u8]) -> (i64, Uuid) {
        let root = Uuid::now_v7();
        let key = self.stored_of(slot, kind, message_id, body, root).await;
        (key, root)
    }

    pub async fn stored_of(&self, slot: &str, kind: &str, message_id: &str, body: &[u8], root: Uuid) -> i64 {
        let sql = "INSERT INTO ibisstore
            (type, slotid, messageid, correlationid, message, tx_id, root_id, sha256, comments, expirydate)
            VALUES ($1::text::char(1), $2, $3::text, $3::text, $4, $5, $5, sha256($4), 'because of ' || $3::text,
                    CASE WHEN $1::text = 'A' THEN clock_timestamp() + interval '30 days' END) RETURNING messagekey";
        self.one(sql, &[&kind, &slot, &message_id, &body, &root]).await
    }

    pub async fn journal(&self, tx_id: Uuid, root: Uuid, mode: &str, state: &str, attempts: i32) {
        let sql = "INSERT INTO posthaste.journal
            (tx_id, root_id, sha256, mode, destination, max_attempts, state, attempts, finished_at)
            VALUES ($1, $2, '', $3, 'rabbit/q', 6, $4::text, $5, CASE WHEN $4::text = 'DONE' THEN clock_timestamp() END)";
        self.sql.execute(sql, &[&tx_id, &root, &mode, &state, &attempts]).await.unwrap();
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    #[track_caller]
    pub fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        let body = self.json(status);
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!((&body["type"], &body["status"]), (&"about:blank".into(), &status.into()), "{body}");
        assert!(body["title"].is_string() && !body["detail"].as_str().unwrap().is_empty(), "{body}");
        body
    }

    #[track_caller]
    pub fn items(&self) -> Vec<Value> {
        self.json(200)["items"].as_array().unwrap().clone()
    }
}

fn adapters() -> Vec<Announced> {
    let one = |name: &str, listener: Option<&str>, supervised| Announced {
        name: AdapterName::new(name),
        configuration: "write-db".to_owned(),
        description: None,
        listener: listener.map(ToOwned::to_owned),
        supervised,
    };
    vec![
        one("writeDbAsync", Some("POST /api/write"), false),
        one("writeDb", Some("rabbit/myQueue"), true),
        one("writeTableMessage", None, false),
    ]
}

fn slots() -> Arc<[ClaimedSlot]> {
    let one = |slot: &str, purpose, adapter: &str| ClaimedSlot {
        slot_id: SlotId::new(slot),
        purpose,
        adapter: AdapterName::new(adapter),
    };
    Arc::new([one("write-db-req", SlotPurpose::Log, "writeDbAsync"), one("write-db", SlotPurpose::Errors, "writeDb")])
}
