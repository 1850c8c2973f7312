//! PostgreSQL: the only module that names its client.

mod abandoned;
mod accept;
mod accept_group;
mod adapter_state;
mod adopt;
mod ahead;
mod audit;
mod bodies;
mod branch;
mod branch_group;
mod browse;
mod calls;
mod cleanup;
mod cleanup_walk;
mod conflicts;
mod connection;
mod database;
mod decision;
mod doubtful;
mod durable;
mod ending;
mod entry;
mod error;
mod error_depths;
mod fence;
mod gate;
mod give_up;
mod grants;
mod group;
mod home;
mod home_place;
mod insert_rows;
mod instance;
mod lifecourse;
mod mark;
mod message_status;
pub mod migrate;
mod migration;
mod migration_path;
mod names;
mod one_trip;
mod opening;
mod outdated;
mod params;
mod pool;
mod pooled;
mod prepared;
mod privileges;
mod prove;
mod prove_rules;
mod receive;
mod refusals;
mod rehearsal;
mod remove;
mod resend;
mod row;
mod server_facts;
mod session;
mod settings;
mod start;
mod step;
mod stored;
mod sweep;
mod target;
mod together;
mod trace;
mod unsettled;
mod work;

pub use accept::{AcceptRequest, Inserted, LogEntry, Outgoing, PUBLISH_AFTER, Seen, Winner};
pub use adapter_state::{AdapterWish, Wish};
pub use ahead::{LONGEST_PAUSE, WokenPage};
pub use audit::AuditEntry;
pub use branch::BranchTransaction;
pub use browse::{COUNT_CAP, Cursor, Filter, MAX_PAGE, Page, SlotCount};
pub use cleanup::{Batch, Removed, Retention};
pub use cleanup_walk::Part;
pub use conflicts::{AcceptedBody, Conflict, ConflictCursor, ConflictFilter};
pub use database::{Database, Databases};
pub use decision::HomeWork;
pub use doubtful::{Doubtful, DoubtfulList, ResolveRequest, Resolved, Sharer, UnreachableDatabase};
pub use error::StoreError;
pub use error_depths::ErrorDepth;
pub use gate::{Gate, Moment};
pub use give_up::GivenUpBy;
pub use grants::grants_to_run;
pub use group::{FailedCall, StepCall, Wanted};
pub use home::{HomeDecision, HomeSettled, home_epoch, settle_home};
pub use home_place::Moved;
pub use insert_rows::InsertRows;
pub use instance::{Beat, HomeCheck, Instance, Registration, SAY_WHICH};
pub use lifecourse::{Attempt, AttemptOutcome, Cause, MessageState};
pub use mark::{Mark, Unpublished};
pub use message_status::MessageStatus;
pub use opening::Plans;
pub use params::{BadParameter, StepParam};
pub use pool::Pool;
pub use pooled::no_sessions;
pub use prepared::{PreparedLimit, prepared_limit, refuse_small_limits};
pub use prove::{AcceptedIn, Count, Finding, Load, Offender, SlotRows, Snapshot, Standing};
pub use prove_rules::Rule;
pub use receive::{FailedAttempt, JournalRow};
pub use rehearsal::rehearse_at;
pub use remove::{Removal, RemovalRequest};
pub use resend::{ResendClaim, ResendRequest, ResendWay};
pub use server_facts::{
    ClockReading, HomeFacts, OpenSchema, SchemaFacts, ServerFacts, SessionSetting, Setting, Standbys, server_facts,
};
pub use session::Session;
pub use settings::{PostgresSettings, SessionTimeouts};
pub use start::{Excuse, Start, StartRequest};
pub use stored::{FullMessage, StoredMessage};
pub use sweep::{Claimed, OpenRow};
pub use target::Target;
pub use together::InRows;
pub use trace::{AuditRecord, JournalEntry, Trace, TracedMessage};
pub use unsettled::{AuditPage, OpenCount, OpenPage, WatchedPage};
pub use work::{Claim, CommitError, WorkTransaction};

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use self::durable::Durable;
use self::names::Names;
use crate::model::{HomeId, Incarnation};
use crate::txn::Coordinators;

/// The home database: one pool per purpose, opened when first used. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    /// Accepting many messages in one statement: a session per group under way, with short time-outs.
    pub group: Pool,
    /// Accepting one message, and reading who was accepted before: short statements that clients wait for.
    pub accept: Pool,
    /// Processing: transactions of the pipelines of receivers.
    pub work: Pool,
    /// Processing groups that only insert rows: outside their transactions its sessions write nothing.
    pub rows: Pool,
    /// Accepting by a pipeline in a transaction: long ones, kept apart from what receivers and short statements need.
    pub submit: Pool,
    /// Sweeping, leases, browsing, clean-up.
    pub house: Pool,
    /// The heart-beat's own connection.
    pub beat: Pool,
    /// What was found by reading, and is to be answered with.
    durable: Durable,
    /// Whether anything new is sent to be accepted.
    pub gate: Gate,
    /// All others that adapters may write to.
    pub databases: Databases,
    /// Transactions over several of them that this process coordinates.
    pub coordinators: Coordinators,
    pub incarnation: Incarnation,
    /// Where many rows may go in one statement.
    plain_tables: together::PlainTables,
    home: Arc<OnceLock<HomeId>>,
    /// Of its statements.
    names: Names,
    /// Nothing new is decided there now.
    held: Arc<AtomicBool>,
}

/// Groups that are being accepted side by side: while one commits, the next is under way.
pub const GROUP_CONNECTIONS: usize = 2;
/// Connections that accept messages one by one.
const ACCEPT_CONNECTIONS: usize = 8;
/// Connections for accepting pipelines that are more than an enqueue.
pub const SUBMIT_CONNECTIONS: usize = 8;
/// Connections that keep house: sweeper, heart-beat, console.
const HOUSE_CONNECTIONS: usize = 6;

impl Store {
    /// `postgres`: all entries; `home`: the name of one of them.
    ///
    /// # Errors
    /// `Unexpected` when there is no such entry or a url cannot be read. The databases themselves are not asked.
    pub fn new(
        postgres: &[PostgresSettings],
        home: &str,
        incarnation: Incarnation,
        timeouts: SessionTimeouts,
    ) -> Result<Self, StoreError> {
        let Some(settings) = postgres.iter().find(|entry| entry.name == home) else {
            return Err(StoreError::Unexpected(format!("instance.home: there is no postgres entry {home}")));
        };
        let (gate, names) = (Gate::default(), Names::default());
        let pool = |timeouts, max_size| -> Result<Pool, StoreError> {
            Ok(Pool::home(settings, incarnation, timeouts, max_size, &names)?.shutting(&gate))
        };
        Ok(Self {
            group: pool(accept_group::timeouts(timeouts), GROUP_CONNECTIONS)?,
            accept: pool(timeouts, ACCEPT_CONNECTIONS)?,
            work: pool(timeouts, settings.pool_max_size)?,
            // One at a time for each receiver; of those there are no more than `work` has connections.
            rows: Pool::rows(settings, incarnation, timeouts, settings.pool_max_size, &names)?.shutting(&gate),
            submit: pool(timeouts, SUBMIT_CONNECTIONS)?,
            house: pool(timeouts, HOUSE_CONNECTIONS)?,
            beat: pool(timeouts, 1)?,
            durable: Durable::new(pool(timeouts, 1)?),
            databases: Databases::new(postgres, home, incarnation, timeouts)?,
            coordinators: Coordinators::default(),
            plain_tables: together::PlainTables::default(),
            incarnation,
            home: Arc::default(),
            names,
            gate,
            held: Arc::default(),
        })
    }

    /// Whether the home and these entries answer a trivial question now.
    pub async fn answers(&self, entries: &[String]) -> bool {
        let Some(pools) = self.work_pools(entries) else { return false };
        for pool in pools {
            let answer = pool.run(async |client| Ok(client.batch_execute("/* answers */ SELECT 1").await?)).await;
            if answer.is_err() {
                return false;
            }
        }
        // Where commits wait for a standby that is away, nothing would come to its end.
        self.durable.write().await.is_ok()
    }

    /// Whether all that was read here until now outlives a fail-over to the standby, where commits wait for one.
    ///
    /// # Errors
    /// It is not known: nothing may be answered with it.
    pub async fn durable(&self) -> Result<(), StoreError> {
        self.durable.write().await
    }

    /// Whether the home and these entries take a write now that needs some space. A role that may not make a temporary
    /// table is answered, too.
    pub async fn takes_writes(&self, entries: &[String]) -> bool {
        const WRITE: &str = "/* takes_writes */ CREATE TEMPORARY TABLE posthaste_probe ON COMMIT DROP AS
            SELECT pg_catalog.repeat('x', 1000) FROM pg_catalog.generate_series(1, 64)";
        let Some(pools) = self.work_pools(entries) else { return false };
        for pool in pools {
            let answer = pool.transaction(async |client| Ok(client.batch_execute(WRITE).await?)).await;
            if answer.is_err_and(|error| error.is_infrastructure()) {
                return false;
            }
        }
        true
    }

    /// `None`: one was never reached.
    fn work_pools(&self, entries: &[String]) -> Option<Vec<Pool>> {
        let mut pools = vec![self.work.clone()];
        for entry in entries {
            match self.databases.target(entry) {
                Ok(Target::Home) => {}
                Ok(Target::Branch(database)) => pools.push(database.work.clone()),
                Err(_never_reached) => return None,
            }
        }
        Some(pools)
    }

    /// Whether nothing new is decided in the home database: it is another one than before, or an old copy, or the brokers were
    /// not asked yet whether it is.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// A statement's text, with the place of `ibisstore`; to be asked in a session.
    fn sql(&self, text: &'static str) -> Arc<str> {
        self.names.sql(text)
    }

    fn at_home(&self) -> Result<(), StoreError> {
        if self.held.load(Ordering::Relaxed) {
            return Err(StoreError::Unreachable(
                "it is held until it is known to be the home itself; /readyz says more".to_owned(),
            ));
        }
        Ok(())
    }

    /// The home's identity, once this instance is registered there.
    #[must_use]
    pub fn home(&self) -> Option<HomeId> {
        self.home.get().copied()
    }
}
