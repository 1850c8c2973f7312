//! `amqpSender`: a journal row in the caller's transaction; the message is published after the commit (F4).

use async_trait::async_trait;
use bytes::Bytes;

use crate::model::{Envelope, TxId};
use crate::pipeline::AmqpSenderSettings;
use crate::pipeline::pipe::{Pipe, Planned, StepFailure, Work};
use crate::pipeline::plan::Planning;
use crate::pipeline::runner::refused;
use crate::store::{Outgoing, StepCall, Target};

pub struct AmqpSenderPipe(pub AmqpSenderSettings);

#[async_trait]
impl Pipe for AmqpSenderPipe {
    async fn run(&self, input: Bytes, work: &mut Work<'_>) -> Result<Option<Bytes>, StepFailure> {
        let (envelope, outgoing) = self.outgoing(&input, work.envelope, (work.mint)());
        let rows = std::slice::from_ref(&outgoing);
        match work.transaction.home.add_outgoing(work.store, &envelope, rows).await {
            Ok(()) => {
                work.sent.push((outgoing, input));
                Ok(None)
            }
            Err(error) => Err(refused(&error)),
        }
    }

    fn plan<'p>(&'p self, input: Bytes, planning: &mut Planning<'p>) -> Planned {
        let (envelope, outgoing) = self.outgoing(&input, planning.envelope, (planning.engine.mint)());
        planning.add(Target::Home, StepCall::Send { envelope, outgoing });
        Planned::Leaves(None)
    }
}

impl AmqpSenderPipe {
    fn outgoing(&self, body: &Bytes, of: &Envelope, tx_id: TxId) -> (Envelope, Outgoing) {
        let outgoing = Outgoing {
            tx_id,
            destination: self.0.destination.clone(),
            mode: self.0.mode,
            max_attempts: self.0.max_attempts,
        };
        let mut envelope = of.clone();
        envelope.body = body.clone();
        (envelope, outgoing)
    }
}
