//! `query`: one statement in the caller's transaction, in whichever database. Leaves the payload as it was.

use async_trait::async_trait;
use bytes::Bytes;

use crate::model::Envelope;
use crate::pipeline::pipe::{Pipe, Planned, StepFailure, Work};
use crate::pipeline::plan::Planning;
use crate::pipeline::runner::refused;
use crate::pipeline::{Param, QuerySettings};
use crate::store::{InsertRows, StepCall};

pub struct QueryPipe {
    settings: QuerySettings,
    /// When it only inserts a row.
    rows: Option<InsertRows>,
}

#[async_trait]
impl Pipe for QueryPipe {
    async fn run(&self, input: Bytes, work: &mut Work<'_>) -> Result<Option<Bytes>, StepFailure> {
        let params = self.params(&input, &work.original, work.envelope);
        match work.transaction.execute_step(work.store, &self.settings.database, &self.settings.sql, &params).await {
            Ok(_rows) => Ok(None),
            Err(error) => Err(refused(&error)),
        }
    }

    fn plan<'p>(&'p self, input: Bytes, planning: &mut Planning<'p>) -> Planned {
        let Some(target) = planning.target(&self.settings.database) else { return Planned::No };
        let params = self.params(&input, &planning.original, planning.envelope);
        planning.add(target, StepCall::Query { sql: &self.settings.sql, params, rows: self.rows.as_ref() });
        Planned::Leaves(None)
    }
}

impl QueryPipe {
    pub fn new(settings: QuerySettings) -> Self {
        Self { rows: InsertRows::of(&settings.sql), settings }
    }

    fn params(&self, input: &Bytes, original: &Bytes, envelope: &Envelope) -> Vec<Option<Bytes>> {
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let value = |param: &Param| match param {
            Param::Payload => Some(input.clone()),
            Param::OriginalMessage => Some(original.clone()),
            Param::MessageId => Some(text(envelope.message_id.as_str())),
            Param::CorrelationId => Some(text(envelope.correlation_id.as_str())),
            Param::Header(name) => envelope.headers.get(name).map(|value| text(value)),
        };
        self.settings.params.iter().map(value).collect()
    }
}
