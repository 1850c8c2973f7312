//! What a pipeline will do with a message, told without any I/O: messages whose work is known beforehand can share a
//! transaction (protocol §7).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::pipe::{FailureKind, Planned, StepFailure};
use super::{Engine, Input, Pipelines};
use crate::model::{AdapterName, Envelope};
use crate::store::{Outgoing, StepCall, StoreError, Target};

/// One statement of a message, where it is sent, and which step of which adapter sends it.
#[derive(Debug)]
pub struct PlannedStep<'p> {
    pub step: &'p str,
    pub chain: Arc<Chain>,
    pub target: Target<'p>,
    pub call: StepCall<'p>,
}

/// Adapters that have called each other, as `outer > inner`: put into words only when a step has failed.
#[derive(Debug)]
pub struct Chain {
    outer: Option<Arc<Chain>>,
    adapter: AdapterName,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outer {
            Some(outer) => write!(f, "{outer} > {}", self.adapter),
            None => self.adapter.fmt(f),
        }
    }
}

impl PlannedStep<'_> {
    /// What is to be published once the transaction is committed, with its payload.
    #[must_use]
    pub fn sent(&self) -> Option<(Outgoing, Bytes)> {
        match &self.call {
            StepCall::Send { envelope, outgoing } => Some((outgoing.clone(), envelope.body.clone())),
            StepCall::Query { .. } => None,
        }
    }

    /// The failure of this step.
    #[must_use]
    pub fn failed(&self, error: &StoreError) -> StepFailure {
        StepFailure {
            step: self.step.to_owned(),
            chain: self.chain.to_string(),
            reason: error.to_string(),
            public: error.public(),
            kind: FailureKind::of(error),
        }
    }
}

/// What steps are planned with, and what came of it so far.
pub struct Planning<'p> {
    pub engine: Engine<'p>,
    /// The message as the receiver got it.
    pub envelope: &'p Envelope,
    /// What this adapter was given.
    pub original: Bytes,
    pipelines: &'p Pipelines,
    step: &'p str,
    chain: Arc<Chain>,
    steps: Vec<PlannedStep<'p>>,
}

impl<'p> Planning<'p> {
    /// The step that is being planned sends this next.
    pub fn add(&mut self, target: Target<'p>, call: StepCall<'p>) {
        self.steps.push(PlannedStep { step: self.step, chain: Arc::clone(&self.chain), target, call });
    }

    /// Where a `postgres` entry leads; `None` while it is not used: a run says why.
    #[must_use]
    pub fn target(&self, database: &str) -> Option<Target<'p>> {
        self.engine.store.databases.target(database).ok()
    }

    /// Plans another adapter's steps in this place, and answers the payload that they leave.
    pub fn adapter(&mut self, adapter: &AdapterName, payload: Bytes) -> Option<Bytes> {
        let inner = Chain { outer: Some(Arc::clone(&self.chain)), adapter: adapter.clone() };
        let chain = std::mem::replace(&mut self.chain, Arc::new(inner));
        let original = std::mem::replace(&mut self.original, payload.clone());
        let step = self.step;
        let left = self.steps_of(adapter, payload);
        (self.chain, self.original, self.step) = (chain, original, step);
        left
    }

    fn steps_of(&mut self, adapter: &AdapterName, mut payload: Bytes) -> Option<Bytes> {
        let pipelines = self.pipelines;
        for step in pipelines.steps_of(adapter) {
            self.step = &step.name;
            let input = match step.input {
                Input::Payload => payload.clone(),
                Input::OriginalMessage => self.original.clone(),
            };
            match step.pipe.plan(input, self) {
                Planned::No => return None,
                Planned::Leaves(Some(left)) => payload = left,
                Planned::Leaves(None) => {}
            }
        }
        Some(payload)
    }
}

impl Pipelines {
    /// Everything that the adapter which a message enters will send, in this order; `None`: only a run can tell.
    #[must_use]
    pub fn plan<'p>(
        &'p self,
        adapter: &AdapterName,
        envelope: &'p Envelope,
        engine: Engine<'p>,
    ) -> Option<Vec<PlannedStep<'p>>> {
        let chain = Arc::new(Chain { outer: None, adapter: adapter.clone() });
        let (original, steps) = (envelope.body.clone(), Vec::new());
        let mut planning = Planning { engine, envelope, original, pipelines: self, step: "", chain, steps };
        planning.steps_of(adapter, envelope.body.clone())?;
        Some(planning.steps)
    }
}
