//! Sessions that were closed without an answer: what they were told last their backends may be at for as long as they like,
//! waiting for a standby say. They are counted until their backends are known to be gone, so that they cannot pile up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::types::Type;

use super::connection::Backend;
use super::pool::no_answer;
use super::{Session, StoreError};

/// Places for the sessions of one pool, on the server's side. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_use: usize,
    abandoned: Vec<Backend>,
}

/// Longest wait for the answer which of them are gone.
const LOOK: Duration = Duration::from_secs(5);

/// Those of them that are still there. Under another role the time is not shown; then the pid alone tells.
const STILL_THERE: &str = "/* still_there */
SELECT gone.pid FROM unnest($1::int4[], $2::int8[]) gone(pid, started)
JOIN pg_catalog.pg_stat_activity a ON a.pid = gone.pid
WHERE gone.started IS NULL OR a.backend_start IS NULL
   OR (pg_catalog.date_part('epoch', a.backend_start) * 1000000)::bigint = gone.started";

impl Places {
    /// Twice as many as the pool has sessions: those that a silent network has cost do not hold up the next ones.
    pub(super) fn of_pool(max_size: usize) -> Self {
        let most = max_size.max(2).saturating_mul(2);
        Self(Arc::new(Inner { most, taken: Mutex::default() }))
    }

    /// `None`: the server may be at work for too many that nobody waits for.
    pub(super) fn take(&self) -> Option<Place> {
        let mut taken = self.lock();
        let free = taken.in_use + taken.abandoned.len() < self.0.most;
        free.then(|| {
            taken.in_use += 1;
            Place { places: self.clone() }
        })
    }

    /// For asking who is gone, when there is no place left.
    pub(super) fn one_more(&self) -> Place {
        self.lock().in_use += 1;
        Place { places: self.clone() }
    }

    /// Whether there are no more than there may be.
    fn enough(&self) -> Result<(), StoreError> {
        let taken = self.lock();
        if taken.in_use + taken.abandoned.len() <= self.0.most {
            return Ok(());
        }
        let abandoned = taken.abandoned.len();
        Err(StoreError::Unreachable(format!(
            "{abandoned} sessions had no answer, and the server is still at work for them"
        )))
    }

    /// Sessions whose end is not known.
    pub(super) fn abandoned(&self) -> usize {
        self.lock().abandoned.len()
    }

    /// Asks which of those that got no answer are gone; the session is the caller's when that leaves a place for it.
    ///
    /// # Errors
    /// `Unreachable`, whatever came of the question: for the caller nothing was sent.
    pub(super) async fn look(&self, session: Session) -> Result<Session, StoreError> {
        let looked = tokio::time::timeout(LOOK, self.ask(session.client()?)).await;
        let looked = looked.unwrap_or_else(|_elapsed| Err(no_answer(LOOK)));
        looked.map_err(|error| StoreError::Unreachable(error.to_string()))?;
        match self.enough() {
            Ok(()) => Ok(session),
            Err(error) => {
                session.release();
                Err(error)
            }
        }
    }

    async fn ask(&self, client: &ClientWrapper) -> Result<(), StoreError> {
        let asked = self.lock().abandoned.clone();
        let pids: Vec<i32> = asked.iter().map(|one| one.pid).collect();
        let started: Vec<Option<i64>> = asked.iter().map(|one| one.started).collect();
        let rows = client.query_typed(STILL_THERE, &[(&pids, Type::INT4_ARRAY), (&started, Type::INT8_ARRAY)]).await?;
        let alive: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        // Those that came after the question stay.
        self.lock().abandoned.retain(|one| !asked.contains(one) || alive.contains(&one.pid));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them; free when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
}

impl Place {
    /// The session that had it is closed, and its backend may be at work.
    pub(super) fn abandon(&self, backend: Option<Backend>) {
        self.places.lock().abandoned.extend(backend);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().in_use -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_use_and_who_was_abandoned_share_twice_the_places_of_the_pool() {
        let places = Places::of_pool(2);
        let mut used: Vec<Place> = (0..4).filter_map(|_| places.take()).collect();
        assert!(used.len() == 4 && places.take().is_none());
        let last = used.pop().unwrap();
        last.abandon(Some(Backend { pid: 1, started: Some(1) }));
        drop(last);
        assert!(places.abandoned() == 1 && places.take().is_none());
        drop(used.pop());
        assert!(places.take().is_some());
    }

    #[test]
    fn a_pool_of_one_may_lose_some_before_it_stops() {
        let places = Places::of_pool(1);
        assert_eq!((0..9).filter_map(|_| places.take()).map(std::mem::forget).count(), 4);
        let one_more = places.one_more();
        assert!(places.enough().is_err());
        drop(one_more);
        assert!(places.enough().is_ok());
    }
}
