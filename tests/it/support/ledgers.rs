//! Looking at the money of `two-databases`: where a transfer stands, and whether the books agree.

use std::time::Duration;

use super::{App, Reply, eventually};

/// What ledger A opens with; ledger B opens with nothing.
const OPENING: i64 = 2_000_000;
/// Everything of this home that is prepared in the server that is asked; `$1` is the home.
pub const PREPARED: &str = "SELECT gid FROM pg_prepared_xacts WHERE gid LIKE 'posthaste:' || $1 || ':%'";

impl App {
    /// POSTs a transfer under a message id, which becomes the transfer's.
    pub async fn transfer(&self, id: &str, from: &str, to: &str, amount: i64) -> Reply {
        self.post(id, &format!(r#"{{ "from": "{from}", "to": "{to}", "amount": {amount} }}"#)).await
    }

    /// How often a transfer stands in the history, in ledger A and in ledger B.
    pub async fn moved(&self, id: &str) -> [i64; 3] {
        let in_history = self.db.count("history WHERE transfer = $1", &[&id]).await;
        let [a, b] = ["ledgerA", "ledgerB"].map(|ledger| self.database(ledger));
        let booked = "booking WHERE transfer = $1";
        [in_history, a.count(booked, &[&id]).await, b.count(booked, &[&id]).await]
    }

    /// The sums of both ledgers.
    pub async fn money(&self) -> [i64; 2] {
        let sum = "SELECT coalesce(sum(balance), 0)::bigint FROM account";
        [self.database("ledgerA").one(sum, &[]).await, self.database("ledgerB").one(sum, &[]).await]
    }

    /// Gids of this home that are prepared anywhere.
    pub async fn prepared(&self) -> Vec<String> {
        let home: String = self.db.one("SELECT id::text FROM posthaste.home", &[]).await;
        let mut found = Vec::new();
        for entry in self.application.databases() {
            found.extend(self.database(entry).column::<String>(PREPARED, &[&home]).await);
        }
        // Databases of one server show the same.
        found.sort();
        found.dedup();
        found
    }

    /// Waits until nothing is prepared and no decision is kept.
    pub async fn nothing_in_doubt(&self, bound: Duration) {
        eventually("nothing is prepared, and no decision is kept", bound, async || {
            let (prepared, decisions) = (self.prepared().await, self.db.count("posthaste.decision", &[]).await);
            if prepared.is_empty() && decisions == 0 {
                Ok(())
            } else {
                Err(format!("{prepared:?}, {decisions} decisions"))
            }
        })
        .await;
    }

    /// No money came or went, every balance is the sum of its bookings, and each transfer stands with its amount in the
    /// history and in both ledgers, or nowhere. Nothing must be on its way. Answers what is wrong.
    pub async fn books(&self) -> Vec<String> {
        let [a, b] = ["ledgerA", "ledgerB"].map(|ledger| self.database(ledger));
        let mut wrong = Vec::new();
        let money = self.money().await;
        if money.iter().sum::<i64>() != OPENING {
            wrong.push(format!("{OPENING} became {money:?}"));
        }
        let unbalanced = "SELECT name || ' has ' || balance FROM account
            WHERE balance <> CASE WHEN name IN ('alice', 'anna') THEN 1000000 ELSE 0 END
                             + (SELECT coalesce(sum(amount), 0) FROM booking WHERE account = name)";
        wrong.extend(a.column::<String>(unbalanced, &[]).await);
        wrong.extend(b.column::<String>(unbalanced, &[]).await);
        let history: Vec<String> =
            self.db.column("SELECT transfer || ' ' || payer || ' ' || payee || ' ' || amount FROM history", &[]).await;
        let booked = "SELECT transfer, account, amount FROM booking";
        let entry = |row: &tokio_postgres::Row| -> (String, (String, i64)) { (row.get(0), (row.get(1), row.get(2))) };
        let a: std::collections::BTreeMap<_, _> = a.rows(booked, &[]).await.iter().map(entry).collect();
        let mut b: std::collections::BTreeMap<_, _> = b.rows(booked, &[]).await.iter().map(entry).collect();
        let mut booked = Vec::new();
        for (transfer, (payer, taken)) in a {
            match b.remove(&transfer) {
                Some((payee, given)) if taken == -given => booked.push(format!("{transfer} {payer} {payee} {given}")),
                other => wrong.push(format!("{transfer}: {taken} in ledger A, {other:?} in ledger B")),
            }
        }
        wrong.extend(b.into_keys().map(|transfer| format!("{transfer}: only in ledger B")));
        let difference = |some: &[String], others: &[String]| -> Vec<String> {
            some.iter().filter(|one| !others.contains(one)).cloned().collect()
        };
        wrong.extend(difference(&history, &booked).into_iter().map(|one| format!("{one}: only in the history")));
        wrong.extend(difference(&booked, &history).into_iter().map(|one| format!("{one}: not in the history")));
        wrong
    }
}
