//! Who takes messages in, with all that its messages need.

use std::sync::Arc;

use crate::inbound::{InboundSettings, Path};
use crate::pipeline::{AdapterSettings, AllOutcomes, Outcomes, Reach};
use crate::receiver::ReceiverSettings;

/// An adapter with an API.
pub(super) struct Entrance {
    pub settings: InboundSettings,
    pub path: Path,
    pub reach: Reach,
    pub outcomes: Arc<Outcomes>,
}

/// An adapter that consumes a queue.
pub(super) struct Exit {
    pub settings: ReceiverSettings,
    pub reach: Reach,
    pub outcomes: Arc<Outcomes>,
}

pub(super) fn entrances(
    inbound: &[InboundSettings],
    adapters: &[AdapterSettings],
    outcomes: &AllOutcomes,
) -> Vec<Entrance> {
    let entrance = |settings: &InboundSettings| Entrance {
        path: Path::of(settings, adapters),
        reach: Reach::of(&settings.adapter, adapters),
        outcomes: outcomes.of(&settings.adapter),
        settings: settings.clone(),
    };
    inbound.iter().map(entrance).collect()
}

pub(super) fn exits(receivers: &[ReceiverSettings], adapters: &[AdapterSettings], outcomes: &AllOutcomes) -> Vec<Exit> {
    let exit = |settings: &ReceiverSettings| Exit {
        reach: Reach::of(&settings.adapter, adapters),
        outcomes: outcomes.of(&settings.adapter),
        settings: settings.clone(),
    };
    receivers.iter().map(exit).collect()
}
