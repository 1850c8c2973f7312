//! Prepared transactions as an operator sees them, and finishing one by hand (protocol §6).

use std::collections::BTreeMap;

use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use super::audit::{AuditEntry, append_audit};
use super::{Database, Store, StoreError};
use crate::model::{HomeId, RootId};
use crate::txn::ports::{self, Database as _, DecidedBranch, DecisionLog as _, Finished, InDoubt};
use crate::txn::protocol::Outcome;
use crate::txn::recovery::{ByHand, Owner, by_hand, forgettable};
use crate::txn::{Gid, Gtrid};

/// One prepared branch that waits for its outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Doubtful {
    pub gid: String,
    /// The `postgres` entry that holds it.
    pub database: String,
    /// Seconds since it was prepared.
    pub age_seconds: f64,
    pub locks: i64,
    /// What the decision log says; none yet, and recovery will roll back once the coordinator is fenced.
    pub decision: Option<&'static str>,
    /// `RUNNING` here, `LIVE` elsewhere or left here, `FENCED`, or `UNKNOWN`.
    pub coordinator: &'static str,
    /// The message that it works for, when its journal row is committed; the first of several.
    pub message_id: Option<String>,
    pub destination: Option<String>,
    pub tx_id: String,
    /// The messages that share the transaction; known once it is decided.
    pub others: Vec<Sharer>,
}

/// A message that shares a transaction with another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sharer {
    pub tx_id: String,
    pub message_id: Option<String>,
}

/// All of them, and the databases that could not be asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DoubtfulList {
    pub items: Vec<Doubtful>,
    pub unreachable: Vec<UnreachableDatabase>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnreachableDatabase {
    pub database: String,
    pub reason: String,
}

/// How an operator's word ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    Done {
        database: String,
    },
    /// No database that can be asked knows this gid.
    NotFound,
    /// Refused without force.
    Refused {
        why: ByHand,
        decision: Option<Outcome>,
    },
    /// Its database has lost it: only by force, once its work is put right.
    Lost {
        database: String,
    },
    /// The database did not do it.
    NotYet {
        reason: String,
    },
}

/// What an operator wants of one branch.
#[derive(Debug, Clone, Copy)]
pub struct ResolveRequest<'a> {
    pub gid: Gid,
    pub outcome: Outcome,
    pub force: bool,
    pub who: &'a str,
    pub why: &'a str,
}

const TAKE_OUT: &str = "/* acknowledge_branch */
UPDATE posthaste.decision SET branches =
    (SELECT coalesce(jsonb_agg(b), '[]') FROM jsonb_array_elements(branches) b WHERE b ->> 'gid' <> $2)
WHERE gtrid = $1 AND outcome = 'COMMIT'";
const SHARED: &str = "/* shared_decisions */
SELECT gtrid, others FROM posthaste.decision WHERE gtrid = ANY($1) AND cardinality(others) > 0";
const MESSAGES: &str = "/* doubtful_messages */
SELECT j.tx_id, j.root_id, j.destination, coalesce(l.messageid, p.message_id) AS message_id
FROM posthaste.journal j LEFT JOIN :ibisstore l ON l.messagekey = j.log_key
LEFT JOIN posthaste.payload p ON p.tx_id = j.tx_id AND j.log_key IS NULL
WHERE j.tx_id = ANY($1)";

impl Store {
    /// Asks every database what it holds prepared for this home.
    ///
    /// # Errors
    /// The home database did not answer. Others that do not are listed.
    pub async fn doubtful(&self) -> Result<DoubtfulList, StoreError> {
        let Some(home) = self.home() else { return Ok(DoubtfulList::default()) };
        let (mut found, mut unreachable) = (Vec::new(), Vec::new());
        for database in self.databases.participants() {
            let asked = async { Ok::<_, StoreError>((database.in_doubt(home).await?, database.locks(home).await?)) };
            let name = database.name().to_owned();
            match asked.await {
                Ok((those, locks)) => {
                    for one in those {
                        let locks = locks.get(&one.gid.to_string()).copied().unwrap_or(0);
                        // Two entries may lead to one database.
                        if !found.iter().any(|(_, known, _): &(String, InDoubt, i64)| known.gid == one.gid) {
                            found.push((name.clone(), one, locks));
                        }
                    }
                }
                Err(error) => unreachable.push(UnreachableDatabase { database: name, reason: error.to_string() }),
            }
        }
        let mut standings = Vec::new();
        for (_, one, _) in &found {
            standings.push(self.standing(&one.gid).await?);
        }
        // Afterwards: what is seen to be decided comes with all its messages.
        let gids: Vec<&Gid> = found.iter().map(|(_, one, _)| &one.gid).collect();
        let others = self.others(&gids).await?;
        let ids = gids.iter().map(|gid| gid.tx_id.0).chain(others.values().flatten().copied());
        let messages = self.messages(ids.collect()).await?;
        let mut items = Vec::new();
        for ((database, one, locks), (owner, decision)) in found.into_iter().zip(standings) {
            let message = messages.get(&one.gid.tx_id.0);
            let sharer = |tx_id: &Uuid| Sharer {
                tx_id: tx_id.to_string(),
                message_id: messages.get(tx_id).and_then(|row| row.get("message_id")),
            };
            items.push(Doubtful {
                gid: one.gid.to_string(),
                database,
                age_seconds: one.age.as_secs_f64(),
                locks,
                decision: decision.map(word),
                coordinator: match owner {
                    Owner::Me { running: true } => "RUNNING",
                    Owner::Me { running: false } | Owner::Live | Owner::Overdue => "LIVE",
                    Owner::Fenced => "FENCED",
                    Owner::Unknown => "UNKNOWN",
                },
                message_id: message.and_then(|row| row.get("message_id")),
                destination: message.map(|row| row.get("destination")),
                tx_id: one.gid.tx_id.to_string(),
                others: others.get(&one.gid.gtrid).into_iter().flatten().map(sharer).collect(),
            });
        }
        Ok(DoubtfulList { items, unreachable })
    }

    /// The journal rows beside the one that a gid names, of transactions that are decided.
    async fn others(&self, gids: &[&Gid]) -> Result<BTreeMap<Gtrid, Vec<Uuid>>, StoreError> {
        let gtrids: Vec<Uuid> = gids.iter().map(|gid| gid.gtrid.0).collect();
        let rows = self.house.run(async |client| Ok(client.query(SHARED, &[&gtrids]).await?)).await?;
        Ok(rows.iter().map(|row| (Gtrid(row.get(0)), row.get(1))).collect())
    }

    /// What there is to say of the messages of these journal rows.
    async fn messages(&self, tx_ids: Vec<Uuid>) -> Result<BTreeMap<Uuid, Row>, StoreError> {
        let rows = self.house.run(async |client| Ok(client.query(&*self.sql(MESSAGES), &[&tx_ids]).await?)).await?;
        Ok(rows.into_iter().map(|row| (row.get("tx_id"), row)).collect())
    }

    /// Whose it is, and then what was decided.
    async fn standing(&self, gid: &Gid) -> Result<(Owner, Option<Outcome>), StoreError> {
        let owner = self.owners(&[gid.incarnation]).await?.first().and_then(|(_, owner)| *owner);
        let owner = match owner.unwrap_or(Owner::Unknown) {
            Owner::Live if gid.incarnation == self.incarnation => {
                Owner::Me { running: self.coordinators.runs(gid.gtrid) }
            }
            owner => owner,
        };
        let decision = self.outcomes(&[gid.gtrid]).await?.first().map(|(_, outcome)| *outcome);
        Ok((owner, decision))
    }

    /// Finishes one branch by hand. It goes on record, as heuristic, before anything is done.
    ///
    /// # Errors
    /// The home database did not answer: nothing was done.
    pub async fn resolve_by_hand(&self, request: &ResolveRequest<'_>) -> Result<Resolved, StoreError> {
        let Some(home) = self.home() else { return Ok(Resolved::NotFound) };
        let mut holder = None;
        for database in self.databases.participants() {
            let known = database.in_doubt(home).await.is_ok_and(|those| those.iter().any(|one| one.gid == request.gid));
            if known {
                holder = Some(database);
                break;
            }
        }
        let Some(database) = holder else { return self.acknowledge(home, request).await };
        let (owner, decision) = self.standing(&request.gid).await?;
        let judged = by_hand(owner, decision, request.outcome);
        if judged != ByHand::Agrees && !request.force {
            return Ok(Resolved::Refused { why: judged, decision });
        }
        self.record(request, database.name(), decision, "heuristic").await?;
        match database.finish(&request.gid, request.outcome).await {
            Finished::Done => {
                metrics::counter!("posthaste_heuristic_total").increment(1);
                tracing::warn!(gid = %request.gid, outcome = word(request.outcome), who = request.who,
                    why = request.why, "a prepared transaction was finished by hand");
                Ok(Resolved::Done { database: database.name().to_owned() })
            }
            Finished::Missing { .. } => {
                self.record(request, database.name(), decision, "gone").await?;
                Ok(Resolved::NotFound)
            }
            Finished::NotYet(reason) => {
                self.record(request, database.name(), decision, "failed").await?;
                Ok(Resolved::NotYet { reason })
            }
        }
    }

    /// A branch that was decided upon and is lost: the operator has put its work right. It is taken out of the decision;
    /// others that hang on the same one need it still.
    async fn acknowledge(&self, home: HomeId, request: &ResolveRequest<'_>) -> Result<Resolved, StoreError> {
        let decided = self.committed().await?;
        let found = decided.iter().find_map(|decision| {
            let branch = decision.branches.iter().find(|branch| branch.gid == request.gid)?;
            (request.outcome == Outcome::Commit).then_some(branch)
        });
        let Some(branch) = found else { return Ok(Resolved::NotFound) };
        let (owner, decision) = self.standing(&request.gid).await?;
        if !forgettable(owner, true) {
            return Ok(Resolved::Refused { why: ByHand::InHand, decision });
        }
        // Before the places: an entry that comes meanwhile is then one that was waited for.
        let all_known = self.databases.waiting().is_empty();
        let participants = self.databases.participants();
        let database = match participants.iter().find(|one| ports::Database::place(*one) == Some(&branch.place)) {
            // Only a database that answers can have lost it: one that is away may hold it prepared.
            Some(database) => match lost(database, home, branch).await {
                Ok(true) if request.force => database.name(),
                Ok(true) => return Ok(Resolved::Lost { database: database.name().to_owned() }),
                Ok(false) => return Ok(Resolved::NotFound),
                Err(error) => return Ok(Resolved::NotYet { reason: error.to_string() }),
            },
            None if request.force && all_known => &branch.place,
            None => return Ok(Resolved::NotYet { reason: nowhere(&branch.place) }),
        };
        self.record(request, database, decision, "acknowledged").await?;
        let gid = request.gid.to_string();
        self.house.run(async |client| Ok(client.execute(TAKE_OUT, &[&request.gid.gtrid.0, &gid]).await?)).await?;
        Ok(Resolved::Done { database: database.to_owned() })
    }

    async fn record(
        &self,
        request: &ResolveRequest<'_>,
        database: &str,
        decision: Option<Outcome>,
        outcome: &str,
    ) -> Result<(), StoreError> {
        let others = self.others(&[&request.gid]).await?.remove(&request.gid.gtrid).unwrap_or_default();
        let messages = self.messages([vec![request.gid.tx_id.0], others].concat()).await?;
        // One record for each message: its trace shows what was done to it.
        let mut roots: Vec<Option<RootId>> = messages.values().map(|row| Some(RootId(row.get("root_id")))).collect();
        if roots.is_empty() {
            roots.push(None);
        }
        let (who, why, target) = (request.who, Some(request.why), request.gid.to_string());
        let what = match request.outcome {
            Outcome::Commit => "txn commit",
            Outcome::Abort => "txn rollback",
        };
        let detail = serde_json::json!({
            "database": database, "decision": decision.map(word), "forced": request.force,
        });
        self.house
            .transaction(async |client| {
                for root_id in roots {
                    let (target, detail) = (target.as_str(), detail.clone());
                    let entry = AuditEntry { who, what, target, why, root_id, outcome: Some(outcome), detail };
                    append_audit(client, &entry).await?;
                }
                Ok(())
            })
            .await
    }
}

fn nowhere(place: &str) -> String {
    format!(
        "no postgres entry leads to {place}, where it may be prepared: bring that entry back; when the database is gone \
         for good and all others are reached, force this"
    )
}

/// Whether a branch is neither prepared nor committed where it should be.
async fn lost(database: &Database, home: HomeId, branch: &DecidedBranch) -> Result<bool, StoreError> {
    let prepared = database.in_doubt(home).await?.iter().any(|one| one.gid == branch.gid);
    Ok(!prepared && !database.has_committed(branch).await?)
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Commit => "COMMIT",
        Outcome::Abort => "ABORT",
    }
}
