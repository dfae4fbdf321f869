//! `porchlight status`: the whole pipeline at a glance, and what in it needs somebody.
//!
//! It goes on when one server does not answer, and says which.

use std::collections::BTreeMap;
use std::time::Duration;

use porchlight_broker::{BrokerUrls, DepthReader, topology};
use porchlight_store::{Backlog, Store};
use serde::Serialize;

use crate::clock::now_ms;
use crate::failure::{Failure, chain};
use crate::ledger::RedisArgs;
use crate::output::{Output, Table, plain, span};
use crate::servers::AmqpArgs;

/// For everything about RabbitMQ; six small questions.
const BROKER_MAX: Duration = Duration::from_secs(15);
/// A command is owed for seconds; after this long somebody should look.
const OWED_MAX: Duration = Duration::from_secs(60);

/// Shows queues, their consumers, commands that are owed, and devices by status.
///
/// The number to watch is what is ready in porchlight.events. porchlight.unrouted must stay empty.
#[derive(clap::Args)]
pub(crate) struct StatusArgs {
    /// Exit with 1 when something needs attention, too
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    amqp: AmqpArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

/// Everything that is shown.
#[derive(Serialize)]
struct Status {
    rabbitmq: Part<Vec<Queue>>,
    redis: Part<LedgerState>,
    attention: Vec<String>,
}

/// One server's part: where it is, and what it says or why it does not.
#[derive(Serialize)]
struct Part<T> {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    state: Option<Named<T>>,
}

#[derive(Serialize)]
struct Named<T> {
    state: T,
}

#[derive(Debug, Clone, Serialize)]
struct Queue {
    name: &'static str,
    exists: bool,
    ready: u32,
    consumers: u32,
}

#[derive(Debug, Clone, Default, Serialize)]
struct LedgerState {
    commands_owed: u64,
    oldest_owed_seconds: Option<u64>,
    accounts_to_tell: u64,
    devices: BTreeMap<&'static str, u64>,
    /// What is dangerous in the server's own settings.
    warnings: Vec<&'static str>,
}

/// Looks at both servers.
pub(crate) async fn run(args: StatusArgs, output: Output) -> Result<(), Failure> {
    let (urls, store) = (args.amqp.urls()?, args.redis.store()?);
    let (rabbitmq, redis) = tokio::join!(queues(&urls), ledger(&store));
    let rabbitmq = Part::new(urls.to_string(), rabbitmq);
    let redis = Part::new(store.address().to_owned(), redis);
    let attention = attention(rabbitmq.get(), redis.get());
    let status = Status {
        rabbitmq,
        redis,
        attention,
    };
    status.print(output);
    for (name, error) in [
        ("RabbitMQ", &status.rabbitmq.error),
        ("Redis", &status.redis.error),
    ] {
        if let Some(error) = error {
            return Err(Failure::unavailable(format_args!("{name}: {error}"))
                .advise("is it running, and is its URL right?"));
        }
    }
    if args.check && !status.attention.is_empty() {
        Err(Failure::told())
    } else {
        Ok(())
    }
}

async fn queues(urls: &BrokerUrls) -> Result<Vec<Queue>, String> {
    let mut reader = DepthReader::new(urls.clone(), "tool");
    let depths = match tokio::time::timeout(BROKER_MAX, reader.read()).await {
        Ok(depths) => depths.map_err(|error| chain(&error))?,
        Err(_) => return Err("no answer in time".to_owned()),
    };
    let queue = |depth: porchlight_broker::QueueDepth| Queue {
        name: depth.queue,
        exists: depth.counts.is_some(),
        ready: depth.counts.map_or(0, |counts| counts.ready),
        consumers: depth.counts.map_or(0, |counts| counts.consumers),
    };
    Ok(depths.into_iter().map(queue).collect())
}

async fn ledger(store: &Store) -> Result<LedgerState, String> {
    let Backlog {
        commands,
        oldest_ms,
        accounts_to_tell,
    } = store.backlog().await.map_err(|error| chain(&error))?;
    let counts = store.counts().await.map_err(|error| chain(&error))?;
    // A server may deny the question about itself; that says nothing about the ledger.
    let warnings = store
        .server_facts()
        .await
        .map(|facts| facts.warnings())
        .unwrap_or_default();
    let age = oldest_ms.map(|at| now_ms().saturating_sub(at).max(0).unsigned_abs() / 1_000);
    Ok(LedgerState {
        commands_owed: commands,
        oldest_owed_seconds: age,
        accounts_to_tell,
        devices: counts
            .into_iter()
            .map(|(status, count)| (status.code(), count))
            .collect(),
        warnings,
    })
}

/// What somebody should look at, in words.
fn attention(queues: Option<&Vec<Queue>>, ledger: Option<&LedgerState>) -> Vec<String> {
    let mut found = Vec::new();
    for queue in queues.into_iter().flatten() {
        let Queue {
            name,
            exists,
            ready,
            consumers,
        } = queue;
        match *name {
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
    if let Some(ledger) = ledger {
        found.extend(ledger.warnings.iter().map(|warning| (*warning).to_owned()));
        let age = ledger
            .oldest_owed_seconds
            .map(Duration::from_secs)
            .filter(|age| *age > OWED_MAX);
        if let Some(age) = age {
            found.push(format!(
                "a command is owed for {}: no worker sends, or a device must settle",
                span(age)
            ));
        }
    }
    found
}

impl<T> Part<T> {
    fn new(address: String, looked: Result<T, String>) -> Self {
        let (state, error) = match looked {
            Ok(state) => (Some(Named { state }), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            address,
            error,
            state,
        }
    }

    fn get(&self) -> Option<&T> {
        self.state.as_ref().map(|named| &named.state)
    }
}

impl Status {
    fn print(&self, output: Output) {
        if output.is_json() {
            return output.document(self);
        }
        let head = |name: &str, address: &str, error: &Option<String>| {
            output.line(format_args!("{name}  {}", plain(address)));
            if let Some(error) = error {
                output.line(format_args!("  does not answer: {}", plain(error)));
            }
        };
        head("RabbitMQ", &self.rabbitmq.address, &self.rabbitmq.error);
        if let Some(queues) = self.rabbitmq.get() {
            let mut table = Table::new(["  QUEUE", "READY", "CONSUMERS"]);
            for queue in queues {
                let count = |count: u32| {
                    if queue.exists {
                        count.to_string()
                    } else {
                        "-".to_owned()
                    }
                };
                table.row(&[
                    format!("  {}", queue.name),
                    count(queue.ready),
                    count(queue.consumers),
                ]);
            }
            table.print(output);
        }
        output.line("");
        head("Redis", &self.redis.address, &self.redis.error);
        if let Some(ledger) = self.redis.get() {
            let age = ledger
                .oldest_owed_seconds
                .map(|age| format!(", the oldest for {}", span(Duration::from_secs(age))));
            output.line(format_args!(
                "  commands owed      {}{}",
                ledger.commands_owed,
                age.unwrap_or_default()
            ));
            output.line(format_args!("  accounts to tell   {}", ledger.accounts_to_tell));
            let devices: Vec<_> = ledger
                .devices
                .iter()
                .map(|(status, count)| format!("{count} {status}"))
                .collect();
            output.line(format_args!("  devices            {}", devices.join(", ")));
        }
        if !self.attention.is_empty() {
            output.line("");
            output.line("needs attention:");
            for text in &self.attention {
                output.line(format_args!("  {text}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &'static str, ready: u32, consumers: u32) -> Queue {
        Queue {
            name,
            exists: true,
            ready,
            consumers,
        }
    }

    #[test]
    fn a_healthy_pipeline_needs_nobody() {
        let queues = vec![
            queue(topology::EVENTS, 500, 2),
            queue(topology::DEAD, 0, 0),
            queue(topology::UNROUTED, 0, 0),
            queue(topology::COMMANDS, 3, 1),
        ];
        let ledger = LedgerState {
            commands_owed: 3,
            oldest_owed_seconds: Some(2),
            ..LedgerState::default()
        };
        assert_eq!(attention(Some(&queues), Some(&ledger)), Vec::<String>::new());
        assert_eq!(attention(None, None), Vec::<String>::new());
    }

    #[test]
    fn each_trouble_is_named() {
        let queues = vec![
            queue(topology::EVENTS, 5, 0),
            queue(topology::DEAD, 1, 0),
            queue(topology::UNROUTED, 2, 0),
            queue(topology::COMMANDS, 3, 0),
            Queue {
                name: topology::RETRY_1M,
                exists: false,
                ready: 0,
                consumers: 0,
            },
        ];
        let ledger = LedgerState {
            commands_owed: 3,
            oldest_owed_seconds: Some(61),
            ..LedgerState::default()
        };
        let found = attention(Some(&queues), Some(&ledger));
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(found[5].contains("owed for 1m 1s"), "{found:?}");
    }
}
