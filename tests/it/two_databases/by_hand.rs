//! What an operator sees of transactions in doubt, and finishing one by hand (protocol §6, F14).

use std::time::Duration;

use posthaste::model::{HomeId, Incarnation, TxId};
use posthaste::txn::{Gid, Gtrid};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{App, LONG, SOON, Servers, eventually, run, same};

/// Another instance, as far as the home knows: it gives signs of life until it is dropped.
struct Stranger {
    incarnation: Incarnation,
    beats: tokio::task::JoinHandle<()>,
}

impl Stranger {
    async fn live(app: &App) -> Self {
        let incarnation = Incarnation::mint();
        let enter = "INSERT INTO posthaste.instance (incarnation, name, host, pid, configuration_hash)
                     VALUES ($1, 'stranger', 'elsewhere', 1, '')";
        app.db.rows(enter, &[&incarnation.0]).await;
        let db = app.db.clone();
        #[expect(clippy::disallowed_methods, reason = "ends with the stranger")]
        let beats = tokio::spawn(async move {
            loop {
                let beat = "UPDATE posthaste.instance SET heartbeat = heartbeat + 1 WHERE incarnation = $1";
                db.rows(beat, &[&incarnation.0]).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { incarnation, beats }
    }

    /// Prepares a booking in ledger A.
    async fn prepares(&self, app: &App, account: &str) -> String {
        self.prepares_for(app, account, TxId::mint()).await
    }

    async fn prepares_for(&self, app: &App, account: &str, tx_id: TxId) -> String {
        let home = HomeId(app.db.one("SELECT id FROM posthaste.home", &[]).await);
        let gid = Gid { home, incarnation: self.incarnation, gtrid: Gtrid::mint(), branch: 0, tx_id }.to_string();
        let ledger = app.database("ledgerA");
        ledger.batch(&format!("BEGIN; INSERT INTO account VALUES ('{account}', 0); PREPARE TRANSACTION '{gid}'")).await;
        gid
    }

    async fn decides(&self, app: &App, gid: &str) {
        self.decides_for(app, gid, None, &[]).await;
    }

    /// With the journal rows whose work it is.
    async fn decides_for(&self, app: &App, gid: &str, tx_id: Option<Uuid>, others: &[Uuid]) {
        let gtrid = Gid::parse(gid).unwrap().gtrid;
        let branches: Value = app.database("ledgerA").one(super::BRANCHES, &[&gid]).await;
        let sql = "INSERT INTO posthaste.decision (gtrid, incarnation, outcome, tx_id, others, branches)
                   VALUES ($1, $2, 'COMMIT', $3, $4, $5)";
        let tx_id = tx_id.unwrap_or(gtrid.0);
        app.db.rows(sql, &[&gtrid.0, &self.incarnation.0, &tx_id, &others, &branches]).await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

impl App {
    /// On a busy machine a stranger may give no sign of life for the tests' short lease.
    async fn patient() -> Self {
        let mut app = Self::install(Servers::shared().await, super::ledgers()).await;
        app.edit_resources("lease: 2s", "lease: 5s");
        app.run();
        app.ready(LONG).await;
        app
    }

    async fn listed(&self) -> Vec<Value> {
        let output = self.command(&["txn", "list", "--output", "json"]);
        assert!(output.status.success(), "{output:?}");
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// `txn resolve`, its exit status and what it says.
    fn resolve(&self, args: &[&str]) -> (i32, String) {
        let output = self.command(&[&["txn", "resolve"], args].concat());
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), said)
    }

    async fn console_text(&self, path: &str) -> String {
        self.console(reqwest::Method::GET, path).await.body
    }

    async fn accounts(&self, name: &str) -> i64 {
        self.database("ledgerA").count("account WHERE name = $1", &[&name]).await
    }
}

#[test]
fn what_is_in_doubt_is_listed_and_finished_by_hand_only_by_force_while_its_coordinator_lives() {
    run(async {
        let app = App::patient().await;
        assert_eq!(app.listed().await, Vec::<Value>::new());
        let stranger = Stranger::live(&app).await;
        let gid = stranger.prepares(&app, "dora").await;
        let listed = app.listed().await;
        assert_eq!(listed.len(), 1, "{listed:?}");
        let one = &listed[0];
        assert_eq!((one["gid"].as_str(), one["database"].as_str()), (Some(gid.as_str()), Some("ledgerA")));
        assert_eq!((one["coordinator"].as_str(), &one["decision"]), (Some("LIVE"), &Value::Null));
        assert!(one["locks"].as_i64().unwrap() > 0 && one["ageSeconds"].as_f64().unwrap() >= 0.0, "{one}");

        let (status, said) = app.resolve(&[&gid, "rollback", "--reason", "impatience"]);
        assert!(status == 1 && said.contains("its coordinator is alive"), "{status}: {said}");
        assert_eq!(app.resolve(&[&gid, "rollback"]).0, 2, "a reason is wanted");
        assert_eq!(app.listed().await.len(), 1);
        let (status, said) = app.resolve(&[&gid, "rollback", "--reason", "impatience", "--force", "--as", "kim"]);
        assert!(status == 0 && said.contains("rolled back in database ledgerA"), "{status}: {said}");
        assert_eq!((app.listed().await, app.accounts("dora").await), (Vec::new(), 0));
        let record = "SELECT who || ' ' || what || ' ' || why || ' ' || outcome || ' ' || (detail ->> 'forced')
                      FROM posthaste.audit WHERE target = $1";
        let record: Vec<String> = app.db.column(record, &[&gid]).await;
        assert_eq!(record, ["kim txn rollback impatience heuristic true"]);
        let (status, said) = app.resolve(&[&gid, "rollback", "--reason", "again", "--force"]);
        assert!(status == 1 && said.contains("no database that can be asked holds"), "{status}: {said}");
    });
}

#[test]
fn the_messages_of_a_group_are_all_listed_and_on_record_once_it_is_decided_and_before_that_the_first_alone() {
    run(async {
        let app = App::patient().await;
        for id in ["m-1", "m-2", "m-3"] {
            assert_eq!(app.transfer(id, "alice", "bob", 1).await.status, 202);
            app.transferred(id, SOON).await;
        }
        let rows = "SELECT j.tx_id FROM posthaste.journal j JOIN ibisstore l ON l.messagekey = j.log_key
            WHERE l.type = 'A' ORDER BY l.messageid";
        let rows: Vec<Uuid> = app.db.column(rows, &[]).await;
        let (first, others) = rows.split_first().unwrap();
        let stranger = Stranger::live(&app).await;
        let gid = stranger.prepares_for(&app, "mia", TxId(*first)).await;
        let listed = app.listed().await;
        assert_eq!((listed[0]["messageId"].as_str(), &listed[0]["others"]), (Some("m-1"), &serde_json::json!([])));

        stranger.decides_for(&app, &gid, Some(*first), others).await;
        let listed = app.listed().await;
        assert_eq!((listed[0]["messageId"].as_str(), listed[0]["decision"].as_str()), (Some("m-1"), Some("COMMIT")));
        let mut shared: Vec<&str> =
            listed[0]["others"].as_array().unwrap().iter().map(|one| one["messageId"].as_str().unwrap()).collect();
        shared.sort_unstable();
        assert_eq!(shared, ["m-2", "m-3"]);
        let table = app.command(&["txn", "list"]);
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        assert!(table.contains("m-1 and 2 others"), "{table}");
        assert_eq!(app.resolve(&[&gid, "commit", "--reason", "the log says so"]).0, 0);
        let record = "SELECT root_id FROM posthaste.audit WHERE target = $1 AND outcome = 'heuristic' ORDER BY 1";
        assert_eq!(app.db.column::<Uuid>(record, &[&gid]).await, rows, "each message's trace shows it");
    });
}

#[test]
fn what_the_decision_log_contradicts_is_refused_and_what_it_says_is_done() {
    run(async {
        let app = App::patient().await;
        let stranger = Stranger::live(&app).await;
        let gid = stranger.prepares(&app, "emil").await;
        stranger.decides(&app, &gid).await;
        assert_eq!(app.listed().await[0]["decision"], "COMMIT");
        let (status, said) = app.resolve(&[&gid, "rollback", "--reason", "a guess"]);
        assert!(status == 1 && said.contains("the decision log says COMMIT"), "{status}: {said}");
        let (status, said) = app.resolve(&[&gid, "commit", "--reason", "the log says so"]);
        assert!(status == 0 && said.contains("committed in database ledgerA"), "{status}: {said}");
        assert_eq!(app.accounts("emil").await, 1);
        let (status, said) = app.resolve(&["posthaste:nonsense", "commit", "--reason", "typing"]);
        assert!(status == 1 && said.contains("is no gid of ours"), "{status}: {said}");
    });
}

#[test]
fn what_a_gone_coordinator_left_is_settled_by_what_it_had_decided() {
    run(async {
        let app = App::patient().await;
        let stranger = Stranger::live(&app).await;
        let (decided, undecided) = (stranger.prepares(&app, "fay").await, stranger.prepares(&app, "gus").await);
        stranger.decides(&app, &decided).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(app.listed().await.len(), 2, "whoever lives is left alone");
        drop(stranger);
        app.nothing_in_doubt(LONG).await;
        assert_eq!((app.accounts("fay").await, app.accounts("gus").await), (1, 0), "{undecided}");
    });
}

#[test]
fn a_transaction_that_stays_in_doubt_is_told_by_readyz_and_by_a_figure() {
    run(async {
        let app = App::patient().await;
        let stranger = Stranger::live(&app).await;
        let gid = stranger.prepares(&app, "hal").await;
        eventually("it is told", LONG, async || {
            let ready = app.console_text("/readyz").await;
            let told = ready.contains("1 transactions in database ledgerA are in doubt for more than 15 s");
            same((told, ready.contains("\"accepting\":true")), &(true, true))
        })
        .await;
        assert!(app.console_text("/metrics").await.contains("posthaste_in_doubt 1"));
        assert_eq!(app.resolve(&[&gid, "rollback", "--reason", "it waits", "--force"]).0, 0);
        let well = async || same(app.console_text("/readyz").await.contains("in doubt"), &false);
        eventually("nothing is told any more", SOON, well).await;
    });
}

#[test]
fn a_committed_transaction_that_lost_a_branch_is_told_and_its_decision_stays_until_somebody_has_put_it_right() {
    run(async {
        let app = App::patient().await;
        let stranger = Stranger::live(&app).await;
        let (lost, kept) = (stranger.prepares(&app, "ida").await, stranger.prepares(&app, "jon").await);
        for gid in [&lost, &kept] {
            stranger.decides(&app, gid).await;
        }
        // As after a fail-over to a server that had not got it yet; and as by an operator at the database's own prompt.
        app.database("ledgerA").batch(&format!("ROLLBACK PREPARED '{lost}'")).await;
        app.database("ledgerA").batch(&format!("COMMIT PREPARED '{kept}'")).await;
        drop(stranger);
        eventually("it is told", LONG, async || {
            let told = app.console_text("/readyz").await.contains(&format!("posthaste txn resolve {lost} commit"));
            same((told, app.db.count("posthaste.decision", &[]).await), &(true, 1))
        })
        .await;
        assert!(!app.console_text("/readyz").await.contains(&kept), "what was committed is no loss");
        assert_eq!(app.resolve(&[&lost, "commit", "--reason", "mended"]).0, 1, "only by force");
        // A branch of the same decision in a database that nobody here knows is not forgotten with it.
        let more =
            "UPDATE posthaste.decision SET branches = branches || jsonb_build_array(jsonb_build_object('gid', $2::text,
            'place', '0/nowhere', 'xid', 3, 'timeline', 1)) WHERE gtrid = $1";
        let (gtrid, other) = (Gid::parse(&lost).unwrap().gtrid.0, lost.replace(":0.", ":1."));
        app.db.rows(more, &[&gtrid, &other]).await;
        let (status, said) = app.resolve(&[&lost, "commit", "--reason", "mended", "--force"]);
        assert_eq!(status, 0, "{said}");
        let left = "SELECT branches -> 0 ->> 'gid' FROM posthaste.decision WHERE jsonb_array_length(branches) = 1";
        assert_eq!(app.db.column::<String>(left, &[]).await, std::slice::from_ref(&other));
        let well = async || same(app.console_text("/readyz").await.contains(&lost), &false);
        eventually("it is told no more", SOON, well).await;
        let told = async || same(app.console_text("/readyz").await.contains("0/nowhere"), &true);
        eventually("a database that no entry names is told", SOON, told).await;
        assert_eq!(app.resolve(&[&other, "commit", "--reason", "a guess"]).0, 75, "it may be prepared there");
        assert_eq!(app.resolve(&[&other, "commit", "--reason", "decommissioned", "--force"]).0, 0);
        let forgotten = async || same(app.db.count("posthaste.decision", &[]).await, &0);
        eventually("the decision is forgotten", SOON, forgotten).await;
        let outcome: Vec<String> =
            app.db.column("SELECT outcome FROM posthaste.audit WHERE target = $1", &[&lost]).await;
        assert_eq!(outcome, ["acknowledged"]);
    });
}

#[test]
fn what_a_living_coordinator_has_decided_and_leaves_is_finished_by_another_after_15_seconds() {
    run(async {
        let app = App::patient().await;
        let stranger = Stranger::live(&app).await;
        let (decided, undecided) = (stranger.prepares(&app, "kim").await, stranger.prepares(&app, "lee").await);
        stranger.decides(&app, &decided).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(app.accounts("kim").await, 0, "its own coordinator comes first");
        eventually("it is finished", LONG, async || same(app.accounts("kim").await, &1)).await;
        let listed = app.listed().await;
        assert_eq!(
            (listed.len(), listed[0]["gid"].as_str()),
            (1, Some(undecided.as_str())),
            "nothing says how that ends"
        );
        assert_eq!(app.resolve(&[&undecided, "rollback", "--reason", "over", "--force"]).0, 0);
    });
}
