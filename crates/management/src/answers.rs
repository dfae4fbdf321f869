//! What the API answers, as far as it is used here. Fields that a version does not have, or not yet, are absent.
//!
//! Nothing is judged.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Names and values of a policy or of a queue's arguments.
pub type Definition = Map<String, Value>;

/// One queue. Figures are those of the broker's last gathering, some seconds ago; they are absent until the first one
/// after the queue was declared.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct QueueStats {
    /// Its name.
    pub name: String,
    /// `quorum`, `classic` or `stream`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Messages waiting for a consumer.
    #[serde(rename = "messages_ready", default)]
    pub ready: Option<u64>,
    /// Messages that consumers hold.
    #[serde(rename = "messages_unacknowledged", default)]
    pub unacked: Option<u64>,
    /// Consumers.
    #[serde(default)]
    pub consumers: Option<u64>,
    /// Bytes of all bodies, ready and unacknowledged.
    #[serde(rename = "message_bytes", default)]
    pub bytes: Option<u64>,
    /// What it was declared with.
    #[serde(default, deserialize_with = "definition")]
    pub arguments: Definition,
    /// The name of the policy in force.
    #[serde(default)]
    pub policy: Option<String>,
    /// The name of the operator policy in force.
    #[serde(default)]
    pub operator_policy: Option<String>,
    /// What both policies together say.
    #[serde(
        rename = "effective_policy_definition",
        default,
        deserialize_with = "definition"
    )]
    pub effective_policy: Definition,
    /// The node that leads a quorum queue.
    #[serde(default)]
    pub leader: Option<String>,
    /// The nodes that keep a copy of a quorum queue.
    #[serde(default)]
    pub members: Vec<String>,
    /// Those of them that run.
    #[serde(default)]
    pub online: Vec<String>,
}

/// The broker as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Overview {
    /// Its version, such as `4.3.5`.
    pub rabbitmq_version: String,
    /// The version of the Erlang that it runs on.
    #[serde(default)]
    pub erlang_version: String,
    /// What the cluster calls itself.
    #[serde(default)]
    pub cluster_name: String,
    /// The node that answered.
    pub node: String,
    /// What its clock says, to the second, where the answer tells.
    #[serde(skip)]
    pub clock: Option<SystemTime>,
}

/// One node of the cluster. A node that does not run has a name and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    #[serde(default)]
    pub running: bool,
    /// Whether it holds up publishers because memory is used up.
    #[serde(rename = "mem_alarm", default)]
    pub memory_alarm: bool,
    /// Bytes of memory in use.
    #[serde(rename = "mem_used", default)]
    pub memory_used: Option<u64>,
    /// Bytes of memory at which it raises the alarm.
    #[serde(rename = "mem_limit", default)]
    pub memory_limit: Option<u64>,
    /// Whether it holds up publishers because the disk is full.
    #[serde(rename = "disk_free_alarm", default)]
    pub disk_alarm: bool,
    /// Bytes of disk that are free; absent where they cannot be measured.
    #[serde(default, deserialize_with = "number")]
    pub disk_free: Option<u64>,
    /// Bytes of free disk below which it raises the alarm.
    #[serde(default, deserialize_with = "number")]
    pub disk_free_limit: Option<u64>,
    /// Files and sockets in use.
    #[serde(rename = "fd_used", default, deserialize_with = "number")]
    pub files_used: Option<u64>,
    /// Most files and sockets it may use.
    #[serde(rename = "fd_total", default, deserialize_with = "number")]
    pub files_max: Option<u64>,
    /// Nodes that it is cut off from.
    #[serde(default)]
    pub partitions: Vec<String>,
}

/// One policy of a virtual host.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// The regular expression for names.
    pub pattern: String,
    /// `queues`, `quorum_queues`, `exchanges`, `all`, …
    #[serde(rename = "apply-to", default)]
    pub apply_to: String,
    /// The largest one that matches is in force.
    #[serde(default)]
    pub priority: i64,
    /// What it says.
    #[serde(default, deserialize_with = "definition")]
    pub definition: Definition,
}

/// One binding of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Binding {
    /// The queue or exchange that it leads to.
    pub destination: String,
    /// `queue` or `exchange`.
    pub destination_type: String,
    /// The key or pattern.
    #[serde(default)]
    pub routing_key: String,
}

/// What one user may do in a virtual host, as regular expressions for names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Permission {
    /// Who.
    pub user: String,
    /// Declare and delete.
    pub configure: String,
    /// Publish, and bind to.
    pub write: String,
    /// Consume, and bind from.
    pub read: String,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    /// The name.
    pub name: String,
    /// What it may see of the API: `management`, `policymaker`, `monitoring`, `administrator`.
    #[serde(default, deserialize_with = "tags")]
    pub tags: Vec<String>,
}

/// One page of a listing.
#[derive(Debug, Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    #[serde(default)]
    pub(crate) page_count: u32,
}

/// An object. Some versions write an empty one as null or as an empty list.
fn definition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Definition, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Object(map) => map,
        _ => Definition::new(),
    })
}

/// A number. A node writes a word where it cannot measure.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_u64())
}

/// A list of words; before RabbitMQ 3.9 one word with commas.
fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let words = match Value::deserialize(deserializer)? {
        Value::String(text) => text.split(',').map(|word| word.trim().to_owned()).collect(),
        Value::Array(list) => list
            .iter()
            .filter_map(|word| Some(word.as_str()?.to_owned()))
            .collect(),
        _ => Vec::new(),
    };
    Ok(words)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_was_just_declared_has_no_figures_and_is_no_error() {
        let text = r#"{"arguments":[],"effective_policy_definition":null,"name":"q","type":"quorum","members":["a"]}"#;
        let queue: QueueStats = serde_json::from_str(text).unwrap();
        assert_eq!((queue.ready, queue.unacked, queue.bytes), (None, None, None));
        assert!(queue.arguments.is_empty() && queue.effective_policy.is_empty() && queue.policy.is_none());
    }

    #[test]
    fn a_node_that_does_not_run_or_cannot_measure_is_no_error() {
        let text = r#"[{"name":"a","running":false},{"name":"b","running":true,"disk_free":"NaN","fd_used":"unknown"}]"#;
        let nodes: Vec<Node> = serde_json::from_str(text).unwrap();
        assert!(!nodes[0].running && nodes[1].running);
        assert_eq!((nodes[1].disk_free, nodes[1].files_used), (None, None));
    }
}
