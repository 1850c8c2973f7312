//! The way of deliveries that share a transaction: held together, settled together.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::group::Fate;
use super::process::{AttemptEnd, ended};
use super::slot::Hand;
use super::worker::{DeliveryEnd, Worker, after_panic, own_envelope};
use crate::broker::{AckToken, Delivery, Source};
use crate::lifecycle::caught;
use crate::model::{Envelope, TxId};
use crate::relay::Running;
use crate::store::StoreError;
use crate::txn::faults::{Point, in_group, reach};

/// A message at which nobody else in this process is at work.
struct Held {
    envelope: Envelope,
    token: AckToken,
    running: Running,
    /// Whether it may have been tried before.
    again: bool,
}

impl Worker {
    /// Takes deliveries to their ends, together as far as possible. `lane` is free for the next group when this one's
    /// transaction has ended.
    pub async fn deliver_group(
        self: &Arc<Self>,
        deliveries: Vec<Delivery>,
        lane: OwnedSemaphorePermit,
        hand: &Hand,
    ) -> DeliveryEnd {
        let mut group = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            group.extend(self.hold(delivery).await);
        }
        let noted = match self.note(&group).await {
            Ok(noted) => noted,
            Err(error) => {
                let end = ended(&error);
                return self.settle_all(group.into_iter().map(|held| (held.token, end.clone())).collect()).await;
            }
        };
        let tried = |held: &Held| !held.again || noted.contains(&held.envelope.tx_id);
        let (group, others): (Vec<_>, Vec<_>) = group.into_iter().partition(tried);
        for held in others {
            self.start_apart(held, hand);
        }
        let envelopes: Vec<&Envelope> = group.iter().map(|held| &held.envelope).collect();
        let fates = caught(in_group(self.processor.group(&self.settings, &envelopes))).await;
        let fates = fates.unwrap_or_else(|reason| {
            tracing::error!(
                messages = group.len(),
                reason,
                "a group has panicked, a fault of this program; each goes alone"
            );
            vec![Fate::Alone; group.len()]
        });
        let in_turn = self.settling.lock().await;
        drop(lane);
        let (mut ended, mut alone) = (Vec::new(), Vec::new());
        for (held, fate) in group.into_iter().zip(fates) {
            match fate {
                Fate::Ended(end) => ended.push((held.token, end)),
                Fate::Alone => alone.push(held),
            }
        }
        let settled = in_group(self.settle_all(ended)).await;
        drop(in_turn);
        match settled {
            DeliveryEnd::Settled => self.one_by_one(alone, &hand.permits).await,
            lost @ DeliveryEnd::Infrastructure { .. } => lost,
        }
    }

    /// Notes those that may have been tried before, all in one statement. Who is noted or counted already does not go with
    /// the others.
    async fn note(&self, group: &[Held]) -> Result<BTreeSet<TxId>, StoreError> {
        let again: Vec<TxId> = group.iter().filter(|held| held.again).map(|held| held.envelope.tx_id).collect();
        if again.is_empty() {
            return Ok(BTreeSet::new());
        }
        let noted = self.processor.store.note_in_hand(&again, &self.settings.destination).await?;
        match in_group(reach(Point::DQ8)).await {
            Ok(()) => Ok(noted),
            Err(injected) => Err(StoreError::Unknown(injected.to_string())),
        }
    }

    /// In a task of its own, on a place of its own.
    fn start_apart(self: &Arc<Self>, held: Held, hand: &Hand) {
        let (worker, mut slot) = (Arc::clone(self), hand.slot(None));
        hand.spawn(async move {
            let end = match slot.enter().await {
                true => {
                    let end = caught(worker.start(&held.envelope, &mut slot)).await;
                    end.unwrap_or_else(|reason| after_panic(held.envelope.tx_id, &reason))
                }
                false => AttemptEnd::Stopped,
            };
            drop(held.running);
            worker.settle(held.token, end).await
        });
    }

    async fn hold(&self, delivery: Delivery) -> Option<Held> {
        let Delivery { incoming, token } = delivery;
        let again = incoming.redelivered;
        let running = match incoming.source.clone() {
            Source::Own { tx_id, root_id, published_at, .. } => {
                if let Some(published_at) = published_at {
                    self.shared.saw(&self.settings.destination, published_at);
                }
                let running = self.processor.relay.run(tx_id);
                running.map(|running| (running, own_envelope(incoming, tx_id, root_id)))
            }
            Source::Foreign { .. } => None,
        };
        match running {
            Some((running, envelope)) => Some(Held { envelope, token, running, again }),
            None => {
                self.settle(token, AttemptEnd::HandBack).await;
                None
            }
        }
    }

    /// Each in a transaction of its own: one after the other on the permit of their group, and side by side as far as
    /// more permits are free.
    async fn one_by_one(&self, alone: Vec<Held>, permits: &Arc<Semaphore>) -> DeliveryEnd {
        let mut waiting = alone.into_iter();
        let mut trying = FuturesUnordered::new();
        let mut lost = None;
        loop {
            while lost.is_none() {
                let more =
                    if trying.is_empty() { Some(None) } else { permits.clone().try_acquire_owned().ok().map(Some) };
                let Some(permit) = more else { break };
                let Some(held) = waiting.next() else { break };
                trying.push(async move {
                    let end = caught(self.processor.first(&self.settings, &held.envelope)).await;
                    let end = end.unwrap_or_else(|reason| after_panic(held.envelope.tx_id, &reason));
                    drop((held.running, permit));
                    self.settle(held.token, end).await
                });
            }
            match trying.next().await {
                None => return lost.unwrap_or(DeliveryEnd::Settled),
                Some(DeliveryEnd::Settled) => {}
                Some(end) => lost = Some(end),
            }
        }
    }
}
