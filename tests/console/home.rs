//! A home database of its own and a console that listens on a port of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use posthaste::console::{ClaimedSlot, Console, ConsoleSettings, Readiness, SlotPurpose, router};
use posthaste::dev::{Options, PrivatePostgres, fresh_name};
use posthaste::inbound::server::{ServerSettings, bind, routed, serve};
use posthaste::lifecycle::{Lifecycle, NeededFor, Task};
use posthaste::model::{AdapterName, Destination, Incarnation, SlotId, TransactionAttribute};
use posthaste::pipeline::{
    AdapterRegistry, AdapterSettings, Announced, Input, Param, Pipelines, QuerySettings, StepKind, StepSettings,
};
use posthaste::receiver::{InAdvance, Processor, ReceiverSettings, Resender};
use posthaste::relay::{Relay, RelaySettings, Room};
use posthaste::store::migrate::migrate;
use posthaste::store::{PostgresSettings, SessionTimeouts, Store};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// The server that all tests of this binary share. It ends with the process.
async fn server() -> &'static PrivatePostgres {
    static SHARED: OnceCell<PrivatePostgres> = OnceCell::const_new();
    SHARED.get_or_init(async || PrivatePostgres::start(&Options::default()).await.unwrap()).await
}

/// A migrated home, without broker, and a running console.
pub struct Home {
    pub store: Store,
    pub sql: tokio_postgres::Client,
    pub http: Client,
    pub address: SocketAddr,
    pub readiness: Arc<Mutex<Readiness>>,
    pub registry: AdapterRegistry,
    /// What is processed, and the answers, take room here.
    pub room: Room,
    pub answers: Room,
    tasks: Lifecycle,
}

impl Home {
    pub async fn start() -> Self {
        let tasks = Lifecycle::default();
        let url = server().await.create_database(&fresh_name("console")).await.unwrap();
        let settings = PostgresSettings {
            name: "main".to_owned(),
            url: url.clone().into(),
            username: None,
            password: None,
            role: None,
            pool_max_size: 4,
            branches: 0,
        };
        migrate(&settings, true, &[], &mut Vec::new()).await.unwrap();
        let (sql, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        drop(tasks.tasks.spawn(connection));
        sql.batch_execute("CREATE TABLE public.message (message varchar(30))").await.unwrap();

        let store = Store::new(
            std::slice::from_ref(&settings),
            &settings.name,
            Incarnation::mint(),
            SessionTimeouts::default(),
        )
        .unwrap();
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = AdapterRegistry::new(adapters(), Timestamp::now());
        let readiness = Arc::new(Mutex::new(Readiness { accepting: true, processing: true, reasons: Vec::new() }));
        let shown = Arc::clone(&readiness);
        let (room, answers) = (Room::default(), Room::default());
        let console = Console {
            store: store.clone(),
            registry: registry.clone(),
            resender: resender(&store, &registry, &tasks),
            room: room.clone(),
            answers: answers.clone(),
            settings: ConsoleSettings { listen: address, hosts: Vec::new(), unauthenticated: false },
            slots: slots(),
            readiness: Arc::new(move || shown.lock().unwrap().clone()),
            metrics: Arc::new(|| "posthaste_up 1\n".to_owned()),
        };
        let bound = Duration::from_secs(10);
        let limits = ServerSettings {
            header_timeout: bound,
            progress_timeout: bound,
            max_connections: 64,
            max_connections_per_address: None,
        };
        let router = router(console, address);
        let (task, answer) = (Task::new("console", NeededFor::Neither), move |request| routed(router.clone(), request));
        drop(tasks.tasks.spawn(serve(task, listener, answer, limits, tasks.clone())));
        let http = Client::builder().no_proxy().build().unwrap();
        Self { store, sql, http, address, readiness, registry, room, answers, tasks }
    }

    /// Ends everything; the database goes with its server.
    pub async fn end(self) {
        drop(self.http);
        self.tasks.hard.cancel();
        self.store.house.close();
        self.store.accept.close();
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

/// `writeDb` inserts the payload into a column of 30 characters.
fn resender(store: &Store, registry: &AdapterRegistry, tasks: &Lifecycle) -> Resender {
    let name = AdapterName::new("writeDb");
    let query = QuerySettings {
        database: "main".to_owned(),
        sql: "INSERT INTO message (message) VALUES ($1)".to_owned(),
        params: vec![Param::Payload],
    };
    let adapter = AdapterSettings {
        name: name.clone(),
        configuration: "write-db".to_owned(),
        description: None,
        transaction_attribute: TransactionAttribute::Required,
        steps: vec![StepSettings { name: "insert".to_owned(), input: Input::Payload, kind: StepKind::Query(query) }],
    };
    let receiver = ReceiverSettings {
        adapter: name,
        connection: "rabbit".to_owned(),
        queue: "q".to_owned(),
        destination: Destination::queue("rabbit", "q"),
        transaction_attribute: TransactionAttribute::Required,
        transaction_timeout: Duration::from_secs(5),
        max_retries: 0,
        retry_delays: vec![Duration::from_secs(1)],
        retry_permanent_errors: true,
        num_threads: 1,
        group_size: 64,
        databases: vec!["main".to_owned()],
        error_slot: SlotId::new("write-db"),
    };
    let second = Duration::from_secs(1);
    let settings = RelaySettings { destinations: Vec::new(), watch: second, lease: second, host: "here".to_owned() };
    let processor = Processor {
        store: store.clone(),
        relay: Relay::start(store.clone(), Vec::new(), settings, tasks),
        registry: registry.clone(),
        pipelines: Pipelines::new(&[adapter]),
        host: "here".into(),
        pace: Arc::default(),
        troubles: Arc::default(),
        outcomes: Arc::default(),
        in_advance: InAdvance::default(),
    };
    Resender::new(processor, vec![receiver])
}

fn slots() -> Arc<[ClaimedSlot]> {
    let one = |slot: &str, purpose, adapter: &str| ClaimedSlot {
        slot_id: SlotId::new(slot),
        purpose,
        adapter: AdapterName::new(adapter),
    };
    Arc::new([one("write-db-req", SlotPurpose::Log, "writeDbAsync"), one("write-db", SlotPurpose::Errors, "writeDb")])
}
