//! A real home, and the way of a model's row into it and back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use posthaste::dev::fresh_name;
use posthaste::model::{Destination, Envelope, Incarnation, JournalState, MessageId, Mode, SlotId, TxId};
use posthaste::store::migrate::migrate;
use posthaste::store::{AcceptRequest, LogEntry, Outgoing, PostgresSettings, SessionTimeouts, Store};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::postgres::{Age, Database, Instance, Key, Queue, Row, fresh};
use crate::support::{Database as Looker, Servers};

/// How long an attempt may take.
pub const WATCH: Duration = Duration::from_secs(60);
/// The instances that all cases know: this one, another that lives, and one that is fenced.
pub const ME: Instance = 0;
pub const OTHER: Instance = 1;
pub const GONE: Instance = 2;
/// Told to stop, and gone.
pub const STOPPED: Instance = 3;
/// `messagekey` of the log row, and of the place to return to, of the case with this index.
const LOGGED: i64 = 1_000_000;
const RETURNS: i64 = 2_000_000;

pub struct Bench {
    pub store: Store,
    pub db: Looker,
    pub client: Client,
    pub url: String,
    placed: AtomicI64,
}

/// A row of the model, and its id in the database.
pub struct Placed {
    pub tx: TxId,
    pub index: i64,
    pub model: Database,
}

impl Bench {
    pub async fn new() -> Self {
        let url = Servers::shared().await.postgres.lock().await.create_database(&fresh_name("contract")).await.unwrap();
        let settings = PostgresSettings {
            name: "main".to_owned(),
            url: url.clone().into(),
            username: None,
            password: None,
            role: None,
            pool_max_size: 6,
            branches: 0,
        };
        migrate(&settings, true, &[], &mut Vec::new()).await.unwrap();
        let homes = std::slice::from_ref(&settings);
        let store = Store::new(homes, &settings.name, incarnation(ME), SessionTimeouts::default()).unwrap();
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
        tokio::spawn(connection);
        for (instance, state) in [(ME, "LIVE"), (OTHER, "LIVE"), (GONE, "FENCED"), (STOPPED, "FENCED")] {
            let sql =
                "INSERT INTO posthaste.instance (incarnation, name, host, pid, configuration_hash, state, stopping_at)
                       VALUES ($1, '', '', 1, '', $2, $3)";
            let stopping_at = (instance == STOPPED).then(jiff::Timestamp::now);
            client.execute(sql, &[&incarnation(instance).0, &state, &stopping_at]).await.unwrap();
        }
        Self { store, db: Looker::new(url.parse().unwrap()), client, url, placed: AtomicI64::new(0) }
    }

    /// Puts rows into the journal, all at once. Of the open ones a third stands in `due`, a third is named in `unsettled`, and a
    /// third both: whatever a statement does to a row, it may not take the one finder away that there is.
    pub async fn place(&self, rows: Vec<Row>) -> Vec<Placed> {
        let mut placed = Vec::new();
        self.client.batch_execute("BEGIN").await.unwrap();
        for mut row in rows {
            let index = self.placed.fetch_add(1, Ordering::Relaxed);
            let age = if row.past_keep { 8 * 86_400 } else { 0 };
            let tx = TxId::mint_at(jiff::Timestamp::now().as_microsecond() - age * 1_000_000);
            (row.named, row.in_due) = (row.open() && index % 3 != 0, row.open() && index % 3 != 1);
            self.insert(&row, tx, index).await;
            let (live, stopping) = (vec![true, true, false, false], vec![STOPPED]);
            let mut model = Database { live, stopping, next_key: 100, ..Database::default() };
            if row.log_key == Some(1) {
                model.keep_at(1, posthaste::model::StoreType::Log, &row);
            }
            model.journal.push(row);
            placed.push(Placed { tx, index, model });
        }
        self.client.batch_execute("COMMIT").await.unwrap();
        placed
    }

    async fn insert(&self, row: &Row, tx: TxId, index: i64) {
        let log_key = row.log_key.map(|key| LOGGED + index + if key == 1 { 0 } else { 500_000 });
        let sql =
            "INSERT INTO posthaste.journal (tx_id, root_id, sha256, mode, destination, state, attempts, max_attempts,
                publishes, owner, running_by, log_key, not_before, publish_after, published_at, started_at, finished_at)
            VALUES ($1, $1, $2, $3, $4, $5, $6::int8, $7::int8, $8::int8, $9, $10, $11,
                CASE WHEN NOT $12::boolean THEN clock_timestamp() + interval '1 hour'
                     WHEN $6 % 2 = 1 THEN clock_timestamp() END,
                CASE WHEN NOT $13::boolean THEN clock_timestamp() + interval '1 hour' END,
                clock_timestamp() - $14::int8 * interval '1 hour', clock_timestamp() - $15::int8 * interval '1 hour',
                clock_timestamp() - $16::int8 * interval '1 day')";
        let number = |n: u8| i64::from(n);
        let published = match row.published {
            Age::Never => None,
            Age::Fresh => Some(0_i64),
            Age::Old => Some(48),
        };
        let started = row.running_by.map(|_| i64::from(row.overdue));
        let finished = (!row.open()).then_some(if row.past_keep { 8_i64 } else { 0 });
        let instance = |one: Option<Instance>| one.map(|one| incarnation(one).0);
        let queue = destination(row.queue);
        let params: &[&(dyn tokio_postgres::types::ToSql + Sync)] = &[
            &tx.0,
            &vec![row.body],
            &row.mode.as_str(),
            &queue.as_str(),
            &row.state.as_str(),
            &number(row.attempts),
            &number(row.max_attempts),
            &number(row.publishes),
            &instance(row.owner),
            &instance(row.running_by),
            &log_key,
            &row.due,
            &row.publish_due,
            &published,
            &started,
            &finished,
        ];
        self.client.execute(sql, params).await.unwrap_or_else(|error| panic!("{row:?}: {error:?}"));
        for (there, sql) in [
            (row.named, "INSERT INTO posthaste.unsettled (tx_id) VALUES ($1)"),
            (row.in_due, "INSERT INTO posthaste.due (tx_id, at) VALUES ($1, clock_timestamp() + interval '1 hour')"),
        ] {
            if there {
                self.client.execute(sql, &[&tx.0]).await.unwrap();
            }
        }
        if row.log_key == Some(1) {
            let sql = "INSERT INTO ibisstore (messagekey, type, slotid, messageid, message, tx_id, root_id, sha256)
                       VALUES ($1, 'A', 'log', 'm', 'body', $2, $2, $3)";
            self.client.execute(sql, &[&log_key, &tx.0, &vec![row.body]]).await.unwrap();
        } else if row.log_key.is_none() {
            let key = row.return_to.map(|_| RETURNS + index);
            let sql = "INSERT INTO posthaste.payload (tx_id, message_id, message, messagekey, messagedate)
                       VALUES ($1, 'm', 'body', $2, clock_timestamp())";
            self.client.execute(sql, &[&tx.0, &key]).await.unwrap();
        }
    }

    /// Open rows that neither `unsettled` nor `due` names (I9).
    pub async fn unwatched(&self) -> i64 {
        let sql = "SELECT count(*) FROM posthaste.journal WHERE state IN ('READY', 'PUBLISHED')
                     AND tx_id NOT IN (SELECT tx_id FROM posthaste.due)
                     AND tx_id NOT IN (SELECT unnest(tx_id || others) FROM posthaste.unsettled)";
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// The row as it stands now; what says nothing any more is left out as the model leaves it.
    pub async fn read(&self, tx: TxId, like: &Row) -> Option<Row> {
        let sql = "SELECT mode, destination, state, attempts, max_attempts, publishes, owner, running_by, sha256,
                not_before IS NULL OR not_before <= clock_timestamp() AS due,
                publish_after IS NULL OR publish_after <= clock_timestamp() AS publish_due,
                published_at < clock_timestamp() - interval '24 hours' AS published_long_ago,
                coalesce(started_at < clock_timestamp() - interval '60 seconds', false) AS overdue,
                EXISTS (SELECT FROM posthaste.unsettled u WHERE j.tx_id = ANY (u.tx_id || u.others)) AS named,
                EXISTS (SELECT FROM posthaste.due d WHERE d.tx_id = j.tx_id) AS in_due
            FROM posthaste.journal j WHERE tx_id = $1";
        let row = self.client.query_opt(sql, &[&tx.0]).await.unwrap()?;
        let number = |column| u8::try_from(row.get::<_, i32>(column)).unwrap();
        let instance = |column| row.get::<_, Option<Uuid>>(column).map(|uuid| instance_of(Incarnation(uuid)));
        Some(settled(Row {
            mode: Mode::from_text(row.get("mode")).unwrap(),
            queue: u8::from(row.get::<_, &str>("destination") == destination(1).as_str()),
            state: JournalState::from_text(row.get("state")).unwrap(),
            attempts: number("attempts"),
            max_attempts: number("max_attempts"),
            publishes: number("publishes"),
            owner: instance("owner"),
            running_by: instance("running_by"),
            body: row.get::<_, Vec<u8>>("sha256")[0],
            due: row.get("due"),
            publish_due: row.get("publish_due"),
            published: match row.get::<_, Option<bool>>("published_long_ago") {
                None => Age::Never,
                Some(false) => Age::Fresh,
                Some(true) => Age::Old,
            },
            overdue: row.get("overdue"),
            named: row.get("named"),
            in_due: row.get("in_due"),
            ..like.clone()
        }))
    }

    /// What each real row has become must be what its model has become.
    pub async fn compare(&self, statement: &str, placed: &[Placed]) {
        for one in placed {
            let wanted = one.model.journal[0].clone();
            let found = self.read(one.tx, &wanted).await;
            assert_eq!(found, Some(settled(wanted)), "{statement} leaves another row (left: real)");
        }
        assert_eq!(self.unwatched().await, 0, "{statement} leaves open rows that nobody finds");
    }

    /// The error row of a case: `Some(true)` where it was told to return to.
    pub async fn error_row(&self, placed: &Placed) -> Option<bool> {
        let sql = "SELECT messagekey FROM ibisstore WHERE type = 'E' AND tx_id = $1";
        let keys = self.client.query(sql, &[&placed.tx.0]).await.unwrap();
        assert!(keys.len() < 2, "{} rows in the error store", keys.len());
        keys.first().map(|row| row.get::<_, i64>(0) == RETURNS + placed.index)
    }
}

/// A runner that is gone has no time any more.
fn settled(row: Row) -> Row {
    Row { overdue: row.overdue && row.running_by.is_some(), held_by: None, ..row }
}

pub fn incarnation(instance: Instance) -> Incarnation {
    Incarnation(Uuid::from_u128(u128::from(instance) + 1))
}

fn instance_of(incarnation: Incarnation) -> Instance {
    u8::try_from(incarnation.0.as_u128() - 1).unwrap()
}

pub fn destination(queue: Queue) -> Destination {
    Destination::queue("rabbit", if queue == 0 { "mine" } else { "other" })
}

pub fn envelope(tx_id: TxId, message_id: &str) -> Envelope {
    let message_id = MessageId::parse(message_id).unwrap();
    Envelope {
        tx_id,
        root_id: tx_id.into(),
        correlation_id: message_id.clone(),
        message_id,
        content_type: None,
        headers: [].into(),
        body: "body".into(),
    }
}

/// What the model knows as `Acceptance { body: 5, .. }`: it calls a body by its first byte.
pub fn request(tx_id: TxId, message_id: &str) -> AcceptRequest {
    let envelope = envelope(tx_id, message_id);
    let dedup_key = Some(envelope.message_id.clone());
    let log = LogEntry { slot_id: SlotId::new("log"), retention: Duration::from_secs(86_400), dedup_key };
    let outgoing = vec![Outgoing { tx_id, destination: destination(0), mode: Mode::Own, max_attempts: 2 }];
    AcceptRequest { envelope, sha256: [5; 32], host: "here".into(), log: Some(log), outgoing }
}

/// Every state of a row that decisions tell apart.
pub fn every_row() -> Vec<Row> {
    let others = [(Some(OTHER), false), (Some(OTHER), true), (Some(GONE), false)];
    let stopped = [(Some(STOPPED), false), (Some(STOPPED), true)];
    let runners = [&[(None, false), (Some(ME), false)][..], &others, &stopped].concat();
    let bodies: [(Option<Key>, Option<Key>); 2] = [(Some(1), None), (None, Some(9))];
    let mut rows = Vec::new();
    for state in JournalState::ALL {
        for attempts in 0..=2 {
            for due in [true, false] {
                for (running_by, overdue) in runners.iter().copied() {
                    let (log_key, return_to) = bodies[rows.len() % 2];
                    let owner = [None, Some(OTHER), Some(GONE)][rows.len() % 3];
                    let published = if *state == JournalState::Published { Age::Old } else { Age::Never };
                    let publish_due = rows.len() % 4 < 2;
                    rows.push(Row {
                        state: *state,
                        attempts,
                        due,
                        running_by,
                        overdue,
                        log_key,
                        return_to,
                        owner,
                        published,
                        publish_due,
                        ..fresh(0, 5, Mode::Own, 0, 2)
                    });
                }
            }
        }
    }
    rows
}
