//! The public side as one part of a process: prepared, asked whether it is ready, served, drained.
//!
//! It opens no listener, shows no metrics and closes no storage; all that is the composer's.

use std::sync::Arc;

use porchlight_service::client::StatusCode;
use porchlight_service::stop::{Drained, Hangups};
use porchlight_service::{ApiResponse, Metrics, NotReady, Page, Readiness, ReadyFn};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::health_metrics::HealthMetrics;
use crate::key_health::KeyHealth;
use crate::keys::KeysInForce;
use crate::metrics::IngressMetrics;
use crate::moment::{Moment, Timekeeper};
use crate::outage::page::OutagesPage;
use crate::outage::{Book, Outages};
use crate::receive::Receiver;
use crate::server::Server;
use crate::settings::{EdgeSettings, HealthSettings};
use crate::storage::Storage;

/// During an outage it is written down at every so many looks at it; one is a second.
const LOOKS_PER_WRITE: u64 = 10;

/// Receives webhooks and has them stored. What it started ends when it is dropped.
pub struct Edge {
    server: Server,
    keys: KeysInForce,
    storage: Storage,
    watched: Watched,
    _ended: DropGuard,
}

/// What is watched of the answers, for those who ask how things are.
#[derive(Clone)]
struct Watched {
    outages: Arc<Outages>,
    key_health: Arc<KeyHealth>,
    time: Timekeeper,
    began: Moment,
    webhook_path: String,
}

impl Edge {
    /// Puts the keys in force, begins to follow the files that settings name, and registers what is counted as
    /// `porchlight_ingress_…`. To be called within a runtime; nothing is accepted yet.
    pub fn prepare(
        settings: EdgeSettings,
        storage: Storage,
        hangups: Hangups,
        metrics: &mut Metrics,
    ) -> Self {
        let ended = CancellationToken::new();
        let area = metrics.area("ingress");
        let counted = Arc::new(IngressMetrics::register(area));
        let changes = storage.clone().tell_changes();
        tokio::spawn(ended.clone().run_until_cancelled_owned(changes));
        let keys = settings
            .keys
            .watch(Arc::clone(&counted), hangups.clone(), ended.clone());
        let tls = settings
            .tls
            .map(|files| files.watch(Arc::clone(&counted), hangups, ended.clone()));
        let watched = Watched::prepare(&settings.health, settings.receive.path.clone(), area);
        let book = Book::within(settings.health.book_dir.as_deref());
        if let Some(before) = book.read() {
            watched.outages.restore(before.outages);
            watched.key_health.remember(before.keys);
        }
        tokio::spawn(
            ended
                .clone()
                .run_until_cancelled_owned(watched.clone().watch(book)),
        );
        let watchers = (Arc::clone(&watched.outages), Arc::clone(&watched.key_health));
        let receiver = Receiver::new(settings.receive, keys.clone(), storage.clone(), watchers, counted);
        receiver.show_state_in(area);
        Self {
            server: Server::new(Arc::new(receiver), tls, settings.server),
            keys,
            storage,
            watched,
            _ended: ended.drop_guard(),
        }
    }

    /// Ready is: an event that came now could be stored. From `stop` on it is not.
    pub fn ready(&self, stop: CancellationToken) -> ReadyFn {
        let (keys, storage) = (self.keys.clone(), self.storage.clone());
        let watched = self.watched.clone();
        Arc::new(move || {
            let mut readiness = readiness(&keys, &storage, &stop);
            readiness.notes.extend(watched.outages.readiness_note());
            readiness.notes.extend(watched.key_health.readiness_note());
            readiness
        })
    }

    /// The page `/outages`: for how long events could not be taken, and what that means to Ring.
    pub fn outages(&self) -> Page {
        let watched = self.watched.clone();
        Page {
            path: "/outages",
            show: Arc::new(move || ApiResponse::json(StatusCode::OK, &watched.page())),
        }
    }

    /// Serves until `stop`, then drains: first still serving for the delay that is set, then no new connections, then
    /// only answers that are owed. When this returns no more is handed to the storage; closing it is the composer's.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Drained {
        self.server.serve(listener, stop).await
    }
}

impl Watched {
    fn prepare(settings: &HealthSettings, webhook_path: String, area: &mut Registry) -> Self {
        let (time, metrics) = (Timekeeper::begin(), Arc::new(HealthMetrics::register(area)));
        let outages = Outages::new(settings.outage_quiet_ms, time, Arc::clone(&metrics));
        let key_health = KeyHealth::new(settings.key_breaker, settings.breaker_rules, time, metrics);
        Self {
            outages: Arc::new(outages),
            key_health: Arc::new(key_health),
            time,
            began: time.now(),
            webhook_path,
        }
    }

    fn page(&self) -> OutagesPage {
        let now = self.time.now();
        let outages = self.outages.facts(now);
        OutagesPage {
            now_ms: now.wall_ms,
            process_started_at_ms: self.began.wall_ms,
            webhook_path: self.webhook_path.clone(),
            is_on: outages.first().is_some_and(|newest| newest.ended_at_ms.is_none()),
            outages,
            keys: self.key_health.facts(),
        }
    }

    /// Tells the turns of each outage as they come, and writes them down: at its begin, now and then while it is on, and
    /// at its end. Never returns.
    async fn watch(self, book: Book) {
        loop {
            self.outages.begins().await;
            book.write(self.page()).await;
            for look in 1_u64.. {
                if !self.outages.goes_on().await {
                    break;
                }
                if look.is_multiple_of(LOOKS_PER_WRITE) {
                    book.write(self.page()).await;
                }
            }
            book.write(self.page()).await;
        }
    }
}

fn readiness(keys: &KeysInForce, storage: &Storage, stop: &CancellationToken) -> Readiness {
    let mut reasons = Vec::new();
    if stop.is_cancelled() {
        reasons.push(NotReady::new("stopping", "this process is stopping"));
    }
    if keys.borrow().is_none() {
        reasons.push(NotReady::new("keys_missing", "no signing keys are loaded"));
    }
    Readiness::from(reasons).merge(storage.readiness())
}
