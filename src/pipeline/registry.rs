//! Every adapter's wanted and actual state: the one place that all views read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::model::{AdapterName, AdapterState};

/// Longest wait of a start or stop for the state to be reached.
pub const CHANGE_BOUND: Duration = Duration::from_secs(25);

/// One adapter's state as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdapterStatus {
    pub name: AdapterName,
    pub configuration: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it listens to, for people: `POST /api/write`, `rabbit/myQueue`; none for a called adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    pub state: AdapterState,
    pub since: Timestamp,
    /// Why it is not what was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when it is not started though it should be, through all states until it is.
    #[serde(skip)]
    pub troubled_since: Option<Timestamp>,
}

impl AdapterStatus {
    fn reaches(&mut self, state: AdapterState, now: Timestamp) {
        self.since = now;
        self.state = state;
        self.troubled_since = match state {
            AdapterState::Started | AdapterState::Stopped => None,
            AdapterState::Starting | AdapterState::Stopping | AdapterState::Error => self.troubled_since.or(Some(now)),
        };
    }
}

/// What an operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Started,
    Stopped,
}

#[derive(Debug)]
struct Entry {
    wanted: watch::Sender<Wanted>,
    status: watch::Sender<AdapterStatus>,
    /// A receiver's supervisor reports the state; otherwise it follows the wish at once.
    supervised: bool,
}

/// Shared by listeners, receivers, `call` steps and the console. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AdapterRegistry {
    entries: Arc<BTreeMap<AdapterName, Entry>>,
    changes: Arc<Changes>,
}

/// Tells a reader of the persisted wishes whether an operator's change came in between.
#[derive(Debug, Default)]
struct Changes {
    open: AtomicU64,
    epoch: AtomicU64,
}

/// An operator's change in progress: what was read from the database meanwhile is not applied.
#[derive(Debug)]
#[must_use = "dropped at once, it protects nothing"]
pub struct Changing(Arc<Changes>);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An adapter as it is announced to the registry.
#[derive(Debug, Clone)]
pub struct Announced {
    pub name: AdapterName,
    pub configuration: String,
    pub description: Option<String>,
    pub listener: Option<String>,
    pub supervised: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("there is no adapter {0}")]
    Unknown(String),
    /// The wish stands; the state is not reached yet.
    #[error("adapter {} is still {} after {} s", .0.name, .0.state, CHANGE_BOUND.as_secs())]
    Slow(Box<AdapterStatus>),
}

impl AdapterRegistry {
    /// All adapters, wanted STARTED; supervised ones are STARTING, the others STARTED.
    #[must_use]
    pub fn new(adapters: Vec<Announced>, now: Timestamp) -> Self {
        let entry = |adapter: Announced| {
            let state = if adapter.supervised { AdapterState::Starting } else { AdapterState::Started };
            let status = AdapterStatus {
                name: adapter.name.clone(),
                configuration: adapter.configuration,
                description: adapter.description,
                listener: adapter.listener,
                state,
                since: now,
                reason: None,
                troubled_since: adapter.supervised.then_some(now),
            };
            let entry = Entry {
                wanted: watch::Sender::new(Wanted::Started),
                status: watch::Sender::new(status),
                supervised: adapter.supervised,
            };
            (adapter.name, entry)
        };
        Self { entries: Arc::new(adapters.into_iter().map(entry).collect()), changes: Arc::default() }
    }

    /// All adapters by name.
    #[must_use]
    pub fn list(&self) -> Vec<AdapterStatus> {
        self.entries.values().map(|entry| entry.status.borrow().clone()).collect()
    }

    #[must_use]
    pub fn get(&self, name: &AdapterName) -> Option<AdapterStatus> {
        self.entries.get(name).map(|entry| entry.status.borrow().clone())
    }

    /// An operator's change begins, before it is persisted.
    pub fn changing(&self) -> Changing {
        self.changes.open.fetch_add(1, Ordering::SeqCst);
        self.changes.epoch.fetch_add(1, Ordering::SeqCst);
        Changing(self.changes.clone())
    }

    /// To be taken before the persisted wishes are read; `None` while an operator's change is in progress.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        let epoch = self.changes.epoch.load(Ordering::SeqCst);
        (self.changes.open.load(Ordering::SeqCst) == 0).then_some(epoch)
    }

    /// Follows the persisted wishes, unless an operator's change came since `epoch` was taken.
    pub fn follow(&self, stopped: &[AdapterName], epoch: Option<u64>, now: Timestamp) {
        if epoch.is_none() || epoch != self.epoch() {
            return;
        }
        for name in self.entries.keys() {
            let wanted = if stopped.contains(name) { Wanted::Stopped } else { Wanted::Started };
            if self.entries.get(name).is_some_and(|entry| *entry.wanted.borrow() != wanted) {
                self.want(name, wanted, now);
            }
        }
    }

    /// Whether the adapter exists and is STARTED.
    #[must_use]
    pub fn is_started(&self, name: &AdapterName) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.status.borrow().state == AdapterState::Started)
    }

    /// Whether an operator wants it started, whatever has been reached.
    #[must_use]
    pub fn is_wanted(&self, name: &AdapterName) -> bool {
        self.entries.get(name).is_some_and(|entry| *entry.wanted.borrow() == Wanted::Started)
    }

    /// Says what is wanted, without waiting. Answers whether that is news.
    pub fn want(&self, name: &AdapterName, wanted: Wanted, now: Timestamp) -> bool {
        let Some(entry) = self.entries.get(name) else { return false };
        let news = entry.wanted.send_replace(wanted) != wanted;
        if !entry.supervised {
            let state = match wanted {
                Wanted::Started => AdapterState::Started,
                Wanted::Stopped => AdapterState::Stopped,
            };
            self.report(name, state, None, now);
        }
        news
    }

    /// Says what is wanted and waits until the state is reached, at most [`CHANGE_BOUND`].
    ///
    /// # Errors
    /// `Unknown`: no such adapter. `Slow`: the wish stands, the state is not reached yet.
    pub async fn change(
        &self,
        name: &AdapterName,
        wanted: Wanted,
        now: Timestamp,
    ) -> Result<AdapterStatus, ChangeError> {
        let entry = self.entries.get(name).ok_or_else(|| ChangeError::Unknown(name.to_string()))?;
        let mut status = entry.status.subscribe();
        self.want(name, wanted, now);
        let reached = status.wait_for(|status| match wanted {
            Wanted::Started => status.state == AdapterState::Started,
            Wanted::Stopped => status.state == AdapterState::Stopped,
        });
        match tokio::time::timeout(CHANGE_BOUND, reached).await {
            Ok(Ok(status)) => Ok(status.clone()),
            Ok(Err(_)) | Err(_) => Err(ChangeError::Slow(Box::new(entry.status.borrow().clone()))),
        }
    }

    /// For a supervisor: follow what is wanted of this adapter.
    #[must_use]
    pub fn wanted(&self, name: &AdapterName) -> Option<watch::Receiver<Wanted>> {
        self.entries.get(name).map(|entry| entry.wanted.subscribe())
    }

    /// For a supervisor: the state has changed.
    pub fn report(&self, name: &AdapterName, state: AdapterState, reason: Option<String>, now: Timestamp) {
        let Some(entry) = self.entries.get(name) else { return };
        entry.status.send_if_modified(|status| {
            if status.state == state && status.reason == reason {
                return false;
            }
            if status.state != state {
                tracing::info!(adapter = %name, was = %status.state, state = %state, reason, "an adapter's state");
                status.reaches(state, now);
            }
            status.reason = reason;
            true
        });
    }
}
