//! What the management plugin's JSON says, in words of our own. What is missing counts as not set.

use serde_json::{Map, Value};

/// One node of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: String,
    pub running: bool,
    pub memory_alarm: bool,
    pub disk_alarm: bool,
    /// The nodes that it has lost sight of.
    pub partitions: Vec<String>,
}

/// One queue as it works now: its arguments and the policies over it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// `quorum`, `classic` or `stream`.
    pub kind: String,
    pub durable: bool,
    pub auto_delete: bool,
    /// `running`, `minority`, `down`, …
    pub state: String,
    /// Nodes that hold it; 1 unless replicated.
    pub members: usize,
    pub arguments: Map<String, Value>,
    /// The names of policy and operator policy, if any apply.
    pub policies: Vec<String>,
    /// What the policies together say.
    pub policy: Map<String, Value>,
    /// `None`: the plugin gathers no statistics.
    pub consumers: Option<Vec<ConsumerFacts>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerFacts {
    pub tag: String,
    pub user: String,
    /// The connection as the broker names it: both ends' addresses.
    pub connection: String,
    /// The name that the client gave its connection, empty when it gave none; `None`: it cannot be seen.
    pub client: Option<String>,
}

/// A value, and what has set it: an argument of the queue or a policy by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruled<T> {
    pub value: T,
    pub by: String,
}

impl QueueFacts {
    /// A limit by the policy's name for it, such as `message-ttl`: of argument and policy the lower one holds.
    #[must_use]
    pub fn limit(&self, name: &str) -> Option<Ruled<i64>> {
        self.limits(name).into_iter().min_by_key(|ruled| ruled.value)
    }

    /// What argument and policies say.
    #[must_use]
    pub fn limits(&self, name: &str) -> Vec<Ruled<i64>> {
        let ruled = |found: Option<&Value>, by: String| Some(Ruled { value: found?.as_i64()?, by });
        let argument = ruled(self.arguments.get(&format!("x-{name}")), format!("argument x-{name}"));
        let policy = ruled(self.policy.get(name), self.policy_name());
        [argument, policy].into_iter().flatten().collect()
    }

    /// A word, such as `overflow`: the argument wins.
    #[must_use]
    pub fn word(&self, name: &str) -> Option<Ruled<String>> {
        let ruled = |found: Option<&Value>, by: String| Some(Ruled { value: found?.as_str()?.to_owned(), by });
        ruled(self.arguments.get(&format!("x-{name}")), format!("argument x-{name}"))
            .or_else(|| ruled(self.policy.get(name), self.policy_name()))
    }

    #[must_use]
    pub fn has_single_active_consumer(&self) -> bool {
        self.arguments.get("x-single-active-consumer").and_then(Value::as_bool).unwrap_or(false)
    }

    fn policy_name(&self) -> String {
        format!("policy {}", self.policies.join(" and "))
    }
}

pub(super) fn node_facts(node: &Value) -> NodeFacts {
    NodeFacts {
        name: text(node, "name"),
        running: flag(node, "running"),
        memory_alarm: flag(node, "mem_alarm"),
        disk_alarm: flag(node, "disk_free_alarm"),
        partitions: texts(node, "partitions"),
    }
}

/// `None` when it is no queue.
pub(super) fn queue_facts(queue: &Value) -> Option<QueueFacts> {
    let arguments = map(queue, "arguments");
    // 3.10 tells the type of a classic queue only of its own accord, later versions always.
    let kind = queue.get("type").and_then(Value::as_str).or(arguments.get("x-queue-type").and_then(Value::as_str));
    queue.get("name")?;
    Some(QueueFacts {
        kind: kind.unwrap_or("classic").to_owned(),
        durable: flag(queue, "durable"),
        auto_delete: flag(queue, "auto_delete"),
        state: text(queue, "state"),
        members: texts(queue, "members").len().max(1),
        policies: ["policy", "operator_policy"]
            .iter()
            .map(|key| text(queue, key))
            .filter(|name| !name.is_empty())
            .collect(),
        policy: map(queue, "effective_policy_definition"),
        consumers: queue
            .get("consumer_details")
            .and_then(Value::as_array)
            .map(|all| all.iter().map(consumer).collect()),
        arguments,
    })
}

fn consumer(consumer: &Value) -> ConsumerFacts {
    let channel = consumer.get("channel_details").unwrap_or(&Value::Null);
    ConsumerFacts {
        tag: text(consumer, "consumer_tag"),
        user: text(channel, "user"),
        connection: text(channel, "connection_name"),
        client: None,
    }
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    let all = value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// An empty one comes as `[]` from some versions.
fn map(value: &Value, key: &str) -> Map<String, Value> {
    value.get(key).and_then(Value::as_object).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_argument_and_policy_the_lower_limit_holds_and_the_arguments_word() {
        let queue = queue_facts(&json!({"name": "q", "type": "quorum", "durable": true, "policy": "p",
            "operator_policy": "o", "arguments": {"x-max-length": 10, "x-overflow": "reject-publish"},
            "effective_policy_definition": {"max-length": 5, "message-ttl": 100, "overflow": "drop-head"}}))
        .unwrap();
        let ruled = |value, by: &str| Some(Ruled { value, by: by.to_owned() });
        assert_eq!(queue.limit("max-length"), ruled(5, "policy p and o"));
        assert_eq!(queue.limit("message-ttl"), ruled(100, "policy p and o"));
        assert_eq!(queue.limit("expires"), None);
        let word = queue.word("overflow").unwrap();
        assert_eq!((word.value.as_str(), word.by.as_str()), ("reject-publish", "argument x-overflow"));
    }

    #[test]
    fn a_queue_without_policy_arguments_or_type_is_a_plain_classic_one() {
        let queue = queue_facts(&json!({"name": "q", "durable": true, "arguments": [], "policy": null,
            "effective_policy_definition": []}))
        .unwrap();
        let plain = QueueFacts { kind: "classic".to_owned(), durable: true, members: 1, ..QueueFacts::default() };
        assert_eq!(queue, plain);
        assert_eq!(queue_facts(&json!({"error": "x"})), None);
    }

    #[test]
    fn a_nodes_alarms_and_partitions_are_read() {
        let node = json!({"name": "n@a", "running": true, "mem_alarm": true, "disk_free_alarm": false,
            "partitions": ["n@b"]});
        let facts = node_facts(&node);
        assert!(facts.running && facts.memory_alarm && !facts.disk_alarm);
        assert_eq!(facts.partitions, ["n@b"]);
    }
}
