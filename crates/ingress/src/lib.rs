//! Receives Ring's webhooks: verifies the signature over the raw bytes, has the event stored, and only then answers 200.
//!
//! It knows HTTP, the signature and the queue. It does not know Redis, devices or event types, and never parses a body.
//!
//! - [`settings`]: what this process is told; `args` is its help.
//! - [`edge`]: the public side as one part, for whoever composes a process out of it.
//! - `server`: connections, and how they end.
//! - `receive`: one request in, stored or not; `body` reads it, [`storage`] hands it over.
//! - [`spool`]: where events are kept while the queue is away, if a directory for it is set.
//! - `reply`: the only place where a refusal or a failure becomes an answer and a log line.
//! - `outage`: for how long nothing is taken, and how long Ring will wait; `key_health`: whether signatures match at all.
//! - `keys`, `tls`: what can be changed while running.

mod args;
mod body;
pub mod edge;
mod health_metrics;
mod key_health;
mod keys;
mod metrics;
mod moment;
pub mod outage;
mod receive;
mod reply;
mod server;
pub mod settings;
mod spans;
pub mod spool;
pub mod storage;
mod tls;

use std::sync::Arc;

use porchlight_broker::{self as broker, BrokerUrls, Publisher};
use porchlight_monitor::QueueWatch;
use porchlight_queue::{DepthReader, Queue};
use porchlight_service::stop::{Drained, Hangups};
use porchlight_service::trace::Traces;
use porchlight_service::{Admin, AdminLimits, Metrics, admin};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use crate::edge::Edge;
pub use crate::settings::{EdgeArgs, EdgeSettings, Settings, WatchSettings};
pub use crate::spool::Spool;
pub use crate::storage::Storage;

/// Names the connection that only watches at the broker, as `role@host:pid`.
const WATCH_ROLE: &str = "ingress-watch";

/// The sockets of this process, bound already.
#[derive(Debug)]
pub struct Listeners {
    /// Where Ring's requests arrive.
    pub public: TcpListener,
    /// Where health and metrics are shown; never public.
    pub admin: TcpListener,
}

/// Runs until `stop`, then drains: first not ready but still serving, then no new connections, then only answers that
/// are owed, then the spool if there is one, and last the connection to the broker.
///
/// Whatever the broker does, this goes on; without one every event goes to the spool, or is answered 503.
pub async fn run(
    listeners: Listeners,
    settings: Settings,
    spool: Option<Spool>,
    hangups: Hangups,
    stop: CancellationToken,
) -> Drained {
    let ended = CancellationToken::new();
    let traces = Traces::start(settings.trace, "porchlight-ingress", env!("CARGO_PKG_VERSION"));
    let mut metrics = Metrics::new(env!("CARGO_PKG_VERSION"), "ingress");
    let watch = queue_watch(settings.watch, &settings.broker.publisher.urls);
    watch.register(&mut metrics);
    let publisher = Publisher::start(settings.broker.publisher, CancellationToken::new());
    let mut storage = Storage::new(Queue::RabbitMq(publisher), settings.broker.slot_timeout);
    if let Some(spool) = spool {
        storage = storage.with_spool(spool);
    }
    let grace = settings.edge.shutdown_grace();
    let mut edge = settings.edge;
    if let Some(spool) = &settings.spool {
        edge.keep_outages_in(&spool.dir);
    }
    let edge = Edge::prepare(edge, storage.clone(), hangups, &mut metrics);
    let shown = Admin {
        ready: edge.ready(stop.clone()),
        metrics: Arc::new(metrics),
        pages: vec![edge.outages()],
        api: None,
        token: settings.admin_token,
        limits: AdminLimits::default(),
    };
    let watched = tokio::spawn(admin::serve(listeners.admin, shown, ended.clone()));
    // Nobody waits for its end: it only looks, and says goodbye to the broker while the rest is finished.
    tokio::spawn(watch.run(stop.clone()));
    let drained = edge.serve(listeners.public, stop).await;
    storage.close(grace).await;
    traces.close().await;
    ended.cancel();
    // Its only failure is a panic, which was reported where it happened.
    let _ = watched.await;
    drained
}

fn queue_watch(settings: WatchSettings, urls: &BrokerUrls) -> QueueWatch {
    let depths = broker::DepthReader::new(urls.clone(), WATCH_ROLE);
    QueueWatch::new(DepthReader::RabbitMq(depths), settings.interval)
        .and_management(settings.management, urls.vhost())
}
