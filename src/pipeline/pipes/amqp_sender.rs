//! `amqpSender`: a journal row in the caller's transaction; the message is published after the commit (F4).

use async_trait::async_trait;
use bytes::Bytes;

use crate::pipeline::AmqpSenderSettings;
use crate::pipeline::pipe::{FailureKind, Pipe, StepFailure, Work};
use crate::pipeline::runner::failure;
use crate::store::Outgoing;

pub struct AmqpSenderPipe(pub AmqpSenderSettings);

#[async_trait]
impl Pipe for AmqpSenderPipe {
    async fn run(&self, input: Bytes, work: &mut Work<'_>) -> Result<Option<Bytes>, StepFailure> {
        let outgoing = Outgoing {
            tx_id: (work.mint)(),
            destination: self.0.destination.clone(),
            mode: self.0.mode,
            max_attempts: self.0.max_attempts,
        };
        let mut envelope = work.envelope.clone();
        envelope.body = input.clone();
        let rows = std::slice::from_ref(&outgoing);
        match work.transaction.add_outgoing(work.store, &envelope, rows).await {
            Ok(()) => {
                work.sent.push((outgoing, input));
                Ok(None)
            }
            Err(error) => Err(failure(error.to_string(), FailureKind::of(&error))),
        }
    }
}
