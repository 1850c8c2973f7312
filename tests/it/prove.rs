//! `posthaste prove`: balanced after a real run, and exactly the planted fault otherwise (B2).

use lapin::BasicProperties;
use reqwest::Method;
use serde_json::{Value, json};

use crate::retry::STOPPED;
use crate::support::{Amqp, App, LONG, Options, SOON, Servers, client, eventually, run};

impl App {
    /// What `prove --output json` says, and its exit status.
    fn prove(&self) -> (i32, Value) {
        self.prove_with(&[])
    }

    fn prove_with(&self, options: &[&str]) -> (i32, Value) {
        let output = self.command(&[&["prove", "--output", "json"], options].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let value = serde_json::from_slice(&output.stdout);
        (output.status.code().unwrap(), value.unwrap_or_else(|error| panic!("{error}: {output:?}: {said}")))
    }

    #[track_caller]
    pub fn everything_is_accounted_for(&self) -> Value {
        let (status, proof) = self.prove();
        assert_eq!((status, &proof["accountedFor"]), (0, &Value::Bool(true)), "{proof:#}");
        assert_eq!(proof["violations"], json!([]));
        proof
    }

    /// Runs a statement that plants a fault, and answers the violations that follow: rule and named message ids.
    async fn planted(&self, sql: &str) -> Vec<(String, Vec<String>)> {
        self.db.rows(sql, &[]).await;
        let (status, proof) = self.prove();
        assert_eq!(status, 1, "{sql}: {proof:#}");
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let violations = proof["violations"].as_array().unwrap().iter();
        violations
            .map(|violation| {
                let ids = violation["ids"].as_array().unwrap().iter().map(|id| text(&id["messageId"])).collect();
                (text(&violation["rule"]), ids)
            })
            .collect()
    }

    async fn act_on(&self, method: Method, key: i64, act: &str) -> client::Reply {
        let path = format!("/api/v1/stores/write-db/messages/{key}{act}");
        client::send(client::request(&self.http, method, self.console, &path).json(&json!({"reason": "a test"}))).await
    }
}

/// The columns of one line of the balance that are not zero.
fn line(proof: &Value, slot: &str) -> Vec<(String, i64)> {
    let lines = proof["balance"].as_array().unwrap();
    let line = lines.iter().find(|line| line["slot"] == slot).unwrap_or_else(|| panic!("no {slot} in {proof:#}"));
    let counts = line.as_object().unwrap().iter().filter_map(|(name, value)| Some((name.clone(), value.as_i64()?)));
    counts.filter(|(_, count)| *count != 0).collect()
}

const OTHERS: &str = "adapters:
  - name: toOthers
    receiver:
      checkForDuplicates: true
      listener: { api: { uriPattern: /others, method: POST } }
      messageLog: { slotId: others-req }
    pipeline:
      - { name: enqueue, amqpSender: { connection: rabbit, destinationName: theirQueue } }
";

#[test]
fn a_run_with_everything_in_it_is_balanced_and_each_planted_fault_is_named() {
    run(async {
        let mut app = App::lay_out(Servers::shared().await, Options::default()).await;
        app.write("configurations/others/adapters.yml", OTHERS);
        app.migrate();
        app.run();
        app.ready(LONG).await;
        let amqp = Amqp::connect(app.amqp_url()).await;

        for n in 0..3 {
            assert_eq!(app.post(&format!("good-{n}"), &format!("good {n}")).await.status, 202);
        }
        app.settled(SOON).await;
        app.stop_adapter(STOPPED).await;
        assert_eq!(app.post("deleted", "deleted").await.status, 202);
        let deleted = app.in_error("deleted").await;
        assert_eq!(app.act_on(Method::DELETE, deleted.key, "").await.status, 200);
        assert_eq!(app.post("resent", "resent").await.status, 202);
        let resent = app.in_error("resent").await;
        app.start_adapter(STOPPED).await;
        assert_eq!(app.act_on(Method::POST, resent.key, "/resend").await.status, 200);
        app.stop_adapter(STOPPED).await;
        assert_eq!(app.post("stays", "stays").await.status, 202);
        let stays = app.in_error("stays").await;
        app.act_on(Method::POST, stays.key, "/resend").await.problem(422);
        app.start_adapter(STOPPED).await;
        amqp.publish("myQueue", BasicProperties::default().with_message_id("foreign".into()), b"foreign").await;
        app.processed("foreign", SOON).await;
        let others = client::request(&app.http, Method::POST, app.api, "/api/others").header("Message-Id", "theirs");
        assert_eq!(client::send(others.body("theirs")).await.status, 202);
        app.settled(SOON).await;

        let proof = app.everything_is_accounted_for();
        let named =
            |counts: &[(&str, i64)]| counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<Vec<_>>();
        let mut log = line(&proof, "write-db-req");
        log.sort();
        assert_eq!(log, named(&[("accepted", 6), ("deleted", 1), ("inError", 1), ("processed", 3), ("resent", 1)]));
        assert_eq!(line(&proof, "others-req"), named(&[("accepted", 1), ("handedOver", 1)]));
        assert_eq!(line(&proof, "rabbit/myQueue"), named(&[("accepted", 1), ("processed", 1)]));
        let shown = app.command(&["prove"]);
        assert_eq!(shown.status.code(), Some(0), "{shown:?}");
        assert!(String::from_utf8_lossy(&shown.stdout).contains("every message is accounted for"), "{shown:?}");

        assert_eq!(app.stop().await, Some(0));
        each_fault(&app).await;
    });
}

/// One fault after the other, each healed before the next.
async fn each_fault(app: &App) {
    let keep = "CREATE TABLE kept AS SELECT j.* FROM posthaste.journal j
        WHERE root_id IN (SELECT root_id FROM ibisstore WHERE messageid IN ('good-0', 'good-1', 'stays', 'deleted'))";
    app.db.rows(keep, &[]).await;
    let root = |id: &str| format!("(SELECT root_id FROM ibisstore WHERE messageid = '{id}' AND type = 'A')");
    let heal_journal = "INSERT INTO posthaste.journal SELECT * FROM kept ON CONFLICT (tx_id) DO UPDATE
        SET state = excluded.state, attempts = excluded.attempts, log_key = excluded.log_key";
    let [good, other, stays, deleted] = ["good-0", "good-1", "stays", "deleted"].map(root);
    let faults: [(&str, &str, String, String); 12] = [
        (
            "journalRowGone",
            "good-0",
            format!("DELETE FROM posthaste.journal WHERE root_id = {good}"),
            heal_journal.into(),
        ),
        (
            "bodyGone",
            "-",
            format!(
                "WITH watched AS (INSERT INTO posthaste.due SELECT tx_id, 'infinity' FROM posthaste.journal WHERE root_id = {good})
                 UPDATE posthaste.journal SET state = 'READY', log_key = -1 WHERE root_id = {good}"
            ),
            heal_journal.into(),
        ),
        (
            "errorGone",
            "deleted",
            "UPDATE posthaste.audit SET what = 'x-delete' WHERE what = 'delete'".into(),
            "UPDATE posthaste.audit SET what = 'delete' WHERE what = 'x-delete'".into(),
        ),
        (
            "errorTwice",
            "stays",
            "INSERT INTO ibisstore (type, slotid, messageid, message, tx_id, root_id, sha256, comments)
             SELECT type, slotid, messageid, message, tx_id, root_id, sha256, 'twice' FROM ibisstore WHERE type = 'E'"
                .into(),
            "DELETE FROM ibisstore WHERE comments = 'twice'".into(),
        ),
        (
            "errorAndDone",
            "stays",
            format!(
                "UPDATE posthaste.journal SET state = 'DONE' WHERE root_id = {stays}
                     AND tx_id = (SELECT tx_id FROM ibisstore WHERE type = 'E')"
            ),
            heal_journal.into(),
        ),
        (
            "tooManyAttempts",
            "good-0",
            format!("UPDATE posthaste.journal SET attempts = 7 WHERE root_id = {good}"),
            heal_journal.into(),
        ),
        (
            "doneTwice",
            "good-1",
            format!(
                "INSERT INTO posthaste.journal (tx_id, root_id, log_key, sha256, mode, destination, max_attempts, state)
                 SELECT gen_random_uuid(), root_id, log_key, sha256, mode, destination, max_attempts, 'DONE'
                 FROM posthaste.journal WHERE tx_id = {other}"
            ),
            format!("DELETE FROM posthaste.journal WHERE root_id = {other} AND tx_id <> root_id"),
        ),
        (
            "dedupIndex",
            "",
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ibisstore_dedup'::regclass".into(),
            "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'ibisstore_dedup'::regclass".into(),
        ),
        (
            "strangeRow",
            "good-0",
            format!("UPDATE posthaste.journal SET mode = 'OTHER' WHERE root_id = {good}"),
            format!("UPDATE posthaste.journal SET mode = 'OWN' WHERE root_id = {good}"),
        ),
        (
            "strangeRow",
            "good-0",
            "UPDATE ibisstore SET type = 'X' WHERE messageid = 'good-0'".into(),
            "UPDATE ibisstore SET type = 'A' WHERE messageid = 'good-0'".into(),
        ),
        (
            "unwatchedRow",
            "good-1",
            format!(
                "WITH unnamed AS (DELETE FROM posthaste.unsettled)
                 UPDATE posthaste.journal SET state = 'READY' WHERE root_id = {other}"
            ),
            heal_journal.into(),
        ),
        (
            "errorGone",
            "stays",
            "DELETE FROM ibisstore WHERE type = 'E'".into(),
            format!("UPDATE posthaste.journal SET state = 'DONE' WHERE root_id = {stays} OR root_id = {deleted}"),
        ),
    ];
    for (rule, id, fault, heal) in faults {
        let found = app.planted(&fault).await;
        let ids = if id.is_empty() { vec![] } else { vec![id.to_owned()] };
        assert_eq!(found, [(rule.to_owned(), ids)], "{fault}");
        app.db.rows(&heal, &[]).await;
        app.everything_is_accounted_for();
    }
    app.db.rows("DROP INDEX ibisstore_dedup", &[]).await;
    let twice = "INSERT INTO ibisstore (type, slotid, messageid, message, dedup_key, tx_id, root_id, sha256)
        SELECT type, slotid, messageid, message, dedup_key, tx_id, root_id, sha256 FROM ibisstore
        WHERE messageid = 'good-2' AND type = 'A'";
    let found = app.planted(twice).await;
    let wanted = [("acceptedTwice", vec!["good-2".to_owned()]), ("dedupIndex", vec![])];
    assert_eq!(found, wanted.map(|(rule, ids)| (rule.to_owned(), ids)));
}

#[test]
fn a_hundred_thousand_messages_are_judged_within_the_bound_of_a_statement() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        let log = "INSERT INTO ibisstore (type, slotid, messageid, message, dedup_key, tx_id, root_id, sha256)
            SELECT 'A', 'write-db-req', 'm-' || n, 'x', 'm-' || n, id, id, sha256('x')
            FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, 100000) n) made";
        app.db.rows(log, &[]).await;
        let journal = "INSERT INTO posthaste.journal
                (tx_id, root_id, log_key, sha256, mode, destination, max_attempts, state, attempts, finished_at)
            SELECT tx_id, root_id, messagekey, sha256, 'OWN', 'rabbit/myQueue', 6, 'DONE', 1, now() FROM ibisstore";
        app.db.rows(journal, &[]).await;
        let proof = app.everything_is_accounted_for();
        let all = |name: &str| (name.to_owned(), 100_000);
        assert_eq!(line(&proof, "write-db-req"), [all("accepted"), all("processed")]);

        app.db.rows("DELETE FROM posthaste.journal WHERE log_key % 1000 = 0", &[]).await;
        let (status, proof) = app.prove();
        let violation = &proof["violations"][0];
        assert_eq!((status, &violation["rule"]), (1, &"journalRowGone".into()), "{proof:#}");
        assert_eq!((&violation["count"], violation["ids"].as_array().unwrap().len()), (&100.into(), 20));
    });
}

#[test]
fn a_server_that_is_not_there_gives_69() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        let nowhere = format!("amqp://guest:guest@127.0.0.1:{}", posthaste::dev::free_port().unwrap());
        app.edit_resources(app.amqp_url(), &nowhere);
        let asked = app.command(&["prove"]);
        assert_eq!(asked.status.code(), Some(69), "{asked:?}");
        let without = app.command(&["prove", "--without-brokers"]);
        assert_eq!(without.status.code(), Some(0), "{without:?}");
        let port = posthaste::dev::free_port().unwrap();
        app.edit_resources("url: postgres", &format!("url: postgres://postgres@127.0.0.1:{port}/none # postgres"));
        let asked = app.command(&["prove", "--without-brokers"]);
        assert_eq!(asked.status.code(), Some(69), "{asked:?}");
    });
}

#[test]
fn what_waits_is_counted_and_the_queue_says_what_it_can() {
    run(async {
        let mut app = App::start(Servers::shared().await).await;
        app.stop_adapter("writeDb").await;
        assert_eq!(app.post("waits", "waits").await.status, 202);
        let probe = async || {
            let (status, proof) = app.prove();
            assert_eq!(status, 0, "{proof:#}");
            let queue = &proof["queues"][0];
            let seen = (queue["published"].as_i64(), queue["onQueue"].as_i64(), line(&proof, "write-db-req"));
            let wanted = vec![("accepted".to_owned(), 1), ("waiting".to_owned(), 1)];
            if seen == (Some(1), Some(1), wanted) { Ok(()) } else { Err(format!("{proof:#}")) }
        };
        eventually("one message waits, marked and on the queue", LONG, probe).await;
        assert_eq!(app.stop().await, Some(0));
    });
}

#[test]
fn a_range_accounts_for_what_was_accepted_in_it_and_names_nothing_else() {
    run(async {
        let app = App::install(Servers::shared().await, Options::default()).await;
        // One a day; m-0 on the first of January.
        let log =
            "INSERT INTO ibisstore (type, slotid, messageid, message, dedup_key, tx_id, root_id, sha256, messagedate)
            SELECT 'A', 'write-db-req', 'm-' || n, 'x', 'm-' || n, id, id, sha256('x'),
                   timestamptz '2026-01-01T00:00:00Z' + n * interval '1 day'
            FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(0, 9) n) made";
        app.db.rows(log, &[]).await;
        let journal = "INSERT INTO posthaste.journal
                (tx_id, root_id, log_key, sha256, mode, destination, max_attempts, state, attempts, finished_at)
            SELECT tx_id, root_id, messagekey, sha256, 'OWN', 'rabbit/myQueue', 6, 'DONE', 1, now() FROM ibisstore";
        app.db.rows(journal, &[]).await;
        // Of others, without a log: its id says noon on the fourth of January.
        let foreign = "INSERT INTO posthaste.journal
                (tx_id, root_id, sha256, mode, destination, max_attempts, state, attempts, finished_at)
            SELECT id, id, '', 'OWN', 'rabbit/myQueue', 6, 'DONE', 1, now()
            FROM (SELECT (lpad(to_hex(1767528000000), 12, '0') || '70008000000000000000')::uuid AS id) made";
        app.db.rows(foreign, &[]).await;
        app.db.rows("UPDATE posthaste.journal SET attempts = 7 WHERE log_key = (SELECT messagekey FROM ibisstore WHERE messageid = 'm-3')", &[]).await;

        let counts = |proof: &Value, slot: &str| {
            let lines = proof["balance"].as_array().unwrap();
            lines.iter().find(|line| line["slot"] == slot).map_or(0, |line| line["accepted"].as_i64().unwrap())
        };
        for (options, logged, foreign, broken) in [
            (&[][..], 10, 1, 1),
            (&["--since", "2026-01-04", "--until", "2026-01-06"][..], 2, 1, 1),
            (&["--since", "2026-01-05"], 6, 0, 0),
            (&["--until", "2026-01-04T12:00:00Z"], 4, 0, 1),
            (&["--until", "2026-01-01T00:00:00Z"], 0, 0, 0),
        ] {
            let (status, proof) = app.prove_with(options);
            assert_eq!(status, broken, "{options:?}: {proof:#}");
            assert_eq!(
                (counts(&proof, "write-db-req"), counts(&proof, "rabbit/myQueue")),
                (logged, foreign),
                "{options:?}"
            );
            let named: Vec<&Value> =
                proof["violations"].as_array().unwrap().iter().map(|one| &one["ids"][0]["messageId"]).collect();
            assert_eq!(named, vec!["m-3"; usize::try_from(broken).unwrap()], "{options:?}");
        }
        let shown = app.command(&["prove", "--since", "2026-01-05"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(
            shown.ends_with("every message is accounted for, of those accepted since 2026-01-05T00:00:00Z\n"),
            "{shown}"
        );
    });
}
