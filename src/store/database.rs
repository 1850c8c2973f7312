//! The databases beside the home: where adapters write, and where branches of their transactions are prepared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::ClientWrapper;

use super::branch::finish_on;
use super::durable::Durable;
use super::pool::{WHERE, another_server};
use super::rehearsal::{REHEARSAL, rehearse};
use super::together::PlainTables;
use super::{BranchTransaction, Plans, Pool, PostgresSettings, SessionTimeouts, Store, StoreError, Target};
use crate::model::{HomeId, Incarnation};
use crate::txn::Gid;
use crate::txn::faults::{Point, reach};
use crate::txn::ports::{self, DecidedBranch, Finished, InDoubt, Mark};
use crate::txn::protocol::Outcome;

/// Connections per database that finish what others have prepared.
const HOUSE_CONNECTIONS: usize = 3;

/// One `postgres` entry that is not the home. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    pub(super) name: String,
    /// Branches of receivers and accepting pipelines.
    pub(super) work: Pool,
    /// Recovery, and sessions that take the place of lost ones.
    pub(super) house: Pool,
    durable: Durable,
    pub(super) application_name: String,
    /// Where many rows may go in one statement.
    pub(super) plain_tables: PlainTables,
    /// Whether adapters may have transactions prepared there.
    prepares: bool,
    /// Where it is, once it was found fit.
    place: Arc<OnceLock<String>>,
    /// Until then: why it is not used.
    waits: Arc<Mutex<String>>,
}

/// All of them, and which are really one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Databases {
    entries: Arc<BTreeMap<String, Database>>,
    home: Arc<str>,
    home_place: Arc<OnceLock<String>>,
    /// Per place, the entry through which it is used: the first that was admitted.
    used: Arc<Mutex<BTreeMap<String, String>>>,
}

/// A standby lists nothing, and another server knows nothing: neither must be taken for "nothing is prepared".
const WHO_ANSWERS: &str = "/* who_answers */
SELECT pg_is_in_recovery(), (pg_control_system()).system_identifier::text || '/' || current_database()";
const IN_DOUBT: &str = "/* in_doubt */
SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 AS age FROM pg_prepared_xacts
WHERE database = current_database() AND (gid LIKE $1 || '%' OR gid LIKE 'posthaste-rehearsal:%') ORDER BY prepared";
/// A rehearsal takes some milliseconds: what is older is nobody's.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Not for every round: it stops the lock manager for a moment.
const LOCKS: &str = "/* in_doubt_locks */
SELECT p.gid, count(*) FROM pg_prepared_xacts p
JOIN pg_locks x ON x.locktype = 'transactionid' AND x.transactionid = p.transaction AND x.pid IS NULL
JOIN pg_locks l ON l.virtualtransaction = x.virtualtransaction AND l.pid IS NULL
WHERE p.database = current_database() AND p.gid LIKE $1 || '%' GROUP BY p.gid";

/// Its commit log remembers, on the same timeline.
const COMMITTED: &str = "/* branch_committed */
SELECT CASE WHEN ('x' || lpad(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 16, '0'))::bit(64)::bigint = $2
            THEN pg_xact_status($1::text::xid8) END";

impl Databases {
    /// All entries but the home. Opens no connection yet.
    pub(super) fn new(
        settings: &[PostgresSettings],
        home: &str,
        incarnation: Incarnation,
        timeouts: SessionTimeouts,
    ) -> Result<Self, StoreError> {
        let mut entries = BTreeMap::new();
        for entry in settings.iter().filter(|entry| entry.name != home) {
            let place = Arc::default();
            let house = Pool::new(entry, incarnation, timeouts, HOUSE_CONNECTIONS)?;
            let database = Database {
                name: entry.name.clone(),
                work: Pool::at(entry, incarnation, timeouts, entry.pool_max_size, &place)?,
                durable: Durable::new(house.clone()),
                house,
                application_name: super::instance::application_name(incarnation),
                plain_tables: PlainTables::default(),
                prepares: entry.branches > 0,
                place,
                waits: Arc::new(Mutex::new(format!("database {} was not reached yet", entry.name))),
            };
            entries.insert(entry.name.clone(), database);
        }
        Ok(Self { entries: Arc::new(entries), home: home.into(), home_place: Arc::default(), used: Arc::default() })
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Learns where the home is; to be called before anything is written.
    pub(super) async fn locate_home(&self, home: &Pool) -> Result<(), StoreError> {
        let _known = self.home_place.set(place_of(home).await?);
        Ok(())
    }

    /// Takes an entry into use: from now on adapters may write there.
    ///
    /// # Errors
    /// It did not answer, or what is prepared there could not be finished; it is not used.
    pub async fn admit(&self, name: &str) -> Result<(), StoreError> {
        if let Some(entry) = self.entries.get(name) {
            let place = place_of(&entry.house).await?;
            if entry.prepares && self.home_place.get() != Some(&place) {
                rehearse(&entry.work, &entry.house).await?;
            }
            let mut used = lock(&self.used);
            used.entry(place.clone()).or_insert_with(|| name.to_owned());
            // Whoever uses a database knows where it is: its sessions are compared with that.
            let _known = entry.place.set(place);
        }
        Ok(())
    }

    /// Says, for people, why an entry is not used yet.
    pub fn keep_out(&self, name: &str, reason: String) {
        if let Some(entry) = self.entries.get(name) {
            *lock(&entry.waits) = reason;
        }
    }

    /// Entries that are not used yet, and why.
    #[must_use]
    pub fn waiting(&self) -> Vec<(String, String)> {
        let waits = self.entries.values().filter(|entry| entry.place.get().is_none());
        waits.map(|entry| (entry.name.clone(), lock(&entry.waits).clone())).collect()
    }

    /// Two entries with the same system identifier and database are one participant: the home, or the one that was
    /// admitted first.
    ///
    /// # Errors
    /// `Unexpected`: no such entry. `Unreachable`: it is not used yet.
    pub fn target(&self, name: &str) -> Result<Target<'_>, StoreError> {
        if name == &*self.home {
            return Ok(Target::Home);
        }
        let Some(entry) = self.entries.get(name) else {
            return Err(StoreError::Unexpected(format!("there is no postgres entry {name}")));
        };
        let Some(place) = entry.place.get() else {
            return Err(StoreError::Unreachable(lock(&entry.waits).clone()));
        };
        if self.home_place.get() == Some(place) {
            return Ok(Target::Home);
        }
        let used = lock(&self.used).get(place).and_then(|name| self.entries.get(name));
        Ok(Target::Branch(used.unwrap_or(entry)))
    }

    /// All entries that are not the home, for recovery: also those that are not used yet, and two that lead to one
    /// database, for an instance before this one may have used it through the other, as another user.
    #[must_use]
    pub fn participants(&self) -> Vec<Database> {
        let beside = |database: &&Database| !matches!(self.target(&database.name), Ok(Target::Home));
        self.entries.values().filter(beside).cloned().collect()
    }
}

impl Store {
    /// As [`Databases::admit`], once it is known where the home is.
    ///
    /// # Errors
    /// The same, and when the home does not answer.
    pub async fn admit(&self, name: &str) -> Result<(), StoreError> {
        if self.databases.home_place.get().is_none() {
            self.databases.locate_home(&self.house).await?;
        }
        self.databases.admit(name).await
    }
}

impl Database {
    /// The `postgres` entry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens a branch.
    pub async fn begin(&self) -> Result<BranchTransaction, StoreError> {
        self.begin_with(Plans::Kept).await
    }

    /// The same.
    pub async fn begin_with(&self, plans: Plans) -> Result<BranchTransaction, StoreError> {
        BranchTransaction::begin(self, plans).await
    }

    /// Whoever has tried whether this database prepares was killed in the middle.
    async fn forget_rehearsal(&self, gid: &String) {
        let Ok(session) = self.house.session().await else { return };
        match finish_on(&self.house, session, gid, Outcome::Abort).await {
            Ok((_, session)) => session.release(),
            Err(reason) => tracing::debug!(gid, reason, "a rehearsal's transaction stays for now"),
        }
    }

    /// How many locks each prepared transaction of this home holds here.
    pub(super) async fn locks(&self, home: HomeId) -> Result<BTreeMap<String, i64>, StoreError> {
        let prefix = Gid::prefix(home);
        let rows = self.house.run(async |client| Ok(client.query(LOCKS, &[&prefix]).await?)).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Refuses a standby, and a server that has taken the place of the one that was admitted.
    pub(super) async fn same_server(&self, client: &ClientWrapper) -> Result<(), StoreError> {
        let row = client.query_one(WHO_ANSWERS, &[]).await?;
        if row.get(0) {
            return Err(StoreError::Unreachable(format!("database {} is a standby", self.name)));
        }
        match another_server(&self.name, self.place.get(), row.get(1)) {
            Some(reason) => Err(StoreError::Unreachable(reason)),
            None => Ok(()),
        }
    }

    #[must_use]
    pub(super) fn located(&self) -> &str {
        self.place.get().map_or("", String::as_str)
    }
}

fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn place_of(pool: &Pool) -> Result<String, StoreError> {
    pool.run(async |client| Ok(client.query_one(WHERE, &[]).await?.get(0))).await
}

#[async_trait]
impl ports::Database for Database {
    type Error = StoreError;

    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> Option<&str> {
        self.place.get().map(String::as_str)
    }

    async fn in_doubt(&self, home: HomeId) -> Result<Vec<InDoubt>, StoreError> {
        let prefix = Gid::prefix(home);
        let rows = self
            .house
            .run(async |client| {
                self.same_server(client).await?;
                Ok(client.query(IN_DOUBT, &[&prefix]).await?)
            })
            .await?;
        for row in rows.iter().filter(|row| row.get::<_, f64>(1) > FORGOTTEN.as_secs_f64()) {
            let gid: String = row.get(0);
            if gid.starts_with(REHEARSAL) {
                self.forget_rehearsal(&gid).await;
            }
        }
        let read = |row: &tokio_postgres::Row| {
            let gid = Gid::parse(row.get(0))?;
            let age = Duration::try_from_secs_f64(row.get(1)).unwrap_or_default();
            Some(InDoubt { gid, age })
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    async fn has_committed(&self, branch: &DecidedBranch) -> Result<bool, StoreError> {
        let Mark { xid, timeline } = branch.mark;
        let answer = self
            .house
            .run(async |client| {
                self.same_server(client).await?;
                let row = client.query_one(COMMITTED, &[&xid.to_string(), &timeline]).await?;
                match row.get::<_, Option<&str>>(0) {
                    Some("committed") => Ok(true),
                    // Another timeline, too long ago, or somebody's ROLLBACK PREPARED.
                    None | Some("aborted") => Ok(false),
                    Some(status) => Err(StoreError::Unexpected(format!("{gid} is {status}", gid = branch.gid))),
                }
            })
            .await;
        match answer {
            // An xid that this server has not reached yet.
            Err(StoreError::Refused { sqlstate, .. }) if sqlstate == "22023" => Ok(false),
            // Its decision is forgotten next.
            Ok(true) => self.durable.write().await.map(|()| true),
            answer => answer,
        }
    }

    async fn finish(&self, gid: &Gid, outcome: Outcome) -> Finished {
        if let Err(injected) = reach(Point::RC4).await {
            return Finished::NotYet(injected.to_string());
        }
        let session = match self.house.session().await {
            Ok(session) => session,
            Err(error) => return Finished::NotYet(error.to_string()),
        };
        let end = finish_on(&self.house, session, gid, outcome).await;
        match reach(Point::RC5).await {
            Ok(()) => end.map_or_else(Finished::NotYet, |(end, session)| {
                session.release();
                end
            }),
            Err(injected) => Finished::NotYet(injected.to_string()),
        }
    }
}
