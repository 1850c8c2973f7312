//! `call`: another adapter of the same configuration, in the caller's transaction (F9). Leaves what that one left.

use async_trait::async_trait;
use bytes::Bytes;

use crate::pipeline::CallSettings;
use crate::pipeline::pipe::{FailureKind, Pipe, Planned, StepFailure, Work};
use crate::pipeline::plan::Planning;
use crate::pipeline::runner::failure;

pub struct CallPipe(pub CallSettings);

#[async_trait]
impl Pipe for CallPipe {
    async fn run(&self, input: Bytes, work: &mut Work<'_>) -> Result<Option<Bytes>, StepFailure> {
        let adapter = &self.0.adapter;
        if !work.registry.is_started(adapter) {
            let state =
                work.registry.get(adapter).map_or_else(|| "unknown".to_owned(), |status| status.state.to_string());
            return Err(failure(format!("adapter {adapter} is {state}"), FailureKind::Step));
        }
        let pipelines = work.pipelines.clone();
        pipelines.run_adapter(adapter, input, work).await.map(Some)
    }

    fn plan<'p>(&'p self, input: Bytes, planning: &mut Planning<'p>) -> Planned {
        if !planning.engine.registry.is_started(&self.0.adapter) {
            return Planned::No;
        }
        match planning.adapter(&self.0.adapter, input) {
            Some(left) => Planned::Leaves(Some(left)),
            None => Planned::No,
        }
    }
}
