//! What clients send, and what they were told.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;

use crate::instance::Instance;
use crate::support::{LONG, eventually};

/// What a client knows of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// 202, or 304 to the repeat of an unknown one.
    Accepted,
    /// Explicitly: nothing was done, and nothing will be.
    Refused,
    /// No answer, or one that says so.
    Unknown,
}

#[derive(Debug, Clone)]
pub struct Message {
    pub id: String,
    /// The adapter that processes it, and the queue on the way to it.
    pub queue: &'static str,
    /// It fails until the databases are changed.
    pub fails: bool,
    pub told: Told,
}

/// All messages of a case.
#[derive(Default)]
pub struct Messages {
    all: Mutex<Vec<Message>>,
    next: AtomicU32,
}

/// In one batch. One of them fails.
const BATCH: usize = 6;
/// Until the next batch.
const PATIENCE: Duration = Duration::from_secs(4);
/// More would not help.
const BATCHES: u32 = 4;

impl Messages {
    pub fn all(&self) -> Vec<Message> {
        self.all.lock().unwrap().clone()
    }

    fn mint(&self, queue: &'static str, fails: bool) -> Message {
        let id = format!("{queue}-{}", self.next.fetch_add(1, Ordering::Relaxed));
        Message { id, queue, fails, told: Told::Unknown }
    }

    /// Sends a batch, all at once, of which one fails.
    pub async fn send(&self, to: &Instance, queue: &'static str) {
        self.send_batch(to, queue, true).await;
    }

    async fn send_batch(&self, to: &Instance, queue: &'static str, one_fails: bool) {
        let batch: Vec<Message> = (0..BATCH).map(|n| self.mint(queue, one_fails && n == BATCH / 2)).collect();
        let told = join_all(batch.into_iter().map(async |message| {
            let told = post(to, &message, false).await;
            Message { told, ..message }
        }));
        let told = told.await;
        self.all.lock().unwrap().extend(told);
    }

    /// Sends batches, so many at once, until the armed point is met. One message of those sent at once fails: a group
    /// over several databases in which more than a few fail is none any more, and for a while nor are others.
    pub async fn send_until_hit(&self, to: &Instance, queue: &'static str, at_once: usize) {
        for _ in 0..BATCHES {
            if to.was_hit() {
                return;
            }
            join_all((0..at_once).map(|batch| self.send_batch(to, queue, batch == 0))).await;
            let started = std::time::Instant::now();
            while started.elapsed() < PATIENCE && !to.was_hit() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        to.hit(Duration::ZERO).await;
    }

    /// Clients that were told nothing repeat their messages until they know (I3).
    pub async fn repeat_unknown(&self, to: &Instance) {
        let unknown = self.all().into_iter().filter(|message| message.told == Told::Unknown);
        let known: Vec<Arc<str>> = join_all(unknown.map(async |message| {
            let probe = async || {
                to.revive();
                match post(to, &message, true).await {
                    Told::Accepted => Ok(()),
                    told => Err(format!("{told:?}")),
                }
            };
            eventually(&format!("{} is accepted", message.id), LONG, probe).await;
            message.id.into()
        }))
        .await;
        for message in self.all.lock().unwrap().iter_mut() {
            if known.iter().any(|id| **id == *message.id) {
                message.told = Told::Accepted;
            }
        }
    }
}

/// `repeated`: then 304 is an answer, too.
async fn post(to: &Instance, message: &Message, repeated: bool) -> Told {
    let body = if message.fails { "refused" } else { "taken" };
    let Ok(reply) = to.post(&format!("/api/{}", message.queue), &message.id, body).await else {
        return Told::Unknown;
    };
    match (reply.status, reply.header("x-outcome")) {
        (202, _) => Told::Accepted,
        (304, _) if repeated => Told::Accepted,
        (503, "none") => Told::Refused,
        (503, "unknown") => Told::Unknown,
        _ => panic!("{}: {reply:?}", message.id),
    }
}
