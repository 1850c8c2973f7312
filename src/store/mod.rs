//! PostgreSQL: the only module that names its client.

mod accept;
mod adapter_state;
mod adopt;
mod audit;
mod browse;
mod cleanup;
mod error;
mod give_up;
mod home;
mod instance;
mod lifecourse;
mod mark;
mod message_status;
pub mod migrate;
mod params;
mod pool;
mod prove;
mod prove_rules;
mod receive;
mod remove;
mod resend;
mod row;
mod settings;
mod stored;
mod sweep;
mod trace;
mod work;

pub use accept::{AcceptRequest, Inserted, LogEntry, Outgoing, PUBLISH_AFTER, Winner};
pub use adapter_state::{AdapterWish, Wish};
pub use audit::AuditEntry;
pub use browse::{COUNT_CAP, Cursor, Filter, MAX_PAGE, Page, SlotCount};
pub use cleanup::{Removed, Retention};
pub use error::StoreError;
pub use give_up::GivenUpBy;
pub use home::{HomeDecision, HomeSettled, settle_home};
pub use instance::{Beat, HomeCheck, Instance, Registration};
pub use lifecourse::{Attempt, AttemptOutcome, Cause, MessageState};
pub use mark::Mark;
pub use message_status::MessageStatus;
pub use params::{BadParameter, StepParam};
pub use pool::{Pool, Session};
pub use prove::{Count, Finding, Load, Offender, SlotRows, Snapshot, Standing};
pub use prove_rules::Rule;
pub use receive::{FailedAttempt, JournalRow};
pub use remove::{Removal, RemovalRequest};
pub use resend::{ResendClaim, ResendRequest, ResendWay};
pub use settings::{PostgresSettings, SessionTimeouts};
pub use stored::{FullMessage, StoredMessage};
pub use sweep::{Claimed, OpenBefore, OpenRow};
pub use trace::{AuditRecord, JournalEntry, Trace, TracedMessage};
pub use work::{Claim, CommitError, WorkTransaction};

use std::sync::{Arc, OnceLock};

use crate::model::{HomeId, Incarnation};

/// The home database: one pool per purpose, opened when first used. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    /// Accepting: short statements that clients wait for.
    pub accept: Pool,
    /// Processing: transactions of the pipelines of receivers.
    pub work: Pool,
    /// Accepting by a pipeline in a transaction: long ones, kept apart from what receivers and short statements need.
    pub submit: Pool,
    /// Sweeping, leases, browsing, clean-up.
    pub house: Pool,
    /// The heart-beat's own connection.
    pub beat: Pool,
    pub incarnation: Incarnation,
    home: Arc<OnceLock<HomeId>>,
}

/// Connections that accept messages; a group commit needs few.
const ACCEPT_CONNECTIONS: usize = 8;
/// Connections for accepting pipelines that are more than an enqueue.
const SUBMIT_CONNECTIONS: usize = 8;
/// Connections that keep house: sweeper, heart-beat, console.
const HOUSE_CONNECTIONS: usize = 6;

impl Store {
    /// # Errors
    /// `Unexpected` when the url cannot be read. The database itself is not asked.
    pub fn new(
        settings: &PostgresSettings,
        incarnation: Incarnation,
        timeouts: SessionTimeouts,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            accept: Pool::new(settings, incarnation, timeouts, ACCEPT_CONNECTIONS)?,
            work: Pool::new(settings, incarnation, timeouts, settings.pool_max_size)?,
            submit: Pool::new(settings, incarnation, timeouts, SUBMIT_CONNECTIONS)?,
            house: Pool::new(settings, incarnation, timeouts, HOUSE_CONNECTIONS)?,
            beat: Pool::new(settings, incarnation, timeouts, 1)?,
            incarnation,
            home: Arc::default(),
        })
    }

    /// Whether the database answers a trivial question now.
    pub async fn answers(&self) -> bool {
        self.work.run(async |client| Ok(client.batch_execute("/* answers */ SELECT 1").await?)).await.is_ok()
    }

    /// The home's identity, once this instance is registered there.
    #[must_use]
    pub fn home(&self) -> Option<HomeId> {
        self.home.get().copied()
    }
}
