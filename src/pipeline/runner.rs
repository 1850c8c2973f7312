//! Running an adapter's steps, one after the other, in the caller's transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::pipe::{FailureKind, Pipe, StepFailure, Work};
use super::pipes::{amqp_sender::AmqpSenderPipe, call::CallPipe, query::QueryPipe};
use super::{AdapterSettings, Input, StepKind};
use crate::lifecycle::caught;
use crate::model::AdapterName;
use crate::store::StoreError;

/// Every adapter's pipeline, ready to run. Cheap to clone.
#[derive(Clone)]
pub struct Pipelines(Arc<BTreeMap<AdapterName, Vec<Step>>>);

pub(super) struct Step {
    pub(super) name: String,
    pub(super) input: Input,
    pub(super) pipe: Box<dyn Pipe>,
}

impl Pipelines {
    #[must_use]
    pub fn new(adapters: &[AdapterSettings]) -> Self {
        let pipelines = adapters.iter().map(|adapter| (adapter.name.clone(), steps(adapter))).collect();
        Self(Arc::new(pipelines))
    }

    pub(super) fn steps_of(&self, adapter: &AdapterName) -> &[Step] {
        self.0.get(adapter).map(Vec::as_slice).unwrap_or_default()
    }

    /// Runs an adapter on a payload and answers what its last step left.
    pub(super) async fn run_adapter(
        &self,
        adapter: &AdapterName,
        payload: Bytes,
        work: &mut Work<'_>,
    ) -> Result<Bytes, StepFailure> {
        work.chain.push(adapter.clone());
        let outer = std::mem::replace(&mut work.original, payload.clone());
        let result = self.run_steps(adapter, payload, work).await;
        work.original = outer;
        work.chain.pop();
        result
    }

    async fn run_steps(
        &self,
        adapter: &AdapterName,
        mut payload: Bytes,
        work: &mut Work<'_>,
    ) -> Result<Bytes, StepFailure> {
        for step in self.steps_of(adapter) {
            let input = match step.input {
                Input::Payload => payload.clone(),
                Input::OriginalMessage => work.original.clone(),
            };
            // A panic is a step's failure like any other: undone, counted, tried again, and in the end in the error store.
            let ran = caught(step.pipe.run(input, work)).await;
            match ran.unwrap_or_else(|reason| Err(panicked(&reason))) {
                Ok(Some(left)) => payload = left,
                Ok(None) => {}
                Err(failure) => return Err(located(failure, step, work)),
            }
        }
        Ok(payload)
    }

    /// Runs the adapter that a message enters.
    pub async fn run(&self, adapter: &AdapterName, work: &mut Work<'_>) -> Result<(), StepFailure> {
        let payload = work.envelope.body.clone();
        self.run_adapter(adapter, payload, work).await.map(|_left| ())
    }
}

/// Puts the step's name and the adapters on the way into a failure that has none yet.
fn located(failure: StepFailure, step: &Step, work: &Work<'_>) -> StepFailure {
    if !failure.step.is_empty() {
        return failure;
    }
    let chain: Vec<&str> = work.chain.iter().map(AdapterName::as_str).collect();
    StepFailure { step: step.name.clone(), chain: chain.join(" > "), ..failure }
}

/// A failure whose place the runner fills in, in words of our own.
pub(super) fn failure(reason: String, kind: FailureKind) -> StepFailure {
    StepFailure { step: String::new(), chain: String::new(), public: reason.clone(), reason, kind }
}

/// The same, in a database's words.
pub(super) fn refused(error: &StoreError) -> StepFailure {
    StepFailure { public: error.public(), ..failure(error.to_string(), FailureKind::of(error)) }
}

fn panicked(reason: &str) -> StepFailure {
    failure(format!("it has panicked, a fault of this program: {reason}"), FailureKind::Step)
}

fn steps(adapter: &AdapterSettings) -> Vec<Step> {
    let step = |settings: &super::StepSettings| Step {
        name: settings.name.clone(),
        input: settings.input,
        pipe: match &settings.kind {
            StepKind::AmqpSender(sender) => Box::new(AmqpSenderPipe(sender.clone())) as Box<dyn Pipe>,
            StepKind::Query(query) => Box::new(QueryPipe::new(query.clone())),
            StepKind::Call(call) => Box::new(CallPipe(call.clone())),
        },
    };
    adapter.steps.iter().map(step).collect()
}
