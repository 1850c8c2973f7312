//! `query`: one statement in the caller's transaction. Leaves the payload as it was.

use async_trait::async_trait;
use bytes::Bytes;

use crate::pipeline::pipe::{FailureKind, Pipe, StepFailure, Work};
use crate::pipeline::runner::failure;
use crate::pipeline::{Param, QuerySettings};

pub struct QueryPipe(pub QuerySettings);

#[async_trait]
impl Pipe for QueryPipe {
    async fn run(&self, input: Bytes, work: &mut Work<'_>) -> Result<Option<Bytes>, StepFailure> {
        let params: Vec<Option<Bytes>> = self.0.params.iter().map(|param| value(param, &input, work)).collect();
        match work.transaction.execute_step(&self.0.sql, &params).await {
            Ok(_rows) => Ok(None),
            Err(error) => Err(failure(error.to_string(), FailureKind::of(&error))),
        }
    }
}

fn value(param: &Param, input: &Bytes, work: &Work<'_>) -> Option<Bytes> {
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    match param {
        Param::Payload => Some(input.clone()),
        Param::OriginalMessage => Some(work.original.clone()),
        Param::MessageId => Some(text(work.envelope.message_id.as_str())),
        Param::CorrelationId => Some(text(work.envelope.correlation_id.as_str())),
        Param::Header(name) => work.envelope.headers.get(name).map(|value| text(value)),
    }
}
