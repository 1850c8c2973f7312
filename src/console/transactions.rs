//! Prepared transactions that wait for their outcome: look, and finish one by hand.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Console;
use super::actor::{Acting, ActionBody, bad, not_found};
use super::filter::Unfiltered;
use crate::inbound::problem::{Effect, Problem};
use crate::store::{Doubtful, ResolveRequest, Resolved};
use crate::txn::Gid;
use crate::txn::protocol::Outcome;
use crate::txn::recovery::ByHand;

pub(super) async fn list(State(console): State<Console>, _all: Unfiltered) -> Result<Json<Value>, Problem> {
    let found = console.store.doubtful().await?;
    let items: Vec<Value> = found.items.iter().map(|one| with_adapter(&console, one)).collect();
    Ok(Json(json!({ "items": items, "unreachable": found.unreachable })))
}

/// The adapter that consumes where the message is to be processed.
fn with_adapter(console: &Console, one: &Doubtful) -> Value {
    let adapters = console.registry.list();
    let adapter = adapters.iter().find(|adapter| adapter.listener.is_some() && adapter.listener == one.destination);
    let mut item = json!(one);
    if let Value::Object(members) = &mut item {
        members.insert("adapter".to_owned(), json!(adapter.map(|adapter| &adapter.name)));
    }
    item
}

pub(super) async fn commit(
    State(console): State<Console>,
    Path(gid): Path<String>,
    acting: Acting,
    body: axum::body::Bytes,
) -> Result<Json<Value>, Problem> {
    resolve(&console, &gid, Outcome::Commit, acting, &body).await
}

pub(super) async fn rollback(
    State(console): State<Console>,
    Path(gid): Path<String>,
    acting: Acting,
    body: axum::body::Bytes,
) -> Result<Json<Value>, Problem> {
    resolve(&console, &gid, Outcome::Abort, acting, &body).await
}

async fn resolve(
    console: &Console,
    gid: &str,
    outcome: Outcome,
    mut acting: Acting,
    body: &[u8],
) -> Result<Json<Value>, Problem> {
    ActionBody::parse(body)?.complete(&mut acting);
    let Some(parsed) = Gid::parse(gid) else {
        return Err(not_found(format!("{gid:?} is no gid of ours; `posthaste txn list` shows them")));
    };
    let Some(why) = acting.actor.why.as_deref() else {
        return Err(bad("a transaction is finished by hand only with a reason, for the record"));
    };
    let request = ResolveRequest { gid: parsed, outcome, force: acting.force, who: &acting.actor.who, why };
    match console.store.resolve_by_hand(&request).await? {
        Resolved::Done { database } => {
            let outcome = match outcome {
                Outcome::Commit => "committed",
                Outcome::Abort => "rolled back",
            };
            Ok(Json(json!({ "gid": gid, "database": database, "outcome": outcome })))
        }
        Resolved::NotFound => Err(not_found("no database that can be asked holds this gid prepared")),
        Resolved::Refused { why, decision } => Err(refused(why, decision)),
        Resolved::Lost { database } => {
            let detail = format!(
                "database {database} cannot show that it committed its part of this transaction: look there, put right \
                 what is missing, then force this, which takes it out of the decision"
            );
            Err(Problem::new(StatusCode::CONFLICT, detail).effect(Effect::None))
        }
        Resolved::NotYet { reason } => {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("not finished: {reason}"));
            Err(problem.effect(Effect::Unknown))
        }
    }
}

fn refused(why: ByHand, decision: Option<Outcome>) -> Problem {
    let log = match decision {
        Some(Outcome::Commit) => "the decision log says COMMIT",
        Some(Outcome::Abort) => "the decision log says ABORT",
        None => "nothing was decided, so recovery rolls back",
    };
    let detail = match why {
        ByHand::InHand => {
            format!("{log}, and its coordinator is alive and finishes it by itself; force only a dead one")
        }
        ByHand::Contradicts | ByHand::Agrees => {
            format!(
                "{log}: to do otherwise leaves one database with the work and another without; force it if you must"
            )
        }
    };
    Problem::new(StatusCode::CONFLICT, detail).effect(Effect::None)
}
