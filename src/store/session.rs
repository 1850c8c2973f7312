//! A session: a connection that is closed when an answer of it may be unread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use deadpool_postgres::ClientWrapper;

use super::StoreError;
use super::abandoned::Place;
use super::connection::Object;
use super::names::Kept;

/// A session that has carried more at once does not go back to its pool: its client's buffers keep the size of the largest
/// that they have held, twice over for what is sent. What is sent or read with less is worth less than a new session.
const KEPT: usize = 4 << 20;

/// One connection, taken out of its pool. Dropped without `release`, it is closed: a reply may be unread.
#[derive(Debug)]
pub struct Session {
    object: Option<Object>,
    place: Place,
    /// Of its server's words that a commit did not wait to the end: those that speak of earlier commits.
    before: AtomicU64,
    /// It is closed even when it is released.
    spoilt: AtomicBool,
}

impl Session {
    pub(super) fn new(object: Object, place: Place) -> Self {
        let before = object.waits_cancelled().into();
        Self { object: Some(object), place, before, spoilt: AtomicBool::new(false) }
    }

    fn waits_cancelled(&self) -> u64 {
        self.object.as_ref().map_or(0, |object| object.waits_cancelled())
    }

    /// Right before a commit is sent: what was said until now does not speak of it.
    pub(super) fn expect_no_warning(&self) {
        self.before.store(self.waits_cancelled(), Ordering::Relaxed);
    }

    /// Whether the commits that were answered have waited for the standby, where there is one.
    ///
    /// # Errors
    /// `Unknown`: the wait was cancelled. It is done, and a fail-over may undo it.
    pub(super) fn waited(&self) -> Result<(), StoreError> {
        if self.waits_cancelled() == self.before.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(StoreError::Unknown("its wait for the synchronous standby was cancelled".to_owned()))
    }

    pub fn client(&self) -> Result<&ClientWrapper, StoreError> {
        match &self.object {
            Some(object) => Ok(object),
            None => Err(StoreError::Unexpected("the session was given back".to_owned())),
        }
    }

    /// Begins a transaction in which an application's steps run, with its search path.
    pub(super) fn begin(&self) -> &str {
        self.object.as_ref().map_or(&Kept::AsBegun, |object| &object.kept).begin()
    }

    /// Back into the pool: every reply was read and no transaction is open.
    pub fn release(mut self) {
        let Some(object) = self.object.take() else { return };
        if self.spoilt.load(Ordering::Relaxed) {
            // Its server has nothing left to do.
            drop(Object::take(object));
        }
    }

    /// Nobody is to have it after this.
    pub(super) fn spoil(&self) {
        self.spoilt.store(true, Ordering::Relaxed);
    }

    /// So many bytes of bodies are about to go through it, all at once.
    pub(super) fn carries(&self, bytes: usize) {
        if bytes > KEPT {
            self.spoil();
        }
    }

    /// Plans that this error may come from are not used again.
    pub(super) fn heed(&self, error: &StoreError) {
        if error.may_be_stale_plan() {
            self.spoil();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            self.place.abandon(object.backend);
            drop(Object::take(object));
        }
    }
}
