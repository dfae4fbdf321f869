//! Receives Ring's webhooks: verifies the signature over the raw bytes, has the event stored, and only then answers 200.
//!
//! It knows HTTP, the signature and the queue. It does not know Redis, devices or event types, and never parses a body.
//!
//! - [`settings`]: what this process is told; `args` is its help.
//! - `server`: connections, and how they end.
//! - `receive`: one request in, stored or not; `body` reads it, `storage` hands it over.
//! - `reply`: the only place where a refusal or a failure becomes an answer and a log line.
//! - `keys`, `tls`, `follow`: what can be changed while running.

mod args;
mod body;
mod follow;
mod keys;
mod metrics;
mod receive;
mod reply;
mod server;
pub mod settings;
mod storage;
mod tls;

use std::sync::Arc;

use porchlight_broker::Publisher;
use porchlight_service::stop::{Drained, Hangups};
use porchlight_service::{Admin, AdminLimits, Metrics, NotReady, admin};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::keys::KeysInForce;
use crate::metrics::IngressMetrics;
use crate::receive::Receiver;
use crate::server::Server;
pub use crate::settings::Settings;
use crate::storage::Storage;

/// The sockets of this process, bound already.
#[derive(Debug)]
pub struct Listeners {
    /// Where Ring's requests arrive.
    pub public: TcpListener,
    /// Where health and metrics are shown; never public.
    pub admin: TcpListener,
}

/// Runs until `stop`, then drains: first not ready but still serving, then no new connections, then only answers that
/// are owed, and last the connection to the broker.
///
/// Whatever the broker does, this goes on; without one every event is answered 503.
pub async fn run(
    listeners: Listeners,
    settings: Settings,
    hangups: Hangups,
    stop: CancellationToken,
) -> Drained {
    let ended = CancellationToken::new();
    let mut metrics = Metrics::new(env!("CARGO_PKG_VERSION"), "ingress");
    let counted = Arc::new(IngressMetrics::register(metrics.area("ingress")));

    let publisher = Publisher::start(settings.publisher, CancellationToken::new());
    let storage = Storage::new(publisher, settings.slot_timeout);
    let told = ended.clone();
    let changes = storage.clone().tell_changes();
    tokio::spawn(async move { told.run_until_cancelled(changes).await });
    let keys = settings
        .keys
        .watch(Arc::clone(&counted), hangups.clone(), ended.clone());
    let tls = settings
        .tls
        .map(|files| files.watch(Arc::clone(&counted), hangups, ended.clone()));
    let receiver = Arc::new(Receiver::new(
        settings.receive,
        keys.clone(),
        storage.clone(),
        counted,
    ));
    receiver.show_state_in(metrics.area("ingress"));

    let shown = Admin {
        ready: Arc::new({
            let (storage, stop) = (storage.clone(), stop.clone());
            move || readiness(&keys, &storage, &stop)
        }),
        metrics: Arc::new(metrics),
        api: None,
        token: settings.admin_token,
        limits: AdminLimits::default(),
    };
    let watched = tokio::spawn(admin::serve(listeners.admin, shown, ended.clone()));

    let server = Server::new(receiver, tls, settings.server);
    let drained = server.serve(listeners.public, stop).await;
    storage.close().await;
    ended.cancel();
    // Its only failure is a panic, which was reported where it happened.
    let _ = watched.await;
    drained
}

/// Ready is: an event that came now could be stored.
fn readiness(keys: &KeysInForce, storage: &Storage, stop: &CancellationToken) -> Result<(), Vec<NotReady>> {
    let mut reasons = Vec::new();
    if stop.is_cancelled() {
        reasons.push(NotReady::new("stopping", "this process is stopping"));
    }
    if keys.borrow().is_none() {
        reasons.push(NotReady::new("keys_missing", "no signing keys are loaded"));
    }
    reasons.extend(storage.not_ready());
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}
