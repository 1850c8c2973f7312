//! This instance among the others, and the home it belongs to (protocol §3, §5, §6).

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Store, StoreError};
use crate::model::{AdapterName, HomeId, Incarnation};

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
    /// A clone, or a restored or failed-over server: nothing is swept or consumed until an operator says which.
    Moved {
        known: String,
        found: String,
    },
}

impl HomeCheck {
    /// What an operator is told; empty when there is nothing to say.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Same(_) => String::new(),
            Self::Moved { known, found } => format!(
                "this database lived in {known} and is now in {found}: a clone, a restored copy, or a fail-over. Nothing \
                 is sent or processed until you say which: `posthaste migrate --home same` when it took the other's \
                 place, `--home copy` when the other lives on"
            ),
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
}

pub(super) const WHERE_AM_I: &str = "(pg_control_system()).system_identifier::text,
    ('x' || lpad(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 16, '0'))::bit(64)::bigint";

impl Store {
    /// Commits this incarnation's row, before anything else is written, and learns the home's identity.
    pub async fn register(&self, registration: &Registration<'_>) -> Result<HomeCheck, StoreError> {
        let check = self.check_home().await?;
        let HomeCheck::Same(home) = check else { return Ok(check) };
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

    /// Compares the server with the one that this home lived in last.
    pub async fn check_home(&self) -> Result<HomeCheck, StoreError> {
        let sql = format!("/* check_home */ SELECT id, system_identifier, timeline, {WHERE_AM_I} FROM posthaste.home");
        self.house
            .run(async |client| {
                let row = client.query_one(&sql, &[]).await?;
                let known = format!("system {} timeline {}", row.get::<_, String>(1), row.get::<_, i64>(2));
                let found = format!("system {} timeline {}", row.get::<_, String>(3), row.get::<_, i64>(4));
                Ok(if known == found {
                    HomeCheck::Same(HomeId(row.get::<_, Uuid>(0)))
                } else {
                    HomeCheck::Moved { known, found }
                })
            })
            .await
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
                let rows = client
                    .query(
                        "/* live_instances */ SELECT incarnation, name, heartbeat, configuration_hash, serves, seen
                         FROM posthaste.instance WHERE state = 'LIVE'",
                        &[],
                    )
                    .await?;
                let instances = rows.iter().map(instance_of).collect::<Result<_, _>>()?;
                let rows = client
                    .query("/* wanted */ SELECT adapter FROM posthaste.adapter_state WHERE wanted = 'STOPPED'", &[])
                    .await?;
                let stopped = rows.iter().map(|row| AdapterName::new(row.get(0))).collect();
                let clock = client
                    .query_one("/* clock */ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", &[])
                    .await?
                    .get(0);
                Ok(Beat { live: live == 1, clock, instances, stopped })
            })
            .await
    }

    /// Fences an instance whose counter still stands where it stood for a whole lease. `false`: it lives after all.
    pub async fn fence(&self, incarnation: Incarnation, heartbeat: i64) -> Result<bool, StoreError> {
        self.house
            .run(async |client| {
                let fenced = client
                    .execute(
                        "/* fence */ UPDATE posthaste.instance
                         SET state = 'FENCED', fenced_at = clock_timestamp(), fenced_by = $3
                         WHERE incarnation = $1 AND heartbeat = $2 AND state = 'LIVE'",
                        &[&incarnation.0, &heartbeat, &self.incarnation.0],
                    )
                    .await?;
                Ok(fenced == 1)
            })
            .await
    }

    /// At the end of a graceful stop: whatever we left is nobody's now.
    pub async fn sign_off(&self) -> Result<(), StoreError> {
        self.house
            .run(async |client| {
                client
                    .execute(
                        "/* sign_off */ UPDATE posthaste.instance
                         SET state = 'FENCED', fenced_at = clock_timestamp(), fenced_by = incarnation
                         WHERE incarnation = $1 AND state = 'LIVE'",
                        &[&self.incarnation.0],
                    )
                    .await?;
                Ok(())
            })
            .await
    }
}

fn instance_of(row: &tokio_postgres::Row) -> Result<Instance, StoreError> {
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
