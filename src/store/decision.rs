//! The decision log, and the home's COMMIT that writes to it (protocol §6).

use async_trait::async_trait;
use deadpool_postgres::ClientWrapper;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use super::durable::standby;
use super::work::PROBE;
use super::{CommitError, Session, Store, StoreError, WorkTransaction};
use crate::model::{Incarnation, TxId};
use crate::txn::faults::{Point, reach};
use crate::txn::ports::{Decided, DecidedBranch, Decision, DecisionLog, HomeTransaction, Mark};
use crate::txn::protocol::Outcome;
use crate::txn::recovery::Owner;
use crate::txn::{Gid, Gtrid};

/// The home's transaction of an attempt, on its way to a decision.
#[derive(Debug)]
pub struct HomeWork {
    store: Store,
    transaction: Option<WorkTransaction>,
}

/// Shared: it keeps whoever wants to fence this incarnation waiting until the COMMIT is through.
const FENCE_SHARED: &str =
    "/* fence_shared */ SELECT pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended($1, 0))";
/// A statement of its own, so that its snapshot is younger than the lock. Refused with [`NO_INCARNATION`] unless this one
/// is LIVE: the COMMIT that is sent behind it must come to nothing.
const DECIDE: &str = "/* decide */
INSERT INTO posthaste.decision (gtrid, incarnation, outcome, tx_id, others, branches)
SELECT $1, (SELECT i.incarnation FROM posthaste.instance i
            WHERE i.incarnation OPERATOR(pg_catalog.=) $2 AND i.state OPERATOR(pg_catalog.=) 'LIVE'),
       'COMMIT', $3, $4, $5";
/// `decision.incarnation` is not null.
const NO_INCARNATION: &str = "23502";
const ABORT: &str = "/* abort_unless_decided */
INSERT INTO posthaste.decision (gtrid, incarnation, outcome, tx_id)
SELECT $1, i.incarnation, 'ABORT', $3 FROM posthaste.instance i WHERE i.incarnation = $2 AND i.state = 'LIVE'
ON CONFLICT (gtrid) DO NOTHING";
const OUTCOMES: &str =
    concat!("/* outcomes */ SELECT gtrid, outcome, ", standby!(), " FROM posthaste.decision WHERE gtrid = ANY($1)");
const OWNERS: &str = concat!(
    "/* owners */ SELECT incarnation, state, ",
    standby!(),
    " FROM posthaste.instance WHERE incarnation = ANY($1)"
);
const ENTER_FENCED: &str = "/* enter_fenced */
INSERT INTO posthaste.instance (incarnation, name, host, pid, configuration_hash, state, fenced_at, fenced_by)
SELECT unknown, '', '', 0, '', 'FENCED', clock_timestamp(), $2 FROM unnest($1::uuid[]) unknown
ON CONFLICT (incarnation) DO NOTHING";
const COMMITTED: &str = concat!(
    "/* committed_decisions */ SELECT gtrid, incarnation, tx_id, others, branches, ",
    standby!(),
    " FROM posthaste.decision WHERE outcome = 'COMMIT'"
);
const FORGET: &str =
    "/* forget_decisions */ DELETE FROM posthaste.decision WHERE gtrid = ANY($1) AND outcome = 'COMMIT'";

const FENCED: &str = "another instance has taken over from this one";

/// What the two locks of the fence are taken on.
pub(super) fn fence_key(incarnation: Incarnation) -> String {
    format!("posthaste:fence:{incarnation}")
}

impl WorkTransaction {
    /// Work is done; what remains is the decision.
    #[must_use]
    pub fn on_its_way(self, store: &Store) -> HomeWork {
        HomeWork { store: store.clone(), transaction: Some(self) }
    }
}

/// Why a decision did not come to be: nothing that the message has done.
fn kept_out(error: StoreError) -> StoreError {
    StoreError::Unreachable(match error.sqlstate() {
        Some(NO_INCARNATION) => FENCED.to_owned(),
        Some(_) | None => format!("the decision could not be written: {error}"),
    })
}

impl HomeWork {
    fn take(&mut self) -> Result<WorkTransaction, StoreError> {
        self.transaction.take().ok_or_else(|| StoreError::Unexpected("the transaction has ended".to_owned()))
    }

    async fn commit_with(&mut self, decision: &Decision) -> Result<(), CommitError> {
        let transaction = self.take().map_err(CommitError::RolledBack)?;
        match self.store.work.bounded(prepare_decision(transaction.session())).await {
            Ok((lock, insert)) => {
                let proof = async |client: &ClientWrapper| write_decision(client, [&lock, &insert], decision).await;
                transaction.commit_after(&self.store, proof, kept_out).await
            }
            Err(error) => {
                transaction.roll_back(&self.store).await;
                Err(CommitError::RolledBack(kept_out(error)))
            }
        }
    }
}

/// The decision row under the fence, and the proof that the transaction is whole.
async fn write_decision(
    client: &ClientWrapper,
    [lock, insert]: [&Statement; 2],
    decision: &Decision,
) -> Result<(), StoreError> {
    let named = decision.branches.iter().map(|branch| {
        let Mark { xid, timeline } = branch.mark;
        serde_json::json!({
            "gid": branch.gid.to_string(), "place": branch.place, "xid": xid, "timeline": timeline,
        })
    });
    let (key, branches) = (fence_key(decision.incarnation), serde_json::Value::Array(named.collect()));
    let (gtrid, me, tx_id) = (decision.gtrid.0, decision.incarnation.0, decision.tx_id.0);
    let others: Vec<Uuid> = decision.others.iter().map(|other| other.0).collect();
    let (on, row) = ([&key as &(dyn ToSql + Sync)], [&gtrid as &(dyn ToSql + Sync), &me, &tx_id, &others, &branches]);
    // Sent together, executed one after the other. The probe first: a step may have left another role, which must not
    // write here. Behind it the row is the proof.
    let sent = tokio::try_join!(
        biased;
        client.batch_execute(PROBE),
        client.query_one(lock, &on),
        client.execute(insert, &row),
    );
    Ok(sent.map(drop)?)
}

/// In a session that has them already nothing is sent.
pub(super) async fn prepare_decision(session: &Session) -> Result<(Statement, Statement), StoreError> {
    let client = session.client()?;
    Ok((client.prepare_cached(FENCE_SHARED).await?, client.prepare_cached(DECIDE).await?))
}

fn decided(ended: Result<(), CommitError>) -> Decided<StoreError> {
    match ended {
        Ok(()) => Decided::Yes,
        Err(CommitError::RolledBack(error)) => Decided::No(error),
        Err(CommitError::Unknown(error)) => Decided::Unknown(error),
    }
}

#[async_trait]
impl HomeTransaction for HomeWork {
    type Error = StoreError;

    async fn commit(&mut self) -> Decided<StoreError> {
        if let Err(injected) = reach(Point::DQ1).await {
            self.roll_back().await;
            return Decided::No(injected.into());
        }
        let ended = match self.take() {
            Ok(transaction) => transaction.commit(&self.store).await,
            Err(error) => Err(CommitError::RolledBack(error)),
        };
        let decided = decided(ended);
        match reach(Point::DQ2).await {
            Ok(()) => decided,
            Err(injected) => Decided::Unknown(injected.into()),
        }
    }

    async fn decide(&mut self, decision: &Decision) -> Decided<StoreError> {
        for point in [Point::MD7, Point::MD8] {
            if let Err(injected) = reach(point).await {
                self.roll_back().await;
                return Decided::No(injected.into());
            }
        }
        let decided = decided(self.commit_with(decision).await);
        match reach(Point::MD4).await {
            Ok(()) => decided,
            Err(injected) => Decided::Unknown(injected.into()),
        }
    }

    async fn roll_back(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            transaction.roll_back(&self.store).await;
        }
    }
}

#[async_trait]
impl DecisionLog for Store {
    type Error = StoreError;

    async fn abort_unless_decided(
        &self,
        gtrid: Gtrid,
        incarnation: Incarnation,
        tx_id: TxId,
    ) -> Result<Outcome, StoreError> {
        let key = fence_key(incarnation);
        let rows = self
            .house
            .transaction(async |client| {
                client.query_one(FENCE_SHARED, &[&key]).await?;
                client.execute(ABORT, &[&gtrid.0, &incarnation.0, &tx_id.0]).await?;
                Ok(client.query(OUTCOMES, &[&vec![gtrid.0]]).await?)
            })
            .await?;
        // When somebody has decided before, nothing was written here.
        let rows = self.durable.rows(rows).await?;
        let outcome = rows.first().and_then(outcome_of).map(|(_, outcome)| outcome);
        outcome.ok_or_else(|| StoreError::Unreachable(FENCED.to_owned()))
    }

    async fn owners(&self, incarnations: &[Incarnation]) -> Result<Vec<(Incarnation, Option<Owner>)>, StoreError> {
        let ids: Vec<Uuid> = incarnations.iter().map(|incarnation| incarnation.0).collect();
        let rows = self.house.run(async |client| Ok(client.query(OWNERS, &[&ids]).await?)).await?;
        let rows = self.durable.rows(rows).await?;
        let owner = |incarnation: &Incarnation| {
            let row = rows.iter().find(|row| row.get::<_, Uuid>(0) == incarnation.0)?;
            Some(if row.get::<_, &str>(1) == "LIVE" { Owner::Live } else { Owner::Fenced })
        };
        Ok(incarnations.iter().map(|incarnation| (*incarnation, owner(incarnation))).collect())
    }

    async fn enter_fenced(&self, incarnations: &[Incarnation]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = incarnations.iter().map(|incarnation| incarnation.0).collect();
        let me = self.incarnation.0;
        self.house.run(async |client| Ok(client.execute(ENTER_FENCED, &[&ids, &me]).await.map(drop)?)).await
    }

    async fn outcomes(&self, gtrids: &[Gtrid]) -> Result<Vec<(Gtrid, Outcome)>, StoreError> {
        if gtrids.is_empty() {
            return Ok(Vec::new());
        }
        reach(Point::RC3).await?;
        let ids: Vec<Uuid> = gtrids.iter().map(|gtrid| gtrid.0).collect();
        let rows = self.house.run(async |client| Ok(client.query(OUTCOMES, &[&ids]).await?)).await?;
        let rows = self.durable.rows(rows).await?;
        let read: Option<Vec<_>> = rows.iter().map(outcome_of).collect();
        read.ok_or_else(|| StoreError::Unexpected("a decision with an outcome of its own".to_owned()))
    }

    async fn committed(&self) -> Result<Vec<Decision>, StoreError> {
        let rows = self.house.run(async |client| Ok(client.query(COMMITTED, &[]).await?)).await?;
        let rows = self.durable.rows(rows).await?;
        let read = |row: &Row| {
            decision_of(row).inspect_err(|error| tracing::error!(%error, "a decision is kept as it is")).ok()
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    async fn forget(&self, gtrids: &[Gtrid]) -> Result<(), StoreError> {
        reach(Point::RC6).await?;
        let ids: Vec<Uuid> = gtrids.iter().map(|gtrid| gtrid.0).collect();
        self.house
            .transaction(async |client| {
                client.batch_execute("SET LOCAL synchronous_commit = off").await?;
                Ok(client.execute(FORGET, &[&ids]).await.map(drop)?)
            })
            .await
    }
}

fn outcome_of(row: &Row) -> Option<(Gtrid, Outcome)> {
    let outcome = match row.get(1) {
        "COMMIT" => Outcome::Commit,
        "ABORT" => Outcome::Abort,
        _ => return None,
    };
    Some((Gtrid(row.get(0)), outcome))
}

fn decision_of(row: &Row) -> Result<Decision, StoreError> {
    let branches: serde_json::Value = row.try_get("branches")?;
    let read = |one: &serde_json::Value| {
        let gid = Gid::parse(one.get("gid")?.as_str()?)?;
        let mark = Mark { xid: one.get("xid")?.as_u64()?, timeline: one.get("timeline")?.as_i64()? };
        Some(DecidedBranch { gid, place: one.get("place")?.as_str()?.to_owned(), mark })
    };
    let branches: Option<Vec<_>> =
        branches.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(read).collect();
    Ok(Decision {
        gtrid: Gtrid(row.try_get("gtrid")?),
        incarnation: Incarnation(row.try_get("incarnation")?),
        outcome: Outcome::Commit,
        tx_id: TxId(row.try_get("tx_id")?),
        others: row.try_get::<_, Vec<Uuid>>("others")?.into_iter().map(TxId).collect(),
        branches: branches.ok_or_else(|| StoreError::Unexpected("decision.branches cannot be read".to_owned()))?,
    })
}
