//! The worker: consumes events, applies each once to the ledger and sends the commands they owe.
//!
//! It knows no public HTTP: what Ring sends arrives through the queue, whole and already stored.
//!
//! Invariants of the crate:
//! - A delivery is acked only after the ledger has it, or after a copy of it is confirmed by the broker.
//! - Nothing is ever nacked. What cannot be settled for long goes back with its connection, all at once.
//! - A command goes out only after the ledger owes it, and is owed until the broker has confirmed it.
//!
//! The way of an event: [`work_loop`] takes a batch, [`piece`] cuts it, [`settle`] has [`decide`] say what becomes of
//! each delivery and does it through [`ledger`], the work loop acks, [`dispatch`] sends what is owed, and [`sweep`]
//! whatever that left behind.

mod api;
pub mod decide;
mod dispatch;
mod hold;
pub mod keys;
mod ledger;
mod metrics;
mod outlet;
mod piece;
mod ready;
mod settings;
mod settle;
mod sweep;
mod work_loop;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use porchlight_broker::{BrokerUrls, Consumer, ConsumerConfig, Publisher, PublisherConfig, TopologyConfig};
use porchlight_service::{Admin, AdminLimits, Metrics, Secret, admin};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

pub use outlet::Outlet;
pub use settings::{Args, Settings, WorkSettings};

use dispatch::{Dispatch, Dispatcher};
use keys::KeysInForce;
use ledger::Ledger;
use metrics::WorkerMetrics;
use ready::Readiness;
use settle::Settler;
use sweep::Sweeper;
use work_loop::WorkLoop;

/// Names the connections at the broker, as `role@host:pid`.
const CONSUMER_ROLE: &str = "porchlight-worker";
const PUBLISHER_ROLE: &str = "porchlight-worker-publisher";

/// What a worker is made of; bound things and a stop token come beside it.
#[derive(Debug)]
pub struct WorkerConfig {
    /// The broker's addresses.
    pub amqp: BrokerUrls,
    /// What to declare there.
    pub topology: TopologyConfig,
    /// The ledger's address.
    pub redis: Secret,
    /// The control API's token; without one that API is off.
    pub admin_token: Option<Secret>,
    /// Keys to verify each event with once more, if any.
    pub keys: KeysInForce,
    /// Bounds and spans.
    pub work: WorkSettings,
}

/// Why a worker ended other than cleanly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The ledger's address is not usable. That it does not answer is no error; the worker waits for it.
    #[error("the ledger's address is not usable")]
    Ledger(#[source] porchlight_store::ConnectError),
    /// A part ended although nobody asked it to.
    #[error("the {0} ended by itself")]
    Part(&'static str),
    /// A part panicked.
    #[error("a part of the worker panicked")]
    Panicked(#[source] JoinError),
    /// The stop took too long. Events in hand went back to the queue; commands stay in the outbox.
    #[error("not everything was finished in time: {events} events and {commands} commands were in hand")]
    Grace {
        /// Events that were not settled.
        events: usize,
        /// Commands that were not confirmed.
        commands: usize,
    },
}

/// Runs a worker until `stop`, then finishes what is in hand: readiness goes first, then the subscription, events,
/// commands, connections, and the admin listener last.
///
/// # Errors
/// [`RunError`]; nothing that was answered or acked is lost by any of them.
pub async fn run(
    config: WorkerConfig,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let mut metrics = Metrics::new(env!("CARGO_PKG_VERSION"), "worker");
    let own_metrics = Arc::new(WorkerMetrics::register(&mut metrics));
    let work = config.work;
    let ledger = Ledger::connect(&config.redis, &work, Arc::clone(&own_metrics)).map_err(RunError::Ledger)?;
    let ledger = Arc::new(ledger);
    // The publisher outlives the stop: copies and commands in hand are still to be sent.
    let publisher = Publisher::start(publisher_config(&config), CancellationToken::new());
    let consumer = Consumer::start(consumer_config(&config), stop.clone());
    let (dispatcher, dispatch) = Dispatcher::new(
        Outlet::RabbitMq(publisher.clone()),
        Arc::clone(&ledger),
        Arc::clone(&own_metrics),
        work.commands_inflight_max,
    );
    let settler = Arc::new(Settler {
        ledger: Arc::clone(&ledger),
        publisher: publisher.clone(),
        consumer: consumer.handle(),
        keys: config.keys,
        metrics: Arc::clone(&own_metrics),
        hold_max: work.hold_max,
    });
    let readiness = Readiness::new(&consumer, &publisher, &ledger, stop.clone());
    let api = api::Api {
        ledger: Arc::clone(&ledger),
        dispatch: dispatch.clone(),
        metrics: Arc::clone(&own_metrics),
    };
    let shown = Admin {
        ready: readiness.clone().into_fn(),
        metrics: Arc::new(metrics),
        api: Some(api.into_fn()),
        token: config.admin_token,
        limits: AdminLimits::default(),
    };
    let sweeper = Sweeper {
        ledger: Arc::clone(&ledger),
        dispatch: dispatch.clone(),
        metrics: Arc::clone(&own_metrics),
        interval: work.sweep_interval,
    };
    let mut parts = Parts {
        tasks: JoinSet::new(),
        admin_stop: CancellationToken::new(),
        send_stop: CancellationToken::new(),
    };
    parts.spawn(
        "admin listener",
        admin::serve(listener, shown, parts.admin_stop.clone()),
    );
    parts.spawn(
        "observer",
        readiness.follow(own_metrics, parts.admin_stop.clone()),
    );
    parts.spawn("sweeper", sweeper.run(stop.clone()));
    parts.spawn("dispatcher", dispatcher.run(parts.send_stop.clone()));
    let work_loop = WorkLoop::new(consumer, settler, dispatch.clone(), work);
    let ended = parts.work(work_loop, &stop, work.stop_grace).await;
    // Whatever happened, no part may wait for a stop that never comes.
    stop.cancel();
    let sent = parts.finish_sending(&dispatch, work.stop_grace).await;
    publisher.close(Duration::from_secs(1)).await;
    parts.admin_stop.cancel();
    let rest = parts.join().await;
    ended.and(sent).and(rest)
}

/// The tasks beside the work loop. All end only when told to.
struct Parts {
    tasks: JoinSet<&'static str>,
    admin_stop: CancellationToken,
    send_stop: CancellationToken,
}

impl Parts {
    fn spawn(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            part.await;
            name
        });
    }

    /// Runs the work loop to its end, with a deadline once `stop` has come.
    async fn work(
        &mut self,
        mut work_loop: WorkLoop,
        stop: &CancellationToken,
        grace: Duration,
    ) -> Result<(), RunError> {
        let own_stop = stop.clone();
        let mut working = tokio::spawn(async move {
            let late = async {
                own_stop.cancelled().await;
                tokio::time::sleep(grace).await;
            };
            let in_time = tokio::select! {
                () = work_loop.run() => true,
                () = late => false,
            };
            let left = work_loop.events_in_hand();
            work_loop.close().await;
            if in_time {
                Ok(())
            } else {
                Err(RunError::Grace {
                    events: left,
                    commands: 0,
                })
            }
        });
        loop {
            tokio::select! {
                worked = &mut working => {
                    return match worked {
                        Ok(Ok(())) if !stop.is_cancelled() => Err(RunError::Part("consumer")),
                        Ok(ended) => ended,
                        Err(panic) => Err(RunError::Panicked(panic)),
                    };
                }
                Some(part) = self.tasks.join_next() => match part {
                    Err(panic) => {
                        working.abort();
                        return Err(RunError::Panicked(panic));
                    }
                    Ok(name) if !stop.is_cancelled() => {
                        working.abort();
                        return Err(RunError::Part(name));
                    }
                    Ok(_) => {}
                },
            }
        }
    }

    /// Lets the dispatcher send what it was handed.
    async fn finish_sending(&mut self, dispatch: &Dispatch, grace: Duration) -> Result<(), RunError> {
        self.send_stop.cancel();
        let sent = async {
            // The two that serve until the very end stay.
            while self.tasks.len() > 2 {
                match self.tasks.join_next().await {
                    Some(Err(panic)) => return Err(RunError::Panicked(panic)),
                    Some(Ok(_)) => {}
                    None => break,
                }
            }
            Ok(())
        };
        match tokio::time::timeout(grace, sent).await {
            Ok(sent) => sent,
            Err(_) => Err(RunError::Grace {
                events: 0,
                commands: dispatch.left(),
            }),
        }
    }

    async fn join(mut self) -> Result<(), RunError> {
        let grace = Duration::from_secs(3);
        // A dispatcher that missed its deadline is aborted with the set.
        let _ = tokio::time::timeout(grace, async { while self.tasks.join_next().await.is_some() {} }).await;
        Ok(())
    }
}

fn consumer_config(config: &WorkerConfig) -> ConsumerConfig {
    ConsumerConfig {
        topology: config.topology.clone(),
        prefetch_full: config.work.prefetch,
        healthy_after: config.work.prefetch_ramp,
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

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
