//! What `status` says of RabbitMQ's queues: how much waits in each, who consumes it, and what is wrong with that.
//!
//! What consumers hold unacked cannot be seen over AMQP; the management API tells it, where it is named.

use std::time::Duration;

use porchlight_broker::{BrokerUrls, topology};
use porchlight_management::{Management, ManagementUrl};
use porchlight_queue::{DepthReader, QueueDepth};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, chain};
use crate::output::{Output, Table};
use crate::servers::given;

/// For everything about RabbitMQ; six small questions.
const BROKER_MAX: Duration = Duration::from_secs(15);
/// For one question to the management API, connecting included: it may take a busy broker a second to gather.
const MANAGEMENT_MAX: Duration = Duration::from_secs(5);
/// What the names of all queues of ours begin with.
const NAMES: &str = "porchlight.";

/// Where RabbitMQ's management API is.
#[derive(clap::Args)]
pub(super) struct ManagementArgs {
    /// RabbitMQ's management API, for what consumers hold unacked: http://user:password@host:15672
    #[arg(
        long,
        value_name = "URL",
        env = "PORCHLIGHT_MANAGEMENT_URL",
        hide_env_values = true,
        help_heading = "Servers"
    )]
    management_url: Option<String>,
}

/// Asks for queues again and again, over a connection that is kept.
pub(super) struct Queues {
    reader: DepthReader,
    management: Option<Management>,
    vhost: String,
}

/// One queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) exists: bool,
    pub(super) ready: u64,
    pub(super) consumers: u32,
    /// What consumers hold, by the management API, which lags by some seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unacked: Option<u64>,
}

impl ManagementArgs {
    /// The API, where one is named; nothing is connected yet.
    pub(super) fn management(&self) -> Result<Option<Management>, Failure> {
        let wrong = || Failure::usage("PORCHLIGHT_MANAGEMENT_URL (--management-url)");
        let Some(url) = given(&self.management_url) else {
            return Ok(None);
        };
        let url = ManagementUrl::parse(url).map_err(|error| wrong().because(&error))?;
        let management = Management::new(url, MANAGEMENT_MAX).map_err(|error| wrong().because(&error))?;
        Ok(Some(management))
    }
}

impl Queues {
    /// Those of this broker.
    pub(super) fn new(urls: &BrokerUrls, management: Option<Management>) -> Self {
        Self {
            reader: DepthReader::RabbitMq(porchlight_broker::DepthReader::new(urls.clone(), "tool")),
            management,
            vhost: urls.vhost().to_owned(),
        }
    }

    /// Asks for every queue. The error is one line for a person. A management API that does not answer only leaves out
    /// what it alone knows.
    pub(super) async fn ask(&mut self) -> Result<Vec<Queue>, String> {
        let managed = async {
            match &self.management {
                Some(api) => api.queues(&self.vhost, NAMES).await.unwrap_or_default(),
                None => Vec::new(),
            }
        };
        let reading = tokio::time::timeout(BROKER_MAX, self.reader.read());
        let (depths, managed) = tokio::join!(reading, managed);
        let depths = match depths {
            Ok(depths) => depths.map_err(|error| chain(&error))?,
            Err(_) => return Err("no answer in time".to_owned()),
        };
        let unacked = |name: &str| managed.iter().find(|queue| queue.name == name)?.unacked;
        let queue = |depth: QueueDepth| Queue {
            name: depth.queue.to_owned(),
            exists: depth.counts.is_some(),
            ready: depth.counts.map_or(0, |counts| counts.ready),
            consumers: depth.counts.and_then(|counts| counts.consumers).unwrap_or(0),
            unacked: unacked(depth.queue),
        };
        Ok(depths.into_iter().map(queue).collect())
    }

    /// Lets go of the connection.
    pub(super) async fn close(self) {
        self.reader.close().await;
    }
}

/// What somebody should look at, in words.
pub(super) fn attention(queues: &[Queue], found: &mut Vec<String>) {
    for queue in queues {
        let Queue {
            name,
            exists,
            ready,
            consumers,
            ..
        } = queue;
        match name.as_str() {
            // It may have been deleted on purpose: what it would hold is caught, and told of, as unrouted.
            topology::COMMANDS if !exists => {}
            _ if !exists => found.push(format!("{name} does not exist; a daemon makes it when it starts")),
            topology::UNROUTED if *ready > 0 => {
                found.push(format!(
                    "{name} holds {ready}: a queue or a binding was missing when they came"
                ));
            }
            topology::DEAD if *ready > 0 => found.push(format!("{name} holds {ready}: porchlight dead list")),
            topology::EVENTS if *consumers == 0 => found.push(format!(
                "{name} has no consumer: no worker runs, or none has its ledger"
            )),
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
    let tells_unacked = queues.iter().any(|queue| queue.unacked.is_some());
    let mut table = if tells_unacked {
        Table::new(["  QUEUE", "READY", "CONSUMERS", "UNACKED"])
    } else {
        Table::new(["  QUEUE", "READY", "CONSUMERS"])
    };
    for queue in queues {
        let count = |count: u64| match queue.exists {
            true => count.to_string(),
            false => "-".to_owned(),
        };
        let name = format!("  {}", queue.name);
        let (ready, consumers) = (count(queue.ready), count(queue.consumers.into()));
        if tells_unacked {
            let unacked = queue
                .unacked
                .map_or_else(|| "-".to_owned(), |unacked| unacked.to_string());
            table.row(&[name, ready, consumers, unacked]);
        } else {
            table.row(&[name, ready, consumers]);
        }
    }
    table.print(output);
}
