//! A task for each delivery, or group of them, that is at work.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::slot::Hand;
use super::worker::Worker;
use crate::broker::Delivery;
use crate::relay::Direct;

impl Worker {
    pub(super) fn work_on(self: &Arc<Self>, delivery: Delivery, permit: OwnedSemaphorePermit, hand: &Hand) {
        let (worker, mut slot) = (Arc::clone(self), hand.slot(Some(permit)));
        hand.spawn(async move { worker.deliver(delivery, &mut slot).await });
    }

    pub(super) fn work_on_group(
        self: &Arc<Self>,
        mut group: Vec<Delivery>,
        permit: OwnedSemaphorePermit,
        lane: OwnedSemaphorePermit,
        hand: &Hand,
    ) {
        let (worker, together) = (Arc::clone(self), hand.clone());
        hand.spawn(async move {
            match group.pop() {
                // Alone, its failure is known to be its own at once.
                Some(one) if group.is_empty() => {
                    let end = worker.deliver(one, &mut together.slot(Some(permit))).await;
                    drop(lane);
                    end
                }
                last => {
                    group.extend(last);
                    let end = worker.deliver_group(group, lane, &together).await;
                    drop(permit);
                    end
                }
            }
        });
    }

    pub(super) fn work_on_direct(self: &Arc<Self>, message: Direct, permit: OwnedSemaphorePermit, hand: &Hand) {
        let (worker, mut slot) = (Arc::clone(self), hand.slot(Some(permit)));
        hand.spawn(async move { worker.direct(message, &mut slot).await });
    }
}
