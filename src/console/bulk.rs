//! Many rows at once. The keys are fixed when it starts; the answer is one JSON document that is written while the work
//! goes on, so that neither side waits in silence, and a client that goes away stops it between two rows.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};

use super::Console;
use super::actor::{Acting, ActionBody, bad, not_found, slot_id};
use super::filter::bulk_filter;
use super::slots::refuse_unknown;
use super::stores::RESEND_BOUND;
use crate::inbound::problem::Problem;
use crate::model::{MessageKey, SlotId};
use crate::receiver::ResendOutcome;
use crate::store::{Filter, MAX_PAGE, Removal, RemovalRequest, StoreError};

/// Most rows of one bulk action.
const MAX_KEYS: usize = 10_000;

#[derive(Clone, Copy)]
enum Action {
    Resend,
    Delete,
}

/// What became of one row.
enum Done {
    Succeeded,
    /// Still at work; its trace tells the end.
    Running(Value),
    Failed(Value),
    /// The database is out of reach: the rest is left alone.
    Stop(StoreError),
}

pub(super) async fn resend(
    State(console): State<Console>,
    Path(slot): Path<String>,
    acting: Acting,
    body: Bytes,
) -> Result<Response, Problem> {
    start(console, Action::Resend, &slot, acting, &body).await
}

pub(super) async fn delete(
    State(console): State<Console>,
    Path(slot): Path<String>,
    acting: Acting,
    body: Bytes,
) -> Result<Response, Problem> {
    start(console, Action::Delete, &slot, acting, &body).await
}

async fn start(
    console: Console,
    action: Action,
    slot: &str,
    mut acting: Acting,
    body: &[u8],
) -> Result<Response, Problem> {
    let slot = slot_id(slot)?;
    let body = ActionBody::parse_bulk(body)?;
    body.complete(&mut acting);
    refuse_unknown(&console, &slot).await?;
    let (keys, more) = match (body.keys, body.filter) {
        (Some(keys), None) => (distinct(keys)?, false),
        (None, Some(filter)) => matching(&console, &slot, &bulk_filter(filter)?).await?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(bad("give either \"keys\": [1, 2] or \"filter\": {…}; {} as filter is the whole error store"));
        }
    };
    if keys.is_empty() {
        return Err(not_found(format!("no message in slot {slot} is meant: nothing was done")));
    }
    let job = Job { console, action, slot, acting, confirmed: body.confirmed };
    let body = Body::from_stream(answer(job, keys, more).map(Ok::<_, Infallible>));
    Ok((StatusCode::OK, [(CONTENT_TYPE, "application/json")], body).into_response())
}

fn distinct(mut keys: Vec<MessageKey>) -> Result<Vec<MessageKey>, Problem> {
    keys.sort_unstable();
    keys.dedup();
    if keys.len() > MAX_KEYS {
        return Err(bad(format!("{} keys are too many; at most {MAX_KEYS} at once", keys.len())));
    }
    Ok(keys)
}

/// The rows that match now, oldest first; and whether there are more than fit.
async fn matching(console: &Console, slot: &SlotId, filter: &Filter) -> Result<(Vec<MessageKey>, bool), StoreError> {
    let mut keys = Vec::new();
    let mut cursor = None;
    loop {
        let page = console.store.browse_messages(slot, filter, cursor, MAX_PAGE).await?;
        keys.extend(page.messages.iter().map(|message| message.key));
        cursor = page.next;
        if cursor.is_none() || keys.len() >= MAX_KEYS {
            break;
        }
    }
    let more = cursor.is_some() || keys.len() > MAX_KEYS;
    keys.truncate(MAX_KEYS);
    keys.reverse();
    Ok((keys, more))
}

struct Job {
    console: Console,
    action: Action,
    slot: SlotId,
    acting: Acting,
    confirmed: bool,
}

/// What is known so far, and what is left to do.
struct Progress {
    job: Arc<Job>,
    left: std::vec::IntoIter<MessageKey>,
    succeeded: usize,
    failed: usize,
    running: Vec<Value>,
    more: bool,
    ended: bool,
}

/// `{"total": n, "failed": [` … each as it happens … `], "running": […], "succeeded": n, "untouched": n}`.
fn answer(job: Job, keys: Vec<MessageKey>, more: bool) -> impl futures_util::Stream<Item = Bytes> {
    let head = Bytes::from(format!("{{\"total\":{},\"failed\":[", keys.len()));
    let progress = Progress {
        job: Arc::new(job),
        left: keys.into_iter(),
        succeeded: 0,
        failed: 0,
        running: Vec::new(),
        more,
        ended: false,
    };
    let rest = stream::unfold(progress, |mut progress| async move {
        if progress.ended {
            return None;
        }
        let chunk = match progress.left.next() {
            Some(key) => {
                let done = progress.job.one(key).await;
                progress.note(key, done)
            }
            None => progress.finish(None),
        };
        Some((chunk, progress))
    });
    stream::once(async move { head }).chain(rest)
}

impl Progress {
    /// A success writes a line break only: a sign of life that JSON does not see.
    fn note(&mut self, key: MessageKey, done: Done) -> Bytes {
        let failure = match done {
            Done::Succeeded => {
                self.succeeded += 1;
                return Bytes::from_static(b"\n");
            }
            Done::Running(mut entry) => {
                name_key(&mut entry, key);
                self.running.push(entry);
                return Bytes::from_static(b"\n");
            }
            Done::Failed(mut entry) => {
                name_key(&mut entry, key);
                entry
            }
            Done::Stop(error) => return self.finish(Some((key, error))),
        };
        let separator = if self.failed == 0 { "\n" } else { ",\n" };
        self.failed += 1;
        Bytes::from(format!("{separator}{failure}"))
    }

    /// The end. `stopped` says at which row the database was lost: what became of that row is told by its trace.
    fn finish(&mut self, stopped: Option<(MessageKey, StoreError)>) -> Bytes {
        self.ended = true;
        let mut tail = json!({
            "running": self.running,
            "succeeded": self.succeeded,
            "untouched": self.left.len(),
            "more": self.more,
        });
        if let (Some((key, error)), Some(tail)) = (stopped, tail.as_object_mut()) {
            tail.insert("stopped".to_owned(), json!({"key": key, "reason": error.to_string()}));
        }
        let tail = tail.to_string();
        Bytes::from(format!("],{}\n", tail.strip_prefix('{').unwrap_or(&tail)))
    }
}

fn name_key(entry: &mut Value, key: MessageKey) {
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("key".to_owned(), json!(key));
    }
}

impl Job {
    async fn one(&self, key: MessageKey) -> Done {
        let result = match self.action {
            Action::Resend => self.resend(key).await,
            Action::Delete => self.delete(key).await,
        };
        match result {
            Ok(done) => done,
            Err(error) if error.is_infrastructure() => Done::Stop(error),
            Err(error) => Done::Failed(json!({"outcome": "failed", "reason": error.to_string()})),
        }
    }

    async fn resend(&self, key: MessageKey) -> Result<Done, StoreError> {
        let outcome =
            self.console.resender.resend(&self.slot, key, &self.acting.actor, self.confirmed, RESEND_BOUND).await?;
        Ok(match outcome {
            ResendOutcome::Succeeded => Done::Succeeded,
            ResendOutcome::Running { tx_id } => Done::Running(json!({"txId": tx_id})),
            ResendOutcome::Failed { step, reason } => {
                Done::Failed(json!({"outcome": "failed", "step": step, "reason": reason}))
            }
            ResendOutcome::Claimed { who, since } => Done::Failed(
                json!({"outcome": "claimed", "who": who, "since": since, "reason": format!("{who} has claimed it")}),
            ),
            ResendOutcome::Refused { reason } => Done::Failed(json!({"outcome": "refused", "reason": reason})),
            ResendOutcome::NotFound => Done::Failed(no_such_row()),
        })
    }

    async fn delete(&self, key: MessageKey) -> Result<Done, StoreError> {
        let actor = &self.acting.actor;
        let request = RemovalRequest { who: &actor.who, why: actor.why.as_deref(), force: self.acting.force };
        Ok(match self.console.store.remove_message(&self.slot, key, &request).await? {
            Removal::Removed => Done::Succeeded,
            Removal::NotFound => Done::Failed(no_such_row()),
            Removal::Busy => Done::Failed(json!({"outcome": "claimed", "reason": "somebody is at work on it"})),
            Removal::Kept { reason } => Done::Failed(json!({"outcome": "refused", "reason": reason})),
            Removal::InUse => Done::Failed(json!({"outcome": "refused", "reason": "its message is still on its way"})),
        })
    }
}

fn no_such_row() -> Value {
    json!({"outcome": "notFound", "reason": "there is no such row any more"})
}
