//! This instance among the others, and the home it belongs to (protocol §3, §5, §6).

use std::collections::BTreeMap;

use uuid::Uuid;

use super::home_place::{FOUND, Facts, KNOWN, Moved, OF_HOME, moved};
use super::{Store, StoreError};
use crate::model::{AdapterName, Epoch, HomeId, Incarnation};

/// A LIVE instance, as the home database shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub incarnation: Incarnation,
    pub name: String,
    pub heartbeat: i64,
    pub configuration_hash: String,
    /// Destinations that it consumes.
    pub serves: Vec<String>,
    /// Per destination, the latest `x-published-at` received, in microseconds.
    pub seen: BTreeMap<String, i64>,
}

/// What this process says of itself at its start.
#[derive(Debug, Clone)]
pub struct Registration<'a> {
    pub name: &'a str,
    pub host: &'a str,
    pub pid: u32,
    pub configuration_hash: &'a str,
    pub serves: &'a [String],
}

/// Whether the database is the one that this home lived in last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeCheck {
    Same(HomeId),
    /// A copy, or a restored or failed-over server: nothing is swept or consumed until an operator says which.
    Moved(Moved),
}

impl HomeCheck {
    /// What an operator is told; empty when there is nothing to say.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Same(_) => String::new(),
            Self::Moved(Moved { known, found, means }) => {
                format!("this home was in {known} and is now in {found}: {means}. {SAY_WHICH}")
            }
        }
    }
}

/// The answer to a heart-beat.
#[derive(Debug, Clone)]
pub struct Beat {
    /// `false`: somebody has fenced us; stop.
    pub live: bool,
    /// The database's clock, microseconds since 1970.
    pub clock: i64,
    pub instances: Vec<Instance>,
    /// What operators want stopped.
    pub stopped: Vec<AdapterName>,
    /// Whether it is still the database that this home lives in.
    pub home: HomeCheck,
    /// How far that database has come.
    pub epoch: Epoch,
}

/// What an operator is to do about a home that is not where it was.
pub const SAY_WHICH: &str = "Nothing is sent or processed until you say which it is: `posthaste migrate --home same` when it \
                             took the other's place, `--home copy` when the other lives on";

const RAISE: &str = "/* raise_epoch */
UPDATE posthaste.home SET epoch = epoch + 1, epoch_token = gen_random_uuid()
WHERE id = $1 AND epoch = $2 AND epoch_token = $3 RETURNING id, epoch, epoch_token";

pub(super) const LIVE_INSTANCES: &str = "/* live_instances */
SELECT incarnation, name, heartbeat, configuration_hash, serves, seen FROM posthaste.instance WHERE state = 'LIVE'";

/// Under which name all sessions of an incarnation are seen, and can be ended.
pub(super) fn application_name(incarnation: Incarnation) -> String {
    format!("posthaste:{incarnation}")
}

impl Store {
    /// Commits this incarnation's row, before anything else is written, and learns the home's identity.
    pub async fn register(&self, registration: &Registration<'_>) -> Result<HomeCheck, StoreError> {
        let check = self.check_home().await?;
        let HomeCheck::Same(home) = check else { return Ok(check) };
        self.databases.locate_home(&self.house).await?;
        let pid = i32::try_from(registration.pid).unwrap_or(i32::MAX);
        self.house
            .run(async |client| {
                client
                    .execute(
                        "/* register */ INSERT INTO posthaste.instance
                             (incarnation, name, host, pid, configuration_hash, serves)
                         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (incarnation) DO NOTHING",
                        &[
                            &self.incarnation.0,
                            &registration.name,
                            &registration.host,
                            &pid,
                            &registration.configuration_hash,
                            &registration.serves,
                        ],
                    )
                    .await?;
                Ok(())
            })
            .await?;
        let _first = self.home.set(home);
        Ok(check)
    }

    /// Compares the database with the one that this home lived in last.
    pub async fn check_home(&self) -> Result<HomeCheck, StoreError> {
        let sql = check_home_sql();
        self.house.run(async |client| Ok(home_check_of(&client.query_one(&sql, &[]).await?))).await
    }

    /// One heart-beat: our counter moves, what we saw is shared, and the others are looked at.
    pub async fn beat(&self, seen: &BTreeMap<String, i64>) -> Result<Beat, StoreError> {
        let seen = serde_json::json!(seen);
        self.beat
            .run(async |client| {
                let live = client
                    .execute(
                        "/* beat */ UPDATE posthaste.instance SET heartbeat = heartbeat + 1, seen = $2
                         WHERE incarnation = $1 AND state = 'LIVE'",
                        &[&self.incarnation.0, &seen],
                    )
                    .await?;
                let rows = client.query(LIVE_INSTANCES, &[]).await?;
                let instances = rows.iter().map(instance_of).collect::<Result<_, _>>()?;
                let rows = client
                    .query("/* wanted */ SELECT adapter FROM posthaste.adapter_state WHERE wanted = 'STOPPED'", &[])
                    .await?;
                let stopped = rows.iter().map(|row| AdapterName::new(row.get(0))).collect();
                let clock = client
                    .query_one("/* clock */ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", &[])
                    .await?
                    .get(0);
                let row = client.query_one(&check_home_sql(), &[]).await?;
                let (home, epoch) = (home_check_of(&row), epoch_of(&row));
                Ok(Beat { live: live == 1, clock, instances, stopped, home, epoch })
            })
            .await
    }

    /// Raises the epoch by one, unless somebody else has done so meanwhile.
    pub async fn raise_epoch(&self, from: Epoch) -> Result<Option<Epoch>, StoreError> {
        let number = i64::try_from(from.number).unwrap_or(i64::MAX);
        self.beat
            .run(async |client| {
                let row = client.query_opt(RAISE, &[&from.home.0, &number, &from.token]).await?;
                Ok(row.map(|row| epoch_from(HomeId(row.get(0)), row.get(1), row.get(2))))
            })
            .await
    }
}

pub(super) fn check_home_sql() -> String {
    format!("/* check_home */ SELECT h.id, {KNOWN}, {FOUND}, h.epoch, h.epoch_token FROM {OF_HOME}")
}

/// Of the same row.
pub(super) fn epoch_of(row: &tokio_postgres::Row) -> Epoch {
    epoch_from(HomeId(row.get(0)), row.get(3), row.get(4))
}

pub(super) fn epoch_from(home: HomeId, number: i64, token: Uuid) -> Epoch {
    Epoch { home, number: u64::try_from(number).unwrap_or_default(), token }
}

pub(super) fn home_check_of(row: &tokio_postgres::Row) -> HomeCheck {
    let (known, found): (Facts, Facts) = (row.get(1), row.get(2));
    moved(&known, &found).map_or_else(|| HomeCheck::Same(HomeId(row.get::<_, Uuid>(0))), HomeCheck::Moved)
}

pub(super) fn instance_of(row: &tokio_postgres::Row) -> Result<Instance, StoreError> {
    let seen: serde_json::Value = row.try_get("seen")?;
    Ok(Instance {
        incarnation: Incarnation(row.try_get("incarnation")?),
        name: row.try_get("name")?,
        heartbeat: row.try_get("heartbeat")?,
        configuration_hash: row.try_get("configuration_hash")?,
        serves: row.try_get("serves")?,
        seen: serde_json::from_value(seen)
            .map_err(|error| StoreError::Unexpected(format!("instance.seen: {error}")))?,
    })
}
