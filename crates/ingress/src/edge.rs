//! The public side as one part of a process: prepared, asked whether it is ready, served, drained.
//!
//! It opens no listener, shows no metrics and closes no storage; all that is the composer's.

use std::sync::Arc;

use porchlight_service::stop::{Drained, Hangups};
use porchlight_service::{Metrics, NotReady, Readiness, ReadyFn};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::keys::KeysInForce;
use crate::metrics::IngressMetrics;
use crate::receive::Receiver;
use crate::server::Server;
use crate::settings::EdgeSettings;
use crate::storage::Storage;

/// Receives webhooks and has them stored. What it started ends when it is dropped.
pub struct Edge {
    server: Server,
    keys: KeysInForce,
    storage: Storage,
    _ended: DropGuard,
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
        let receiver = Receiver::new(settings.receive, keys.clone(), storage.clone(), counted);
        receiver.show_state_in(area);
        Self {
            server: Server::new(Arc::new(receiver), tls, settings.server),
            keys,
            storage,
            _ended: ended.drop_guard(),
        }
    }

    /// Ready is: an event that came now could be stored. From `stop` on it is not.
    pub fn ready(&self, stop: CancellationToken) -> ReadyFn {
        let (keys, storage) = (self.keys.clone(), self.storage.clone());
        Arc::new(move || readiness(&keys, &storage, &stop))
    }

    /// Serves until `stop`, then drains: first still serving for the delay that is set, then no new connections, then
    /// only answers that are owed. When this returns no more is handed to the storage; closing it is the composer's.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Drained {
        self.server.serve(listener, stop).await
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
