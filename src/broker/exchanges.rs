//! Calls about the exchanges that show an epoch. Each has a channel of its own: a refusal closes the channel.

use futures_util::future::join_all;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::connection::{CallError, Handle, bounded};
use super::endpoint::CALL_BOUND;
use super::witness::{Sign, changed, exact, newer, prefix, signs};
use crate::model::{Epoch, HomeId};
use crate::txn::faults::{Point, reach};

/// What came of showing an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Done,
    /// Another database was raised to the same number.
    Taken,
    /// The user has no right to make exchanges of these names.
    NotAllowed,
}

/// Whether an exchange is there.
async fn exists(handle: &Handle, home: HomeId, sign: Sign) -> Result<bool, CallError> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    match declare(handle, sign.exchange(home), options, FieldTable::default()).await {
        Ok(()) => Ok(true),
        Err(CallError::Failed { source, .. }) if source.code() == Some(404) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the broker shows exactly this epoch.
pub(super) async fn shows(handle: &Handle, home: HomeId, number: u64) -> Result<bool, CallError> {
    exists(handle, home, exact(number)).await
}

/// A sign of an epoch of this home newer than `number`; of several that of the newest.
pub(super) async fn sign_of_newer(handle: &Handle, home: HomeId, number: u64) -> Result<Option<Sign>, CallError> {
    let asked = newer(number).map(|sign| async move { Ok(exists(handle, home, sign).await?.then_some(sign)) });
    let found: Result<Vec<Option<Sign>>, CallError> = join_all(asked).await.into_iter().collect();
    Ok(found?.into_iter().flatten().next())
}

/// The newest epoch of this home that the broker was shown; `number` itself when there is none that is newer.
pub(super) async fn newest(handle: &Handle, home: HomeId, mut number: u64) -> Result<u64, CallError> {
    while let Some(sign) = sign_of_newer(handle, home, number).await? {
        number = sign.oldest();
    }
    Ok(number)
}

/// Shows an epoch, after the database holds it. Safe to repeat. `since`: what is shown already.
pub(super) async fn show(handle: &Handle, epoch: Epoch, since: Option<u64>) -> Result<Shown, CallError> {
    reach(Point::HW1).await.map_err(|injected| CallError::Down(injected.to_string().into()))?;
    let options = ExchangeDeclareOptions { durable: true, internal: true, ..ExchangeDeclareOptions::default() };
    let exact = exact(epoch.number);
    // The only argument of an exchange that RabbitMQ compares when it is declared again. There is no such exchange.
    let mut token = FieldTable::default();
    let by = format!("{}by.{}", prefix(epoch.home), epoch.token);
    token.insert("alternate-exchange".into(), AMQPValue::LongString(by.into()));
    match declare(handle, exact.exchange(epoch.home), options, token).await {
        Ok(()) => {}
        Err(CallError::Failed { source, .. }) if source.code() == Some(403) => return Ok(Shown::NotAllowed),
        Err(CallError::Failed { source, .. }) if source.code() == Some(406) => return Ok(Shown::Taken),
        Err(error) => return Err(error),
    }
    let wanted: Vec<Sign> = match since {
        Some(since) => changed(since, epoch.number).collect(),
        None => signs(epoch.number).collect(),
    };
    let rest = wanted.into_iter().filter(|sign| *sign != exact);
    let rest = rest.map(|sign| declare(handle, sign.exchange(epoch.home), options, FieldTable::default()));
    join_all(rest).await.into_iter().collect::<Result<(), CallError>>().map(|()| Shown::Done)
}

/// Takes away what showed an epoch and does not show a later one.
pub(super) async fn take_away(handle: &Handle, home: HomeId, number: u64, later: u64) -> Result<(), CallError> {
    let gone = changed(later, number).map(|sign| delete(handle, sign.exchange(home)));
    join_all(gone).await.into_iter().collect()
}

/// Whether the user may make such exchanges; tried on one that is never there, so that nothing changes.
pub(super) async fn allowed(handle: &Handle, home: HomeId) -> Result<bool, CallError> {
    match delete(handle, format!("{}none", prefix(home))).await {
        Ok(()) => Ok(true),
        Err(CallError::Failed { source, .. }) if source.code() == Some(403) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn declare(
    handle: &Handle,
    exchange: String,
    options: ExchangeDeclareOptions,
    arguments: FieldTable,
) -> Result<(), CallError> {
    let channel = handle.channel().await?;
    let declare = channel.exchange_declare(exchange.into(), ExchangeKind::Fanout, options, arguments);
    let declared = bounded("exchange.declare", declare).await;
    leave(handle, &channel, declared).await
}

async fn delete(handle: &Handle, exchange: String) -> Result<(), CallError> {
    let channel = handle.channel().await?;
    let delete = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
    let deleted = bounded("exchange.delete", delete).await;
    leave(handle, &channel, deleted).await
}

async fn leave(handle: &Handle, channel: &Channel, answer: Result<(), CallError>) -> Result<(), CallError> {
    match answer {
        Ok(()) => {
            let close = channel.close(200, "done".into());
            if tokio::time::timeout(CALL_BOUND, close).await.is_err() {
                handle.give_up("closing a channel timed out");
            }
            Ok(())
        }
        Err(error) => {
            if let CallError::TimedOut(_) = error {
                handle.give_up("a call about an exchange timed out");
            }
            Err(error)
        }
    }
}
