//! Facts about PostgreSQL, RabbitMQ and their clients that the protocol stands on (protocol §6 and §8). When an upgrade
//! changes one, the message says which promise it touches.

use std::process::Command;
use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use posthaste::dev::fresh_name;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::support::{SOON, Servers, eventually, run, same};

/// A fresh database, with as many sessions as are wanted.
struct Fresh {
    url: String,
}

impl Fresh {
    async fn new() -> Self {
        let url = Servers::shared().await.postgres.lock().await.create_database(&fresh_name("facts")).await.unwrap();
        let fresh = Self { url };
        fresh.session().await.batch_execute("CREATE TABLE t (id int PRIMARY KEY, state text)").await.unwrap();
        fresh
    }

    async fn session(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with its client")]
        tokio::spawn(connection);
        client
    }
}

fn code(result: Result<(), tokio_postgres::Error>) -> Option<SqlState> {
    result.err().and_then(|error| error.code().cloned())
}

#[test]
fn a_gid_that_is_free_again_may_be_taken_by_another_transaction() {
    run(async {
        let client = Fresh::new().await.session().await;
        for id in [1, 2] {
            let prepare = format!("BEGIN; INSERT INTO t VALUES ({id}); PREPARE TRANSACTION 'again'");
            client.batch_execute(&prepare).await.unwrap();
            client.batch_execute("COMMIT PREPARED 'again'").await.unwrap();
        }
        let rows = client.query("SELECT id FROM t", &[]).await.unwrap().len();
        assert_eq!(rows, 2, "if PostgreSQL remembered gids, gtrids need not be fresh per attempt (I6)");
    });
}

#[test]
fn one_statement_that_locks_and_reads_sees_what_was_before_the_lock() {
    run(async {
        let fresh = Fresh::new().await;
        let (fencer, one, two, snapshot) =
            (fresh.session().await, fresh.session().await, fresh.session().await, fresh.session().await);
        fencer.batch_execute("INSERT INTO t VALUES (1, 'LIVE')").await.unwrap();
        fencer.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(7)").await.unwrap();
        fencer.batch_execute("UPDATE t SET state = 'FENCED'").await.unwrap();
        let at_once = "SELECT state, pg_advisory_lock_shared(7) FROM t";
        let alone = "SELECT pg_advisory_xact_lock_shared(7)";
        two.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.unwrap();
        snapshot.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        let release = async {
            let waiting = async || {
                let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database =
                    (SELECT oid FROM pg_database WHERE datname = current_database())";
                same(fencer.query_one(waits, &[]).await.unwrap().get::<_, i64>(0), &3)
            };
            eventually("all three wait for the lock", SOON, waiting).await;
            fencer.batch_execute("COMMIT").await.unwrap();
        };
        let (stale, _, _, ()) =
            tokio::join!(one.query_one(at_once, &[]), two.batch_execute(alone), snapshot.batch_execute(alone), release);
        let state =
            async |client: &Client| -> String { client.query_one("SELECT state FROM t", &[]).await.unwrap().get(0) };
        let stale: String = stale.unwrap().get(0);
        assert_eq!(stale, "LIVE", "if one statement sufficed, the fence could be read with its lock (I6)");
        assert_eq!(state(&two).await, "FENCED", "the fence is read in a statement of its own, which must see it (I6)");
        assert_eq!(
            state(&snapshot).await,
            "LIVE",
            "REPEATABLE READ reads a stale fence: sessions must not use it (I6)"
        );
    });
}

#[test]
fn a_broken_transaction_answers_commit_and_prepare_as_if_all_were_well() {
    run(async {
        for word in ["COMMIT", "PREPARE TRANSACTION 'broken'"] {
            let client = Fresh::new().await.session().await;
            client.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
            client.batch_execute("SELECT 1 / 0").await.unwrap_err();
            let answer = client.batch_execute(word).await;
            assert!(answer.is_ok(), "if {word} failed here, the probe before it would not be needed (I1, I6)");
            assert!(client.query("SELECT id FROM t", &[]).await.unwrap().is_empty());
            let prepared = "SELECT gid FROM pg_prepared_xacts WHERE gid = 'broken'";
            assert!(client.query(prepared, &[]).await.unwrap().is_empty());
        }
    });
}

#[test]
fn what_cannot_be_prepared_is_refused_and_rolled_back() {
    run(async {
        for work in
            ["NOTIFY n", "LISTEN n", "CREATE TEMP TABLE temporary (id int)", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"]
        {
            let client = Fresh::new().await.session().await;
            client.batch_execute(&format!("BEGIN; INSERT INTO t VALUES (1); {work}")).await.unwrap();
            let refused = code(client.batch_execute("PREPARE TRANSACTION 'no'").await);
            assert_eq!(
                refused,
                Some(SqlState::FEATURE_NOT_SUPPORTED),
                "{work}: a step's failure is told by this code (I7)"
            );
            // The session is idle again, and nothing is left.
            assert!(client.query("SELECT id FROM t", &[]).await.unwrap().is_empty(), "{work}");
        }
    });
}

#[test]
fn a_prepared_transaction_is_finished_once_and_in_its_own_database_outside_a_block() {
    run(async {
        let (fresh, elsewhere) = (Fresh::new().await, Fresh::new().await);
        let client = fresh.session().await;
        client.batch_execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'once'").await.unwrap();
        let other = code(elsewhere.session().await.batch_execute("COMMIT PREPARED 'once'").await);
        assert_eq!(other, Some(SqlState::FEATURE_NOT_SUPPORTED), "recovery goes to each database (I6)");
        client.batch_execute("BEGIN").await.unwrap();
        let inside = code(client.batch_execute("COMMIT PREPARED 'once'").await);
        assert_eq!(inside, Some(SqlState::ACTIVE_SQL_TRANSACTION));
        client.batch_execute("ROLLBACK").await.unwrap();
        client.batch_execute("COMMIT PREPARED 'once'").await.unwrap();
        for word in ["COMMIT", "ROLLBACK"] {
            let twice = code(client.batch_execute(&format!("{word} PREPARED 'once'")).await);
            assert_eq!(twice, Some(SqlState::UNDEFINED_OBJECT), "recovery knows by this code that it is gone (I6)");
        }
    });
}

#[test]
fn a_database_remembers_by_its_xid_what_became_of_a_transaction_that_was_prepared() {
    run(async {
        let client = Fresh::new().await.session().await;
        let mut xids = Vec::new();
        for (id, word) in [(1, "COMMIT"), (2, "ROLLBACK")] {
            client.batch_execute(&format!("BEGIN; INSERT INTO t VALUES ({id})")).await.unwrap();
            let xid: String = client.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0);
            client.batch_execute(&format!("PREPARE TRANSACTION 'remembered{id}'")).await.unwrap();
            xids.push(xid);
            let status = status_of(&client, &xids[id - 1]).await.unwrap();
            assert_eq!(status, "in progress", "what is prepared is not taken for lost (I6)");
            client.batch_execute(&format!("{word} PREPARED 'remembered{id}'")).await.unwrap();
        }
        let why = "a decision is forgotten only when its branches are known to be committed (I6, MD9)";
        assert_eq!(status_of(&client, &xids[0]).await.unwrap(), "committed", "{why}");
        assert_eq!(status_of(&client, &xids[1]).await.unwrap(), "aborted", "{why}");
        let future = status_of(&client, "9000000000").await.unwrap_err();
        assert_eq!(future.code(), Some(&SqlState::INVALID_PARAMETER_VALUE), "an xid that a fail-over has lost (MD9)");
    });
}

async fn status_of(client: &Client, xid: &str) -> Result<String, tokio_postgres::Error> {
    Ok(client.query_one("SELECT pg_xact_status($1::text::xid8)", &[&xid]).await?.get(0))
}

#[test]
fn only_a_transaction_that_wrote_has_an_xid() {
    run(async {
        let client = Fresh::new().await.session().await;
        let wrote = async || -> bool {
            let sql = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
            client.query_one(sql, &[]).await.unwrap().get(0)
        };
        client.batch_execute("BEGIN; SELECT * FROM t; SET LOCAL lock_timeout = 1").await.unwrap();
        assert!(!wrote().await, "a read-only branch is committed without PREPARE (I6)");
        client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        assert!(wrote().await, "a branch that wrote must be prepared (I6)");
    });
}

#[test]
fn an_insert_waits_for_a_row_that_is_on_its_way_and_returns_nothing_for_one_that_won() {
    run(async {
        let fresh = Fresh::new().await;
        let (first, second) = (fresh.session().await, fresh.session().await);
        let insert = "INSERT INTO t VALUES (1) ON CONFLICT (id) DO NOTHING RETURNING id";
        first.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
        second.batch_execute("SET lock_timeout = '100ms'").await.unwrap();
        let waited = second.query(insert, &[]).await.unwrap_err();
        let why = "55P03 says nothing about what becomes of the other: never `none` (I2)";
        assert_eq!(waited.code(), Some(&SqlState::LOCK_NOT_AVAILABLE), "{why}");
        second.batch_execute("SET lock_timeout = 0").await.unwrap();
        let commit = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            first.batch_execute("COMMIT").await.unwrap();
        };
        let (returned, ()) = tokio::join!(second.query(insert, &[]), commit);
        assert!(returned.unwrap().is_empty(), "the winner of a conflict is read by a second statement (I4)");
    });
}

async fn channel() -> (Connection, Channel) {
    let url = Servers::shared().await.rabbit.lock().await.url("/");
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

async fn declare(channel: &Channel, kind: &str, more: &[(&str, i32)]) -> String {
    let name = fresh_name("facts");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    for (argument, value) in more {
        arguments.insert((*argument).into(), AMQPValue::LongInt(*value));
    }
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.as_str().into(), options, arguments).await.unwrap();
    name
}

async fn publish(channel: &Channel, queue: &str, id: &str) -> Confirmation {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(2).with_message_id(id.into());
    let confirm = channel.basic_publish("".into(), queue.into(), options, b"x", properties).await.unwrap();
    tokio::time::timeout(SOON, confirm).await.unwrap().unwrap()
}

#[test]
fn what_no_queue_takes_is_returned_and_confirmed_all_the_same() {
    run(async {
        let (_connection, channel) = channel().await;
        let confirmation = publish(&channel, "facts-no-such-queue", "lost").await;
        let Confirmation::Ack(Some(returned)) = confirmation else {
            panic!("{confirmation:?}: an unroutable message was told from a stored one by its return (I1)");
        };
        assert_eq!(returned.delivery.properties.message_id().as_ref().map(|id| id.as_str()), Some("lost"));
    });
}

#[test]
fn quorum_and_classic_queues_confirm_a_persistent_message() {
    run(async {
        let (_connection, channel) = channel().await;
        for kind in ["quorum", "classic"] {
            let queue = declare(&channel, kind, &[]).await;
            let confirmation = publish(&channel, &queue, "kept").await;
            assert!(
                matches!(confirmation, Confirmation::Ack(None)),
                "{kind}: {confirmation:?}: a confirm ends a hand-over (I1)"
            );
        }
    });
}

#[test]
fn a_message_that_is_handed_back_comes_again_and_is_marked() {
    run(async {
        let (_connection, channel) = channel().await;
        let queue = declare(&channel, "quorum", &[]).await;
        publish(&channel, &queue, "again").await;
        let first = take(&channel, &queue).await.unwrap();
        assert!(!first.redelivered, "a first delivery skips the counted start (I7)");
        first.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await.unwrap();
        let second = take(&channel, &queue).await.unwrap();
        assert!(second.redelivered, "a redelivery is a suspect, and its start is counted (I7)");
        second.ack(BasicAckOptions::default()).await.unwrap();
    });
}

#[test]
fn a_delivery_limit_of_minus_one_below_version_4_destroys_what_is_handed_back() {
    run(async {
        let (_connection, channel) = channel().await;
        let queue = declare(&channel, "quorum", &[("x-delivery-limit", -1)]).await;
        publish(&channel, &queue, "once").await;
        let first = take(&channel, &queue).await.unwrap();
        first.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await.unwrap();
        let came_again = take(&channel, &queue).await.is_some();
        let four = server_version().starts_with('4');
        assert_eq!(came_again, four, "x-delivery-limit = -1 is sent to brokers from 4.0 on only (I1)");
    });
}

/// As the program on this machine tells it.
fn server_version() -> String {
    let told = Command::new("dpkg-query").args(["-W", "-f=${Version}", "rabbitmq-server"]).output().unwrap();
    String::from_utf8(told.stdout).unwrap()
}

/// The next message within a moment, if one comes.
async fn take(channel: &Channel, queue: &str) -> Option<lapin::message::Delivery> {
    for _try in 0..20 {
        let got = channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap();
        if let Some(message) = got {
            return Some(message.delivery);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}
