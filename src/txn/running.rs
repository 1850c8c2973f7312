//! Which transactions this process coordinates right now, and which decisions nobody needs any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::gid::{Gid, Gtrid};

/// Decisions that wait to be removed; beyond, the janitor finds them by itself.
const MOST_FORGOTTEN: usize = 10_000;

/// Shared by coordinators and the janitor. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Coordinators(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    running: BTreeSet<Gtrid>,
    forgotten: Vec<Gtrid>,
    /// Lost branches that were told of.
    alarmed: BTreeSet<Gid>,
}

/// While it lives, the janitor leaves this transaction alone.
#[derive(Debug)]
#[must_use = "dropped at once, it protects nothing"]
pub struct AtWork {
    coordinators: Coordinators,
    gtrid: Gtrid,
}

impl Coordinators {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enter(&self, gtrid: Gtrid) -> AtWork {
        self.lock().running.insert(gtrid);
        AtWork { coordinators: self.clone(), gtrid }
    }

    #[must_use]
    pub fn runs(&self, gtrid: Gtrid) -> bool {
        self.lock().running.contains(&gtrid)
    }

    /// All branches of a committed transaction are gone: its decision may go.
    pub fn forget(&self, gtrid: Gtrid) {
        let mut known = self.lock();
        if known.forgotten.len() < MOST_FORGOTTEN {
            known.forgotten.push(gtrid);
        }
    }

    /// Whether nobody here was told of this lost branch before.
    #[must_use]
    pub fn first_alarm(&self, gid: Gid) -> bool {
        let mut known = self.lock();
        if known.alarmed.len() >= MOST_FORGOTTEN {
            known.alarmed.clear();
        }
        known.alarmed.insert(gid)
    }

    /// For the janitor: what may be removed now.
    #[must_use]
    pub fn take_forgotten(&self) -> Vec<Gtrid> {
        std::mem::take(&mut self.lock().forgotten)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.coordinators.lock().running.remove(&self.gtrid);
    }
}
