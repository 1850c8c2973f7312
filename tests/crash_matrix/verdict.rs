//! The invariants, in SQL, once nothing moves any more.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::instance::Instance;
use crate::messages::{Message, Messages, Told};
use crate::site::{DATABASES, QUEUES, Site};
use crate::support::{LONG, depth, eventually};

/// Attempts that the receivers of the configuration allow.
const MAX_ATTEMPTS: i64 = 3;

/// Messages whose branch somebody has rolled back by hand, after the decision: no protocol can mend that.
#[derive(Debug, Default, Clone)]
pub struct Torn {
    /// Their journal rows.
    pub whose: Vec<Uuid>,
}

impl Site {
    /// Waits until no message is on its way, nothing is in doubt, and no decision is needed any more.
    pub async fn quiet(&self, instances: &[&Instance]) {
        eventually(&format!("{}: nothing moves", self.case), LONG, async || {
            for instance in instances {
                instance.revive();
            }
            let open = "SELECT concat_ws(' ', tx_id, destination, state, attempts, publishes)
                FROM posthaste.journal WHERE state NOT IN ('DONE', 'ERROR')";
            let open: Vec<String> = self.home().column(open, &[]).await;
            let decided: i64 = self.home().count("posthaste.decision WHERE outcome = 'COMMIT'", &[]).await;
            let prepared = self.prepared().await;
            if open.is_empty() && prepared.is_empty() && decided == 0 {
                return Ok(());
            }
            Err(format!("open {open:?}, prepared {prepared:?}, {decided} decisions"))
        })
        .await;
    }

    /// Gids in any of the databases.
    pub async fn prepared(&self) -> Vec<String> {
        let mut gids = Vec::new();
        for database in &self.databases {
            let here = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
            gids.extend(database.column::<String>(here, &[]).await);
        }
        gids
    }

    /// What was left behind in the queues comes to consumers that know it, and is gone.
    pub async fn queues_are_empty(&self, consumer: &Instance) {
        for queue in QUEUES {
            let probe = async || {
                consumer.revive();
                match depth(&self.amqp_url, queue).await? {
                    0 => Ok(()),
                    left => Err(format!("{left} messages")),
                }
            };
            eventually(&format!("{}: {queue} is empty", self.case), LONG, probe).await;
        }
    }

    /// How often each message took effect, by database.
    async fn effects(&self) -> BTreeMap<String, Vec<i64>> {
        let mut effects: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for row in self.home().rows("SELECT id, count(*) FROM one GROUP BY id", &[]).await {
            effects.insert(row.get(0), vec![row.get(1)]);
        }
        for (at, database) in self.databases.iter().enumerate() {
            for row in database.rows("SELECT id, count(*) FROM three GROUP BY id", &[]).await {
                effects.entry(row.get(0)).or_insert_with(|| vec![0; DATABASES.len()])[at] = row.get(1);
            }
        }
        effects
    }

    async fn stored(&self, kind: &str) -> BTreeMap<String, i64> {
        let sql = "SELECT messageid::text, count(*) FROM ibisstore WHERE type = $1::text::char(1) GROUP BY 1";
        self.home().rows(sql, &[&kind]).await.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Everything that must hold. `all_taken`: the error store must be empty by now.
    pub async fn judge(&self, messages: &Messages, torn: &Torn, all_taken: bool) {
        let (effects, errors, logged) = (self.effects().await, self.stored("E").await, self.stored("A").await);
        let mut wrong = Vec::new();
        let torn = self.torn_ids(torn).await;
        let messages = messages.all();
        for message in &messages {
            let fault = fault(message, &effects, &errors, &logged, all_taken);
            if !torn.contains(&message.id) {
                wrong.extend(fault);
            }
        }
        for id in effects.keys().chain(logged.keys()).chain(errors.keys()) {
            if !messages.iter().any(|message| message.id == *id) {
                wrong.push(format!("{id}: nobody has sent it"));
            }
        }
        let parked = self.stored("H").await;
        if !parked.is_empty() {
            wrong.push(format!("parked: {parked:?}"));
        }
        wrong.extend(self.too_many_attempts(&messages).await);
        assert!(wrong.is_empty(), "{}:\n{}", self.case, wrong.join("\n"));
    }

    async fn torn_ids(&self, torn: &Torn) -> Vec<String> {
        let sql = "SELECT l.messageid::text FROM posthaste.journal j JOIN ibisstore l ON l.messagekey = j.log_key
            WHERE j.tx_id = ANY ($1)";
        self.home().column(sql, &[&torn.whose]).await
    }

    /// I7, by what the journal says and by what really ran.
    async fn too_many_attempts(&self, messages: &[Message]) -> Vec<String> {
        let mut wrong = Vec::new();
        let over =
            "SELECT concat_ws(' ', tx_id, attempts, max_attempts) FROM posthaste.journal WHERE attempts > max_attempts";
        for row in self.home().column::<String>(over, &[]).await {
            wrong.push(format!("attempts: {row}"));
        }
        // A crash inside the very first attempt stays uncounted, once. So does what a group ran before it was rolled back,
        // and a replay that is interrupted; of `three` there is none, who has failed in a group is tried alone.
        for (database, queue, uncounted) in [(&self.databases[0], "one", 3), (&self.databases[2], "three", 2)] {
            let ran: i64 =
                database.one("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM refusals", &[]).await;
            let failing = messages.iter().filter(|message| message.fails && message.queue == queue).count();
            let most = i64::try_from(failing).unwrap() * (MAX_ATTEMPTS + uncounted);
            if ran > most {
                wrong.push(format!("{ran} attempts ran for {failing} messages in {queue}"));
            }
        }
        wrong
    }

    /// Mends what makes messages fail, and sends every stored error again: each takes effect now.
    pub async fn resend_all(&self, instance: &Instance) {
        self.databases[0].rows("DROP TRIGGER refuse ON one", &[]).await;
        self.databases[2].rows("DROP TRIGGER refuse ON three", &[]).await;
        eventually(&format!("{}: the error store is empty", self.case), LONG, async || {
            instance.revive();
            let stored = "SELECT slotid::text, messagekey FROM ibisstore WHERE type = 'E'";
            let mut left = Vec::new();
            for row in self.home().rows(stored, &[]).await {
                let (slot, key): (String, i64) = (row.get(0), row.get(1));
                left.push(instance.act(&format!("/api/v1/stores/{slot}/messages/{key}/resend")).await);
            }
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }
}

fn fault(
    message: &Message,
    effects: &BTreeMap<String, Vec<i64>>,
    errors: &BTreeMap<String, i64>,
    logged: &BTreeMap<String, i64>,
    all_taken: bool,
) -> Option<String> {
    let none = vec![0; if message.queue == "one" { 1 } else { DATABASES.len() }];
    let once = vec![1; none.len()];
    let took = effects.get(&message.id).unwrap_or(&none);
    let count = |of: &BTreeMap<String, i64>| of.get(&message.id).copied().unwrap_or_default();
    let (failed, known) = (count(errors), count(logged));
    let fine = match message.told {
        Told::Accepted if message.fails && !all_taken => known == 1 && *took == none && failed == 1,
        Told::Accepted => known == 1 && *took == once && failed == 0,
        Told::Refused => known == 0 && *took == none && failed == 0,
        Told::Unknown => false,
    };
    let told = message.told;
    (!fine).then(|| format!("{}: {told:?}, effects {took:?}, {failed} error rows, {known} logged", message.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(told: Told, fails: bool, took: &[i64], errors: i64, logged: i64, all_taken: bool) -> bool {
        let message = Message { id: "m".to_owned(), queue: "three", fails, told };
        let count = |n: i64| BTreeMap::from([("m".to_owned(), n)]);
        let effects = BTreeMap::from([("m".to_owned(), took.to_vec())]);
        fault(&message, &effects, &count(errors), &count(logged), all_taken).is_some()
    }

    #[test]
    fn what_must_hold_is_fine() {
        assert!(!found(Told::Accepted, false, &[1, 1, 1], 0, 1, false));
        assert!(!found(Told::Accepted, true, &[0, 0, 0], 1, 1, false));
        assert!(!found(Told::Accepted, true, &[1, 1, 1], 0, 1, true));
        assert!(!found(Told::Refused, false, &[0, 0, 0], 0, 0, false));
    }

    #[test]
    fn whatever_is_lost_torn_done_twice_or_not_what_was_told_is_found() {
        for took in [[0, 0, 0], [1, 1, 0], [0, 1, 1], [2, 1, 1], [2, 2, 2]] {
            assert!(found(Told::Accepted, false, &took, 0, 1, false), "{took:?}");
        }
        assert!(found(Told::Accepted, false, &[1, 1, 1], 1, 1, false), "done and in error");
        assert!(found(Told::Accepted, false, &[1, 1, 1], 0, 2, false), "accepted twice");
        assert!(found(Told::Accepted, true, &[0, 0, 0], 0, 1, false), "an error that is lost");
        assert!(found(Told::Accepted, true, &[0, 0, 0], 2, 1, false), "an error twice");
        assert!(found(Told::Accepted, true, &[0, 0, 0], 1, 1, true), "a resend without effect");
        assert!(found(Told::Refused, false, &[1, 1, 1], 0, 0, false), "refused and done");
        assert!(found(Told::Refused, false, &[0, 0, 0], 0, 1, false), "refused and known");
        assert!(found(Told::Unknown, false, &[1, 1, 1], 0, 1, false), "never told");
    }
}
