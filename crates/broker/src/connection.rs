//! One connection to the broker: made under deadlines, watched for blocking, cut when it is given up.
//!
//! lapin's own recovery stays off. Whoever owns a [`Link`] drops it on any doubt and makes a new one; nothing of an
//! old link works on a new one.

use std::{fmt, io, time::Duration};

use futures_util::{StreamExt, stream::BoxStream};
use lapin::{
    Connection, ConnectionProperties, Event,
    tcp::{AMQPUriTcpExt, AsyncTcpStream, OwnedTLSConfig},
    uri::{AMQPScheme, AMQPUri},
};

use crate::{
    cutter::{CutOnDrop, Cutter},
    greeting,
    urls::{BrokerUrls, redacted},
};

/// For a TCP connection to stand: a live host answers in milliseconds.
const TCP_CONNECT_MAX: Duration = Duration::from_secs(1);
/// For a TLS connection to stand, certificate checks included.
const TLS_CONNECT_MAX: Duration = Duration::from_secs(3);
/// For connection and greeting together: a broker under load answers in tens of milliseconds.
const GREETING_MAX: Duration = Duration::from_secs(4);
/// For lapin's handshake: authentication may ask a backend over the network.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// For each polite step of a close; a blocked or frozen peer never answers one.
pub(crate) const CLOSE_STEP_MAX: Duration = Duration::from_secs(2);
/// For any single request to the broker, such as opening a channel.
pub(crate) const REQUEST_MAX: Duration = Duration::from_secs(5);

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A link that lived this long was a good one: the next trouble starts with a short wait again.
const BACKOFF_FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// The server's version, as its greeting told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// First number, 3 or 4 at the time of writing; 0 when the text has none.
    pub major: u32,
    /// The whole text, such as `3.10.8`.
    pub text: String,
}

impl ServerVersion {
    fn parse(text: String) -> Self {
        let major = text
            .split('.')
            .next()
            .and_then(|first| first.parse().ok())
            .unwrap_or(0);
        Self { major, text }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// No address of the list led to a connection.
#[derive(Debug)]
pub struct ConnectError {
    /// One entry for each address, in the order they were tried.
    pub attempts: Vec<AttemptError>,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot connect to the broker")?;
        for attempt in &self.attempts {
            write!(f, "; {attempt}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConnectError {}

/// Why one address did not lead to a connection. Addresses are shown without passwords.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// Nothing accepts connections there, or the name does not resolve, or TLS failed, or no AMQP is spoken.
    #[error("{address}: {source}")]
    Unreachable {
        /// The address.
        address: String,
        /// What the network said.
        source: io::Error,
    },
    /// The named step did not end in time.
    #[error("{address}: no answer within {within:?} ({step})")]
    TimedOut {
        /// The address.
        address: String,
        /// What was waited for.
        step: &'static str,
        /// The deadline.
        within: Duration,
    },
    /// A broker answered and refused: credentials, virtual host, limits.
    #[error("{address}: {source}")]
    Refused {
        /// The address.
        address: String,
        /// What the broker said.
        source: lapin::Error,
    },
}

/// What lapin reports about one connection.
pub(crate) type Events = BoxStream<'static, Event>;

/// One AMQP connection. Dropping it cuts the socket, so that the broker takes everything unsettled back at once.
pub struct Link {
    connection: Connection,
    cutter: Cutter,
    server_version: ServerVersion,
    address: String,
}

impl Link {
    /// Tries every address once, beginning with the first.
    ///
    /// `role` names the connection in the broker's own tools, as `role@host:pid`.
    ///
    /// # Errors
    /// [`ConnectError`] with one reason for each address.
    ///
    /// # Cancel safety
    /// A dropped attempt is cut; nothing stays behind.
    pub async fn connect(urls: &BrokerUrls, role: &str) -> Result<Self, ConnectError> {
        Dialer::new(urls.clone(), role).dial().await
    }

    /// What the server called itself in its greeting.
    #[must_use]
    pub fn server_version(&self) -> &ServerVersion {
        &self.server_version
    }

    /// The address connected to, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The stream of blocked, unblocked and error events. lapin's listeners steal from each other: call it once.
    pub(crate) fn events(&self) -> Events {
        self.connection.events_listener().boxed()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Opens a channel under a deadline.
    pub(crate) async fn open_channel(&self) -> Result<lapin::Channel, lapin::Error> {
        within(REQUEST_MAX, self.connection.create_channel()).await
    }

    /// Says goodbye, waiting at most 2 s for the answer, then cuts.
    pub async fn close(self) {
        let goodbye = self.connection.close(200, "closing".into());
        if tokio::time::timeout(CLOSE_STEP_MAX, goodbye).await.is_err() {
            tracing::debug!(address = %self.address, "the broker did not answer the close in time");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cutter.cut();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("address", &self.address)
            .field("server", &self.server_version.text)
            .finish()
    }
}

/// Remembers which address worked last, and begins with that one.
pub(crate) struct Dialer {
    urls: BrokerUrls,
    connection_name: String,
    next: usize,
}

impl Dialer {
    pub(crate) fn new(urls: BrokerUrls, role: &str) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() {
            "localhost"
        } else {
            host.trim()
        };
        Self {
            urls,
            connection_name: format!("{role}@{host}:{}", std::process::id()),
            next: 0,
        }
    }

    pub(crate) async fn dial(&mut self) -> Result<Link, ConnectError> {
        let mut attempts = Vec::with_capacity(self.urls.len());
        for _ in 0..self.urls.len() {
            match attempt(self.urls.uri(self.next), &self.connection_name).await {
                Ok(link) => return Ok(link),
                Err(error) => attempts.push(error),
            }
            self.next = (self.next + 1) % self.urls.len();
        }
        Err(ConnectError { attempts })
    }

    /// The link just lost was to this address; let another have its turn.
    pub(crate) fn move_on(&mut self) {
        self.next = (self.next + 1) % self.urls.len();
    }
}

async fn attempt(uri: &AMQPUri, connection_name: &str) -> Result<Link, AttemptError> {
    let address = redacted(uri);
    let timed_out = |step, within| AttemptError::TimedOut {
        address: address.clone(),
        step,
        within,
    };
    let unreachable = |source| AttemptError::Unreachable {
        address: address.clone(),
        source,
    };

    let connect_max = if uri.scheme == AMQPScheme::AMQPS {
        TLS_CONNECT_MAX
    } else {
        TCP_CONNECT_MAX
    };
    let version = tokio::time::timeout(GREETING_MAX, greeting::ask(uri, connect_max))
        .await
        .map_err(|_| timed_out("greeting", GREETING_MAX))?
        .map_err(unreachable)?;
    let cutter = Cutter::default();
    let mut guard = CutOnDrop(Some(cutter.clone()));
    let connection = tokio::time::timeout(HANDSHAKE_MAX, open(uri.clone(), connection_name, cutter.clone()))
        .await
        .map_err(|_| timed_out("AMQP handshake", HANDSHAKE_MAX))?
        .map_err(|source| AttemptError::Refused {
            address: address.clone(),
            source,
        })?;
    guard.0 = None;
    Ok(Link {
        connection,
        cutter,
        server_version: ServerVersion::parse(version),
        address,
    })
}

async fn open(uri: AMQPUri, connection_name: &str, cutter: Cutter) -> Result<Connection, lapin::Error> {
    let properties = ConnectionProperties::default().with_connection_name(connection_name.into());
    let runtime = lapin::runtime::default_runtime()?;
    Connection::connector(
        uri,
        runtime,
        async move |uri: AMQPUri, runtime| {
            let tls = OwnedTLSConfig::default();
            let stream = uri.connect_with_config_async(tls.as_ref(), &runtime).await?;
            match &stream {
                AsyncTcpStream::Plain(plain) => cutter.hold(plain.get_ref())?,
                AsyncTcpStream::Rustls(tls) => cutter.hold(tls.get_ref().0.get_ref())?,
                _ => {}
            }
            Ok(stream)
        },
        properties,
    )
    .await
}

/// Any lapin request under a deadline; a late answer is an I/O error like any other lost connection.
pub(crate) async fn within<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, lapin::Error> {
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the broker did not answer in time").into()),
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}

/// Waits between attempts: 100 ms doubling to 5 s, each shortened by up to half at random so that a fleet that lost
/// its broker does not come back in step.
#[derive(Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn next_wait(&mut self) -> Duration {
        let full = BACKOFF_FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    pub(crate) fn link_lived(&mut self, lifetime: Duration) {
        if lifetime >= BACKOFF_FORGIVEN_AFTER {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_five_seconds_and_is_forgiven_after_a_good_link() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..8).map(|_| backoff.next_wait()).collect();
        assert!(
            waits[0] >= BACKOFF_FIRST / 2 && waits[0] <= BACKOFF_FIRST,
            "{waits:?}"
        );
        assert!(
            waits[3] > BACKOFF_FIRST && waits[3] <= BACKOFF_FIRST * 8,
            "{waits:?}"
        );
        assert!(
            waits[7] >= BACKOFF_MAX / 2 && waits[7] <= BACKOFF_MAX,
            "{waits:?}"
        );
        backoff.link_lived(BACKOFF_FORGIVEN_AFTER);
        assert!(backoff.next_wait() <= BACKOFF_FIRST);
    }

    #[test]
    fn a_version_text_gives_its_major_number() {
        assert_eq!(ServerVersion::parse("4.3.5".to_owned()).major, 4);
        assert_eq!(ServerVersion::parse("nightly".to_owned()).major, 0);
    }
}
