//! Whether a broker has seen more of this home than its database holds: compared on each new connection before anything else
//! goes over it, and again while it lasts (protocol §5).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::connection::{CallError, Handle};
use super::exchanges::{Shown, show, shows, sign_of_newer, take_away};
use super::witness::{Judgement, judge};
use crate::model::Epoch;

/// What the home's database has said.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub epoch: Epoch,
    /// Whether this process has raised it to this.
    pub raised_here: bool,
    /// When it was asked.
    pub asked: Instant,
}

/// A broker was shown an epoch that this database does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newer {
    pub held: u64,
    /// At least; the same number as `held` when another database was raised to it, too.
    pub shown: u64,
}

impl std::fmt::Display for Newer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { held, shown } = self;
        write!(
            f,
            "the broker has seen epoch {shown} of this home, and its database holds epoch {held}: it is an old copy"
        )
    }
}

/// What comparing has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    Agrees,
    Newer(Newer),
}

/// What others may see of a guard.
#[derive(Debug, Clone, Default)]
pub(super) struct GuardView(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    newer: Mutex<Option<Newer>>,
    compared: AtomicBool,
}

impl GuardView {
    pub(super) fn newer(&self) -> Option<Newer> {
        *self.0.newer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was compared since the start.
    pub(super) fn has_compared(&self) -> bool {
        self.0.compared.load(Ordering::Relaxed)
    }
}

/// Of one connection.
pub(super) struct Guard {
    connection: String,
    known: watch::Receiver<Option<Known>>,
    view: GuardView,
    /// What is shown at the broker, as far as this connection has seen to it.
    shown: Option<Epoch>,
    /// What was found to be old.
    old: Option<Epoch>,
    allowed: bool,
}

impl Guard {
    pub(super) fn new(connection: &str, known: watch::Receiver<Option<Known>>) -> Self {
        let connection = connection.to_owned();
        Self { connection, known, view: GuardView::default(), shown: None, old: None, allowed: true }
    }

    pub(super) fn view(&self) -> GuardView {
        self.view.clone()
    }

    /// Compares in full, and shows the database's epoch if the broker does not.
    pub(super) async fn compare(&mut self, handle: &Handle) -> Result<Compared, CallError> {
        let mut epoch = self.latest(None).await?.epoch;
        loop {
            let sign = sign_of_newer(handle, epoch.home, epoch.number).await?;
            if sign.is_none() && self.make(handle, epoch).await? {
                return Ok(self.note(Compared::Agrees));
            }
            let later = self.latest(Some(Instant::now())).await?.epoch;
            match judge(epoch, sign, later) {
                Judgement::Old { shown } => {
                    self.old = Some(later);
                    return Ok(self.note(Compared::Newer(Newer { held: later.number, shown })));
                }
                Judgement::Again => epoch = later,
            }
        }
    }

    /// The database's epoch is another one: shows it, too.
    pub(super) async fn follow(&mut self, handle: &Handle) -> Result<Compared, CallError> {
        let known = self.latest(None).await?;
        let Some(shown) = self.shown.filter(|shown| shown.home == known.epoch.home && self.allowed) else {
            return if self.allowed { self.compare(handle).await } else { Ok(Compared::Agrees) };
        };
        if shown == known.epoch {
            return Ok(Compared::Agrees);
        }
        if known.epoch.number <= shown.number || show(handle, known.epoch, Some(shown.number)).await? != Shown::Done {
            return self.compare(handle).await;
        }
        self.shown = Some(known.epoch);
        if known.raised_here {
            take_away(handle, shown.home, shown.number, known.epoch.number).await?;
        }
        Ok(Compared::Agrees)
    }

    /// Whether what was shown is there still: whoever goes on as this home takes it away. In full only if it is not.
    pub(super) async fn look(&mut self, handle: &Handle) -> Result<Compared, CallError> {
        let Some(shown) = self.shown.filter(|_| self.allowed) else { return Ok(Compared::Agrees) };
        if shows(handle, shown.home, shown.number).await? {
            return Ok(Compared::Agrees);
        }
        self.compare(handle).await
    }

    /// Waits until the database holds another epoch than the one that was found to be old.
    pub(super) async fn until_another(&mut self) -> Result<(), CallError> {
        let old = self.old;
        let another = |known: &Option<Known>| known.is_some_and(|known| Some(known.epoch) != old);
        self.known.wait_for(another).await.map(drop).map_err(closing)
    }

    /// Waits until the database has said something new.
    pub(super) async fn changed(&mut self) {
        if self.known.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// `false`: another database was raised to the same number.
    async fn make(&mut self, handle: &Handle, epoch: Epoch) -> Result<bool, CallError> {
        let there = shows(handle, epoch.home, epoch.number).await?;
        let (connection, number) = (self.connection.as_str(), epoch.number);
        match show(handle, epoch, None).await? {
            Shown::Taken => return Ok(false),
            Shown::NotAllowed => {
                if std::mem::replace(&mut self.allowed, false) {
                    tracing::warn!(
                        amqp.connection = connection,
                        "the user may not make exchanges named posthaste.home.…: an old copy of the home would not be \
                         recognised at this broker; see `posthaste doctor`"
                    );
                }
            }
            Shown::Done if there => self.allowed = true,
            Shown::Done => {
                self.allowed = true;
                tracing::info!(
                    amqp.connection = connection,
                    epoch = number,
                    "the broker did not show this home's epoch: new here, raised just before a crash, or lost there; it \
                     does now"
                );
                // Where the raise was interrupted, what it replaces is still there.
                take_away(handle, epoch.home, number.saturating_sub(1), number).await?;
            }
        }
        self.shown = Some(epoch);
        Ok(true)
    }

    /// What the database says now; `after`: only what it was asked later.
    async fn latest(&mut self, after: Option<Instant>) -> Result<Known, CallError> {
        let fresh = |known: &Option<Known>| known.is_some_and(|known| after.is_none_or(|after| known.asked > after));
        let known = self.known.wait_for(fresh).await.map_err(closing)?;
        known.ok_or_else(|| CallError::Down(WAITS.into()))
    }

    fn note(&self, compared: Compared) -> Compared {
        let newer = match compared {
            Compared::Agrees => None,
            Compared::Newer(newer) => Some(newer),
        };
        *self.view.0.newer.lock().unwrap_or_else(PoisonError::into_inner) = newer;
        self.view.0.compared.store(true, Ordering::Relaxed);
        compared
    }
}

/// What is said of a connection until it is compared.
pub(super) const WAITS: &str = "not compared with the home yet";

fn closing(_closed: watch::error::RecvError) -> CallError {
    CallError::Down("closing".into())
}
