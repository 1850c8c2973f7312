//! What an adapter's messages need beside itself: the adapters that it calls, and the databases of all of them. Pure.

use super::{AdapterSettings, StepKind};
use crate::model::AdapterName;

/// Each once, in the order of the steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Called adapters, those that they call included.
    pub adapters: Vec<AdapterName>,
    /// `postgres` entries that steps write to or read from.
    pub databases: Vec<String>,
}

impl Reach {
    #[must_use]
    pub fn of(adapter: &AdapterName, adapters: &[AdapterSettings]) -> Self {
        let mut reach = Self::default();
        reach.enter(adapter, adapters);
        reach
    }

    fn enter(&mut self, name: &AdapterName, adapters: &[AdapterSettings]) {
        let steps = adapters.iter().filter(|adapter| adapter.name == *name).flat_map(|adapter| &adapter.steps);
        for step in steps {
            match &step.kind {
                StepKind::AmqpSender(_) => {}
                StepKind::Query(query) if self.databases.contains(&query.database) => {}
                StepKind::Query(query) => self.databases.push(query.database.clone()),
                StepKind::Call(call) if self.adapters.contains(&call.adapter) => {}
                StepKind::Call(call) => {
                    self.adapters.push(call.adapter.clone());
                    self.enter(&call.adapter, adapters);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TransactionAttribute;
    use crate::pipeline::{CallSettings, Input, QuerySettings, StepSettings};

    fn adapter(name: &str, steps: Vec<StepKind>) -> AdapterSettings {
        let step = |kind| StepSettings { name: "step".to_owned(), input: Input::Payload, kind };
        AdapterSettings {
            name: AdapterName::new(name),
            configuration: "test".to_owned(),
            description: None,
            transaction_attribute: TransactionAttribute::Supports,
            steps: steps.into_iter().map(step).collect(),
        }
    }

    fn call(name: &str) -> StepKind {
        StepKind::Call(CallSettings { adapter: AdapterName::new(name) })
    }

    fn query(database: &str) -> StepKind {
        StepKind::Query(QuerySettings { database: database.to_owned(), sql: String::new(), params: Vec::new() })
    }

    #[test]
    fn it_needs_what_it_calls_and_what_they_call_each_once_and_circles_come_to_their_end() {
        let adapters = [
            adapter("entrance", vec![query("main"), call("one"), call("two"), call("one")]),
            adapter("one", vec![call("two"), query("ledger")]),
            adapter("two", vec![query("main"), call("entrance")]),
            adapter("other", vec![query("elsewhere")]),
        ];
        let reach = Reach::of(&AdapterName::new("entrance"), &adapters);
        assert_eq!(reach.adapters.iter().map(AdapterName::as_str).collect::<Vec<_>>(), ["one", "two", "entrance"]);
        assert_eq!(reach.databases, ["main", "ledger"]);
        assert_eq!(Reach::of(&AdapterName::new("none"), &adapters), Reach::default());
    }
}
