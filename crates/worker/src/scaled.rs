//! The worker of the scaled form: opens RabbitMQ and Redis, and is a process of its own, with its admin listener.
//!
//! Nothing else in this crate knows which queue and which ledger there are.

use std::sync::Arc;
use std::time::Duration;

use porchlight_broker::{
    self as broker, BrokerUrls, Consumer, ConsumerConfig, Publisher, PublisherConfig, TopologyConfig,
};
use porchlight_ledger::Ledger;
use porchlight_monitor::{Management, QueueWatch};
use porchlight_queue::{DepthReader, Queue, Source};
use porchlight_service::trace::{TraceSettings, Traces};
use porchlight_service::{Admin, AdminLimits, Metrics, Secret, admin};
use porchlight_store::{Store, StoreConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::keys::KeysInForce;
use crate::outlet::{Callback, CallbackSettings, Outlet};
use crate::settings::WorkSettings;
use crate::worker::{RunError, Worker, WorkerParts};

/// Names the connections at the broker, as `role@host:pid`.
const CONSUMER_ROLE: &str = "porchlight-worker";
const PUBLISHER_ROLE: &str = "porchlight-worker-publisher";
const WATCH_ROLE: &str = "porchlight-worker-watch";
/// From a receiver's answer until the ledger knows of it: the rest of an answer is read for up to a second, and the
/// ledger has half a second.
const NOTE_MAX: Duration = Duration::from_secs(2);

/// What the process is made of; bound things and a stop token come beside it.
#[derive(Debug)]
pub struct WorkerConfig {
    /// The broker's addresses.
    pub amqp: BrokerUrls,
    /// What to declare there.
    pub topology: TopologyConfig,
    /// Where the ledger is, and how patient to be with it. What depends on the work or the outlet is set by them.
    pub redis: StoreConfig,
    /// The control API's token; without one that API is off.
    pub admin_token: Option<Secret>,
    /// Keys to verify each event with once more, if any.
    pub keys: KeysInForce,
    /// How long a connection to the broker must have been good before the full prefetch.
    pub prefetch_ramp: Duration,
    /// The broker's management API, where one is named; only metrics are made of it.
    pub management: Option<Management>,
    /// Where traces go, if anywhere.
    pub trace: Option<TraceSettings>,
    /// Bounds and spans.
    pub work: WorkSettings,
    /// Calls to partners' services in place of the broker's exchange.
    pub callback: Option<CallbackSettings>,
}

/// Runs a worker with an admin listener until `stop`: readiness goes first, then the subscription, events, commands,
/// connections, and the admin listener last.
///
/// # Errors
/// [`RunError`]; nothing that was acked is lost by any of them.
pub async fn run(
    mut config: WorkerConfig,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let version = env!("CARGO_PKG_VERSION");
    let traces = Traces::start(config.trace.take(), "porchlight-worker", version);
    let mut metrics = Metrics::new(version, "worker");
    let worker = Worker::prepare(open(&config, &stop)?, &mut metrics);
    let depths = broker::DepthReader::new(config.amqp.clone(), WATCH_ROLE);
    let watch = QueueWatch::new(DepthReader::RabbitMq(depths), config.work.watch_interval)
        .and_management(config.management.take(), config.amqp.vhost());
    watch.register(&mut metrics);
    // Nobody waits for its end: it only looks, and says goodbye to the broker while the rest is finished.
    tokio::spawn(watch.run(stop.clone()));
    let shown = Admin {
        ready: worker.ready(),
        metrics: Arc::new(metrics),
        pages: Vec::new(),
        api: Some(worker.api()),
        token: config.admin_token,
        limits: AdminLimits::default(),
    };
    let admin_stop = CancellationToken::new();
    let mut serving = tokio::spawn(admin::serve(listener, shown, admin_stop.clone()));
    let mut working = std::pin::pin!(worker.run(stop.clone()));
    let ended = tokio::select! {
        ended = &mut working => {
            admin_stop.cancel();
            let served = serving.await.map_err(RunError::Panicked);
            ended.and(served)
        }
        served = &mut serving => {
            stop.cancel();
            let ended = working.await;
            let served = served.map_err(RunError::Panicked);
            served.and(ended).and(Err(RunError::Part("admin listener")))
        }
    };
    traces.close().await;
    ended
}

/// Opens queue and ledger. That a server does not answer shows later.
fn open(config: &WorkerConfig, stop: &CancellationToken) -> Result<WorkerParts, RunError> {
    let ledger = Store::connect(&store_config(config));
    let ledger = Ledger::Redis(ledger.map_err(|error| RunError::Ledger(Box::new(error)))?);
    // The publisher outlives the stop: copies and commands in hand are still to be sent.
    let publisher = Publisher::start(publisher_config(config), CancellationToken::new());
    let consumer = Consumer::start(consumer_config(config), stop.clone());
    Ok(WorkerParts {
        queue: Queue::RabbitMq(publisher.clone()),
        source: Source::RabbitMq(consumer),
        ledger,
        outlet: match &config.callback {
            Some(callback) => Outlet::Callback(Callback::new(callback.clone())),
            None => Outlet::RabbitMq(publisher),
        },
        keys: config.keys.clone(),
        work: config.work,
    })
}

fn store_config(config: &WorkerConfig) -> StoreConfig {
    let usual = config.redis.clone();
    // While one worker calls, no other may: whoever receives has not acted yet, and could not tell that it is the same.
    let call_max = config.callback.as_ref().map_or(Duration::ZERO, |callback| {
        callback.timeout.saturating_add(NOTE_MAX)
    });
    StoreConfig {
        settle: config.work.settle,
        connections: config.work.batches_max,
        head_start: usual.head_start.max(call_max),
        hold_min: usual.hold_min.max(call_max),
        ..usual
    }
}

fn consumer_config(config: &WorkerConfig) -> ConsumerConfig {
    ConsumerConfig {
        topology: config.topology.clone(),
        prefetch_full: config.work.prefetch,
        healthy_after: config.prefetch_ramp,
        // The work loop resumes it when the ledger has answered.
        begin_paused: true,
        ..ConsumerConfig::new(config.amqp.clone(), CONSUMER_ROLE)
    }
}

fn publisher_config(config: &WorkerConfig) -> PublisherConfig {
    PublisherConfig {
        topology: config.topology.clone(),
        // Commands, and the copies of whole pieces beside them.
        inflight_max: config.work.commands_inflight_max + config.work.batch_size * config.work.batches_max,
        ..PublisherConfig::new(config.amqp.clone(), PUBLISHER_ROLE)
    }
}
