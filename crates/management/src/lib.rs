//! What RabbitMQ's management HTTP API tells of queues, nodes, policies and permissions.
//!
//! It changes nothing on the broker and knows no queue of ours; what a reading means is for its readers.
//!
//! AMQP shows ready messages and consumers; this shows what consumers hold unacknowledged, bytes, policies, alarms and
//! members, too. The broker gathers such figures every 5 s (its `collect_statistics_interval`) and keeps them for
//! another 5 s, so they lag by some seconds, and those of a new queue are missing at first.

mod answers;
mod management;
mod url;

pub use answers::{Binding, Definition, Node, Overview, Permission, Policy, QueueStats, User};
pub use management::{AskError, Management};
pub use url::{ManagementUrl, ManagementUrlError};
