//! How an adapter's messages are decided.

use super::InboundSettings;
use crate::model::AdapterName;
use crate::pipeline::{AdapterSettings, AmqpSenderSettings, StepKind};

/// How an inbound adapter decides.
#[derive(Debug, Clone)]
pub enum Path {
    /// `amqpSender` steps alone: one statement.
    Enqueue(Vec<AmqpSenderSettings>),
    /// Anything else: a transaction around the pipeline, which may send to these.
    Transaction(Vec<AmqpSenderSettings>),
}

impl Path {
    /// The way of an adapter's messages.
    #[must_use]
    pub fn of(inbound: &InboundSettings, adapters: &[AdapterSettings]) -> Self {
        let mut found = Found::default();
        found.enter(&inbound.adapter, adapters);
        if found.other || found.senders.is_empty() {
            Self::Transaction(found.senders)
        } else {
            Self::Enqueue(found.senders)
        }
    }

    /// Where a message that takes this path may be sent.
    #[must_use]
    pub fn senders(&self) -> &[AmqpSenderSettings] {
        match self {
            Self::Enqueue(senders) | Self::Transaction(senders) => senders,
        }
    }
}

/// What a pipeline consists of, with those that it calls.
#[derive(Default)]
struct Found<'a> {
    senders: Vec<AmqpSenderSettings>,
    other: bool,
    entered: Vec<&'a AdapterName>,
}

impl<'a> Found<'a> {
    fn enter(&mut self, name: &AdapterName, adapters: &'a [AdapterSettings]) {
        let Some(adapter) = adapters.iter().find(|adapter| adapter.name == *name) else { return };
        if self.entered.contains(&&adapter.name) {
            return;
        }
        self.entered.push(&adapter.name);
        for step in &adapter.steps {
            match &step.kind {
                StepKind::AmqpSender(sender) => self.senders.push(sender.clone()),
                StepKind::Query(_) => self.other = true,
                StepKind::Call(call) => {
                    self.other = true;
                    self.enter(&call.adapter, adapters);
                }
            }
        }
    }
}
