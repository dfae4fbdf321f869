//! `porchlight status`: the whole pipeline at a glance, and what in it needs somebody.
//!
//! It goes on when one server or one ingress does not answer, and says which.

mod ingresses;
mod ledger_part;
mod outage_part;
mod scaled;
mod standalone;
mod watch;

use std::time::Duration;

use bytes::Bytes;
use porchlight_ledger::Ledger;
use porchlight_management::Management;
use porchlight_service::client::Target;
use porchlight_service::settings::parse;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::control_api::{ControlApi, read_of_standalone};
use crate::failure::Failure;
use crate::output::{Output, plain};
use crate::place::{Directory, Place, QueueArgs, Servers};
use ingresses::Ingress;
use ledger_part::LedgerState;
use standalone::StandaloneState;

/// Shows queues, commands that are owed, devices by status, and what of it needs attention.
///
/// The number to watch is what is ready in porchlight.events. porchlight.unrouted must stay empty.
/// In the scaled form it asks RabbitMQ and Redis, and shows the queues' consumers. Of a standalone it shows its data
/// directory: the queues with what is in hand, how large the data is and may become, and whether the daemon runs; both
/// tiers of retry are one there. With --json the parts are `rabbitmq` and `redis`, or else `standalone`; `ingresses`
/// and `attention` are there in both.
#[derive(clap::Args)]
pub(crate) struct StatusArgs {
    /// Exit with 1 when something needs attention, too
    #[arg(long)]
    check: bool,
    /// Also ask the admin listener of an ingress whether it is ready and what it keeps in its spool; may be given
    /// several times, as a variable comma-separated
    #[arg(
        long = "ingress",
        value_name = "URL",
        env = "PORCHLIGHT_INGRESS_ADMIN_URLS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    ingresses: Vec<String>,
    /// Look again and again, and draw what changes, with rates: q ends it. Not in a terminal it is a line for each look,
    /// with --json a document on one line
    #[arg(long, conflicts_with = "check")]
    watch: bool,
    /// How long to wait between two looks [200ms to 1h]
    #[arg(
        long,
        value_name = "SPAN",
        default_value = "2s",
        value_parser = parse::duration,
        requires = "watch",
        help_heading = "Watching"
    )]
    interval: Duration,
    /// Watching: also read the metrics of a worker, for how long events wait and what becomes of them; may be given
    /// several times, as a variable comma-separated. Those of an ingress are read where --ingress names it
    #[arg(
        long = "worker",
        value_name = "URL",
        env = "PORCHLIGHT_WORKER_ADMIN_URLS",
        hide_env_values = true,
        value_delimiter = ',',
        help_heading = "Watching"
    )]
    workers: Vec<String>,
    #[command(flatten)]
    management: scaled::ManagementArgs,
    #[command(flatten)]
    place: QueueArgs,
}

/// Everything that is shown.
#[derive(Default, Serialize)]
struct Status {
    #[serde(flatten)]
    pipeline: Pipeline,
    ingresses: Vec<Ingress>,
    attention: Vec<String>,
}

/// The servers, or the standalone.
#[derive(Default, Serialize, Deserialize)]
struct Pipeline {
    #[serde(skip_serializing_if = "Option::is_none")]
    rabbitmq: Option<Part<Vec<scaled::Queue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<Part<LedgerState>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    standalone: Option<Part<StandaloneState>>,
}

/// Asks one place, again and again, over connections that are kept.
struct Asker {
    place: Place,
    /// Of RabbitMQ.
    queues: Option<scaled::Queues>,
}

/// One part: where it is, and what it says or why it does not.
#[derive(Serialize, Deserialize)]
struct Part<T> {
    address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<T>,
}

/// Looks at everything, once or until it is told to end.
pub(crate) async fn run(args: StatusArgs, output: Output, stop: CancellationToken) -> Result<(), Failure> {
    let ingresses = ingresses::targets(&args.ingresses)?;
    let workers = ingresses::worker_targets(&args.workers)?;
    let asker = Asker::new(args.place.place()?, args.management.management()?);
    if !args.watch {
        return crate::until(&stop, run_once(asker, ingresses, args.check, output)).await;
    }
    if !(watch::INTERVAL_MIN..=watch::INTERVAL_MAX).contains(&args.interval) {
        return Err(Failure::usage("--interval must be 200ms to 1h"));
    }
    let watch = watch::Watch {
        asker,
        ingresses,
        workers,
        interval: args.interval,
    };
    watch::run(watch, output, stop).await
}

async fn run_once(
    mut asker: Asker,
    targets: Vec<Target>,
    is_check: bool,
    output: Output,
) -> Result<(), Failure> {
    let (pipeline, ingresses) = tokio::join!(asker.ask(), ingresses::ask(targets));
    asker.close().await;
    let status = Status::new(pipeline?, ingresses);
    status.print(output);
    if let Some(failure) = status.pipeline.failure() {
        return Err(failure);
    }
    if is_check && !status.attention.is_empty() {
        Err(Failure::told())
    } else {
        Ok(())
    }
}

/// What `status --json` of a directory says, for the control API.
pub(crate) async fn of_directory(directory: &Directory) -> impl Serialize + use<> {
    Status::new(Pipeline::of_directory(directory).await, Vec::new())
}

impl Asker {
    fn new(place: Place, management: Option<Management>) -> Self {
        let queues = match &place {
            Place::Servers(servers) => Some(scaled::Queues::new(&servers.amqp, management)),
            Place::Directory(_) | Place::Api(_) => None,
        };
        Self { place, queues }
    }

    fn place(&self) -> &Place {
        &self.place
    }

    async fn ask(&mut self) -> Result<Pipeline, Failure> {
        match (&self.place, &mut self.queues) {
            (Place::Servers(servers), Some(queues)) => Ok(Pipeline::of_servers(servers, queues).await),
            (Place::Directory(directory), _) => Ok(Pipeline::of_directory(directory).await),
            (Place::Api(api), _) => Pipeline::of_api(api).await,
            (Place::Servers(_), None) => Ok(Pipeline::default()),
        }
    }

    /// Lets go of connections that were kept.
    async fn close(self) {
        if let Some(queues) = self.queues {
            queues.close().await;
        }
    }
}

impl Pipeline {
    async fn of_servers(servers: &Servers, queues: &mut scaled::Queues) -> Self {
        let ledger = Ledger::Redis(servers.store.clone());
        let (queues, ledger_state) = tokio::join!(queues.ask(), LedgerState::ask(&ledger));
        Self {
            rabbitmq: Some(Part::new(servers.amqp.to_string(), queues)),
            redis: Some(Part::new(ledger.address(), ledger_state)),
            standalone: None,
        }
    }

    async fn of_directory(directory: &Directory) -> Self {
        // Whole, because it may be read in another folder than the daemon's.
        let path = std::path::absolute(&directory.path);
        let address = path.as_ref().unwrap_or(&directory.path).display().to_string();
        Self {
            standalone: Some(Part::new(address, StandaloneState::ask(directory).await)),
            ..Self::default()
        }
    }

    async fn of_api(api: &ControlApi) -> Result<Self, Failure> {
        let answer = api.call("GET", "/v1/status", Bytes::new()).await?;
        let mut pipeline: Self = read_of_standalone(&answer, "the queues")?;
        // What it has written down may be some seconds old, and knows nothing of the keys.
        let page = api.call("GET", "/outages", Bytes::new()).await;
        let page = page.ok().filter(|page| page.status.is_success());
        let part = pipeline.standalone.as_mut();
        if let (Some(state), Some(page)) = (part.and_then(|part| part.state.as_mut()), page) {
            state.outages = serde_json::from_slice(&page.body).ok().or(state.outages.take());
        }
        Ok(pipeline)
    }

    fn attention(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(queues) = self.rabbitmq.as_ref().and_then(|part| part.state.as_ref()) {
            scaled::attention(queues, &mut found);
        }
        if let Some(ledger) = self.redis.as_ref().and_then(|part| part.state.as_ref()) {
            ledger.attention("no worker sends", &mut found);
        }
        if let Some(state) = self.standalone.as_ref().and_then(|part| part.state.as_ref()) {
            state.attention(&mut found);
        }
        found
    }

    /// What is known of the ledger, whichever it is.
    fn ledger(&self) -> Option<&LedgerState> {
        let redis = self.redis.as_ref().and_then(|part| part.state.as_ref());
        let standalone = self.standalone.as_ref().and_then(|part| part.state.as_ref());
        redis.or(standalone.map(|state| &state.ledger))
    }

    /// The parts that do not answer, each with the reason.
    fn away(&self) -> impl Iterator<Item = (String, String)> {
        let parts = [
            (
                "RabbitMQ",
                self.rabbitmq.as_ref().and_then(|part| part.error.as_ref()),
            ),
            ("Redis", self.redis.as_ref().and_then(|part| part.error.as_ref())),
            (
                "the data directory",
                self.standalone.as_ref().and_then(|part| part.error.as_ref()),
            ),
        ];
        let away = parts
            .into_iter()
            .filter_map(|(name, error)| Some((name.to_owned(), error?.clone())));
        away.collect::<Vec<_>>().into_iter()
    }

    /// The first part that does not answer.
    fn failure(&self) -> Option<Failure> {
        let error = |name, part: Option<&String>, advice| {
            part.map(|error| Failure::unavailable(format_args!("{name}: {error}")).advise(advice))
        };
        let server = "is it running, and is its URL right? For a standalone: --data-dir DIR";
        let rabbitmq = self.rabbitmq.as_ref().and_then(|part| part.error.as_ref());
        let redis = self.redis.as_ref().and_then(|part| part.error.as_ref());
        let standalone = self.standalone.as_ref().and_then(|part| part.error.as_ref());
        error("RabbitMQ", rabbitmq, server)
            .or_else(|| error("Redis", redis, server))
            .or_else(|| error("the data directory", standalone, "the same again; it may be busy"))
    }
}

impl<T> Part<T> {
    fn new(address: String, looked: Result<T, String>) -> Self {
        let (state, error) = match looked {
            Ok(state) => (Some(state), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            address,
            error,
            state,
        }
    }

    fn print_head(&self, name: &str, output: Output) {
        output.line(format_args!("{name}  {}", plain(&self.address)));
        if let Some(error) = &self.error {
            output.line(format_args!("  does not answer: {}", plain(error)));
        }
    }
}

impl Status {
    fn new(pipeline: Pipeline, ingresses: Vec<Ingress>) -> Self {
        let mut attention = pipeline.attention();
        for ingress in &ingresses {
            ingress.attention(&mut attention);
        }
        Self {
            pipeline,
            ingresses,
            attention,
        }
    }

    fn print(&self, output: Output) {
        if output.is_json() {
            return output.document(self);
        }
        if let Some(part) = &self.pipeline.rabbitmq {
            part.print_head("RabbitMQ", output);
            if let Some(queues) = &part.state {
                scaled::print(queues, output);
            }
            output.line("");
        }
        if let Some(part) = &self.pipeline.redis {
            part.print_head("Redis", output);
            if let Some(ledger) = &part.state {
                ledger.print(output);
            }
        }
        if let Some(part) = &self.pipeline.standalone {
            part.print_head("Standalone", output);
            if let Some(state) = &part.state {
                state.print(output);
            }
        }
        if !self.ingresses.is_empty() {
            output.line("");
        }
        for ingress in &self.ingresses {
            ingress.print(output);
        }
        if !self.attention.is_empty() {
            output.line("");
            output.line("needs attention:");
            for text in &self.attention {
                output.line(format_args!("  {}", plain(text)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use porchlight_broker::topology;

    fn queue(name: &str, ready: u64, consumers: u32) -> scaled::Queue {
        scaled::Queue {
            name: name.to_owned(),
            exists: true,
            ready,
            consumers,
            unacked: None,
        }
    }

    fn attention(queues: Vec<scaled::Queue>, ledger: LedgerState) -> Vec<String> {
        let pipeline = Pipeline {
            rabbitmq: Some(Part::new("amqp".to_owned(), Ok(queues))),
            redis: Some(Part::new("redis".to_owned(), Ok(ledger))),
            standalone: None,
        };
        pipeline.attention()
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
        assert_eq!(attention(queues, ledger), Vec::<String>::new());
        assert_eq!(Pipeline::default().attention(), Vec::<String>::new());
    }

    #[test]
    fn each_trouble_is_named() {
        let missing = scaled::Queue {
            exists: false,
            ..queue(topology::RETRY_1M, 0, 0)
        };
        let queues = vec![
            queue(topology::EVENTS, 5, 0),
            queue(topology::DEAD, 1, 0),
            queue(topology::UNROUTED, 2, 0),
            queue(topology::COMMANDS, 3, 0),
            missing,
        ];
        let ledger = LedgerState {
            commands_owed: 3,
            oldest_owed_seconds: Some(61),
            ..LedgerState::default()
        };
        let found = attention(queues, ledger);
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(found[5].contains("owed for 1m 1s"), "{found:?}");
    }
}
