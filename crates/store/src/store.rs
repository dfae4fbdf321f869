//! The store: its settings, and what its calls have in common.
//!
//! The calls themselves are in the file of their subject.

use crate::connection::Connections;
use crate::marks::Marks;
use crate::script::Call;
use crate::{ConnectError, StoreError};
use porchlight_device::ledger::HOLD_MS_MIN;
use redis::{ConnectionInfo, IntoConnectionInfo, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Most held connections: more only cost the server.
const CONNECTIONS_MAX: usize = 16;
/// Longest time a device may have to stay online before its operations are resumed.
const SETTLE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How to reach the server, and how patient to be.
#[derive(Clone)]
pub struct StoreConfig {
    /// `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS. Never shown.
    pub url: String,
    /// Connections to hold, 1 to 16. Calls are spread over them by their shard.
    pub connections: usize,
    /// How long one round trip may take.
    pub response_timeout: Duration,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long a device must stay online before its operations are resumed; at most a day. Not given to the fast
    /// path: a resume is then only ever claimed.
    pub settle: Duration,
    /// How long the one that made a command owed has to send it, before a sweeper may. Longer than sending may take.
    pub head_start: Duration,
    /// How long a sweeper that claimed a command has to send it, at least, before another may. Longer than sending may
    /// take, too.
    pub hold_min: Duration,
}

/// The ledger. A cheap handle: clones share the connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    connections: Connections,
    marks: Marks,
    address: String,
    tls: Option<(String, u16)>,
    settle_ms: i64,
    head_start_ms: i64,
    hold_min_ms: i64,
    next_shard: AtomicUsize,
}

/// When something happens, and when what it owes is to be sent, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) now_ms: i64,
    pub(crate) due_ms: i64,
    pub(crate) due_resume_ms: i64,
}

impl StoreConfig {
    /// The defaults for a server at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections: 4,
            response_timeout: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(1),
            settle: Duration::ZERO,
            head_start: Duration::from_secs(2),
            hold_min: Duration::from_millis(HOLD_MS_MIN.unsigned_abs()),
        }
    }

    fn server(&self) -> Result<ConnectionInfo, ConnectError> {
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return Err(ConnectError::BadSetting(
                "the number of connections must be 1 to 16",
            ));
        }
        if self.response_timeout.is_zero() || self.connect_timeout.is_zero() {
            return Err(ConnectError::BadSetting("a timeout must be longer than nothing"));
        }
        if self.settle > SETTLE_MAX || self.head_start > SETTLE_MAX {
            return Err(ConnectError::BadSetting(
                "the settle time and the head start must be at most a day",
            ));
        }
        self.url
            .as_str()
            .into_connection_info()
            .map_err(|_| ConnectError::BadUrl)
    }
}

/// Shows neither name nor password.
impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = self
            .url
            .as_str()
            .into_connection_info()
            .map(|server| server.addr().to_string());
        f.debug_struct("StoreConfig")
            .field("address", &address.as_deref().unwrap_or("not a Redis URL"))
            .field("connections", &self.connections)
            .field("response_timeout", &self.response_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("settle", &self.settle)
            .field("head_start", &self.head_start)
            .finish()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("address", &self.inner.address)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Sets a store up. It connects with the first call, and again after each failure: the server may come later.
    ///
    /// # Errors
    /// [`ConnectError`], for a URL or setting that can never work.
    pub fn connect(config: &StoreConfig) -> Result<Self, ConnectError> {
        let server = config.server()?;
        if matches!(server.addr(), redis::ConnectionAddr::TcpTls { .. }) {
            // The client takes the process's provider. That one is there already is no error, whichever it is.
            let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        }
        let address = server.addr().to_string();
        let tls = match server.addr() {
            redis::ConnectionAddr::TcpTls { host, port, .. } => Some((host.clone(), *port)),
            _ => None,
        };
        let connections = Connections::new(
            server,
            config.connections,
            config.connect_timeout,
            config.response_timeout,
        )
        .map_err(|_| ConnectError::BadUrl)?;
        let milliseconds = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Ok(Self {
            inner: Arc::new(Inner {
                connections,
                marks: Marks::new(),
                address,
                tls,
                settle_ms: milliseconds(config.settle),
                head_start_ms: milliseconds(config.head_start),
                hold_min_ms: milliseconds(config.hold_min),
                next_shard: AtomicUsize::new(0),
            }),
        })
    }

    /// Host and port, or the path of a socket.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Host and port, where it is spoken to under TLS.
    pub fn tls_endpoint(&self) -> Option<(&str, u16)> {
        let (host, port) = self.inner.tls.as_ref()?;
        Some((host, *port))
    }

    /// How many connections it holds: calls with different shards below this number do not wait for each other.
    pub fn connections(&self) -> usize {
        self.inner.connections.count()
    }

    pub(crate) async fn run(&self, shard: usize, calls: Vec<Call>) -> Vec<Result<Value, StoreError>> {
        self.inner.connections.run(shard, calls).await
    }

    pub(crate) async fn run_one(&self, shard: usize, call: Call) -> Result<Value, StoreError> {
        self.inner.connections.run_one(shard, call).await
    }

    /// A connection for a call that has no shard of its own: each in turn.
    pub(crate) fn any_shard(&self) -> usize {
        self.inner.next_shard.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn hold_min_ms(&self) -> i64 {
        self.inner.hold_min_ms
    }

    pub(crate) fn marks(&self) -> &Marks {
        &self.inner.marks
    }

    /// Whether a resume is left to the sweeper, because its device must first stay online for a while.
    pub(crate) fn resumes_later(&self) -> bool {
        self.inner.settle_ms > 0
    }

    pub(crate) fn times(&self, now_ms: i64) -> Times {
        let due_ms = now_ms.saturating_add(self.inner.head_start_ms);
        let settled_ms = now_ms.saturating_add(self.inner.settle_ms);
        let due_resume_ms = if self.resumes_later() { settled_ms } else { due_ms };
        Times {
            now_ms,
            due_ms,
            due_resume_ms,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let config = StoreConfig::new("redis://user:secret@host:7000/3");
        let store = Store::connect(&config).unwrap();
        for shown in [format!("{config:?}"), format!("{store:?}")] {
            assert!(
                shown.contains("host:7000") && !shown.contains("secret") && !shown.contains("user"),
                "{shown}"
            );
        }
        let bad = StoreConfig::new("amqp://user:secret@host");
        assert_eq!(Store::connect(&bad).unwrap_err(), ConnectError::BadUrl);
        assert!(!format!("{bad:?} {}", ConnectError::BadUrl).contains("secret"));
    }

    #[test]
    fn settings_beyond_their_bounds_are_refused() {
        let with = |change: fn(&mut StoreConfig)| {
            let mut config = StoreConfig::new("redis://localhost");
            change(&mut config);
            Store::connect(&config).map(drop)
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert!(with(|config| config.connections = 0).is_err());
        assert!(with(|config| config.connections = 17).is_err());
        assert!(with(|config| config.response_timeout = Duration::ZERO).is_err());
        assert!(with(|config| config.settle = Duration::from_secs(86_401)).is_err());
    }
}
