//! What `status` says of RabbitMQ's queues: how much waits in each, who consumes it, and what is wrong with that.
//!
//! What consumers hold unacked cannot be seen over AMQP.

use std::time::Duration;

use porchlight_broker::{BrokerUrls, topology};
use porchlight_queue::{DepthReader, QueueDepth};
use serde::{Deserialize, Serialize};

use crate::failure::chain;
use crate::output::{Output, Table};

/// For everything about RabbitMQ; six small questions.
const BROKER_MAX: Duration = Duration::from_secs(15);

/// One queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) exists: bool,
    pub(super) ready: u64,
    pub(super) consumers: u32,
}

/// Asks for every queue. The error is one line for a person.
pub(super) async fn queues(urls: &BrokerUrls) -> Result<Vec<Queue>, String> {
    let mut reader = DepthReader::RabbitMq(porchlight_broker::DepthReader::new(urls.clone(), "tool"));
    let depths = match tokio::time::timeout(BROKER_MAX, reader.read()).await {
        Ok(depths) => depths.map_err(|error| chain(&error))?,
        Err(_) => return Err("no answer in time".to_owned()),
    };
    let queue = |depth: QueueDepth| Queue {
        name: depth.queue.to_owned(),
        exists: depth.counts.is_some(),
        ready: depth.counts.map_or(0, |counts| counts.ready),
        consumers: depth.counts.and_then(|counts| counts.consumers).unwrap_or(0),
    };
    Ok(depths.into_iter().map(queue).collect())
}

/// What somebody should look at, in words.
pub(super) fn attention(queues: &[Queue], found: &mut Vec<String>) {
    for queue in queues {
        let Queue {
            name,
            exists,
            ready,
            consumers,
        } = queue;
        match name.as_str() {
            _ if !exists => found.push(format!("{name} does not exist; a daemon makes it when it starts")),
            topology::UNROUTED if *ready > 0 => {
                found.push(format!(
                    "{name} holds {ready}: a queue or a binding was missing when they came"
                ));
            }
            topology::DEAD if *ready > 0 => found.push(format!("{name} holds {ready}: porchlight dead list")),
            topology::EVENTS if *consumers == 0 => {
                found.push(format!("{name} has no consumer: no worker runs"))
            }
            topology::COMMANDS if *ready > 0 && *consumers == 0 => {
                found.push(format!(
                    "{name} holds {ready} and has no consumer: nobody acts on commands"
                ));
            }
            _ => {}
        }
    }
}

/// Prints them as a table.
pub(super) fn print(queues: &[Queue], output: Output) {
    let mut table = Table::new(["  QUEUE", "READY", "CONSUMERS"]);
    for queue in queues {
        let count = |count: u64| match queue.exists {
            true => count.to_string(),
            false => "-".to_owned(),
        };
        table.row(&[
            format!("  {}", queue.name),
            count(queue.ready),
            count(queue.consumers.into()),
        ]);
    }
    table.print(output);
}
