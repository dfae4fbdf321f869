//! Connections: accepted within a limit, guarded by deadlines, and drained so that no request goes without an answer.
//!
//! What a request means is the receiver's; what its answer looks like is the replier's.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use porchlight_service::guarded_io::{ConnectionLimits, ConnectionPhase, GuardedIo};
use porchlight_service::http::{self, Answer};
use porchlight_service::stop::{self, Drained};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::receive::Receiver;
use crate::reply::Replier;
use crate::tls::TlsInForce;

/// Without progress while an answer is written; it is a few hundred bytes, so a client that stalls here reads nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Reading on after an answer that came before the whole request, so that closing does not take the answer away.
const LINGER: Duration = Duration::from_secs(1);
/// When all others are told to end, a connection that has not spoken yet gets this long for its first request, which
/// may be on its way.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// For connections that the system has accepted for us already when we stop accepting; they are there at once.
const BACKLOG_GRACE: Duration = Duration::from_millis(10);

/// Bounds of connections and of the stop.
#[derive(Debug, Clone)]
pub(crate) struct ServerLimits {
    /// Open connections.
    pub(crate) connections_max: usize,
    /// Bytes of a request's line and headers.
    pub(crate) head_bytes_max: usize,
    /// From opening or first byte to the whole head.
    pub(crate) head_timeout: Duration,
    /// Between requests.
    pub(crate) idle_timeout: Duration,
    /// For a TLS handshake.
    pub(crate) handshake_timeout: Duration,
    /// From the wish to stop until no more is accepted.
    pub(crate) drain_delay: Duration,
    /// From then until connections are cut.
    pub(crate) shutdown_grace: Duration,
}

/// Accepts and serves.
pub(crate) struct Server {
    shared: Arc<Shared>,
    limits: ServerLimits,
}

/// What every connection needs.
struct Shared {
    receiver: Arc<Receiver>,
    replier: Replier,
    tls: Option<TlsInForce>,
    builder: http1::Builder,
    connection_limits: ConnectionLimits,
    handshake_timeout: Duration,
    /// Answers ask for the connection's end from now on.
    draining: AtomicBool,
    /// No more requests: each connection ends after the answer it owes.
    closing: CancellationToken,
    /// The grace is over.
    cut: CancellationToken,
}

/// Counts a connection as open while it lives.
struct Open {
    shared: Arc<Shared>,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
}

impl Server {
    pub(crate) fn new(receiver: Arc<Receiver>, tls: Option<TlsInForce>, limits: ServerLimits) -> Self {
        let shared = Shared {
            receiver,
            replier: Replier::default(),
            tls,
            builder: http::connection_builder(limits.head_bytes_max),
            connection_limits: ConnectionLimits {
                head: limits.head_timeout,
                idle: limits.idle_timeout,
                write: WRITE_TIMEOUT,
                linger: LINGER,
            },
            handshake_timeout: limits.handshake_timeout,
            draining: AtomicBool::new(false),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
        };
        Self {
            shared: Arc::new(shared),
            limits,
        }
    }

    /// Serves until `stop`, then drains. All connections have ended when this returns.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Drained {
        let tasks = TaskTracker::new();
        let permits = Arc::new(Semaphore::new(self.limits.connections_max));
        let accepting = async {
            loop {
                // The permit comes first: a connection over the limit waits in the kernel and costs us nothing.
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                    return;
                };
                let (stream, peer) = http::accept(&listener).await;
                self.spawn(&tasks, stream, peer, permit);
            }
        };
        tokio::select! {
            () = accepting => {}
            () = self.announce_stop(&stop) => {}
        }
        self.accept_backlog(&listener, &tasks, &permits).await;
        drop(listener);
        self.shared.closing.cancel();
        let drained = stop::drain(&tasks, self.limits.shutdown_grace).await;
        self.shared.cut.cancel();
        tasks.wait().await;
        drained
    }

    /// Waits for the stop, then goes on serving for a while, so that a balancer that looks at the readiness sends no
    /// more. Each answer meanwhile ends its connection, so that few are idle when all are told to end.
    async fn announce_stop(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        self.shared.draining.store(true, Relaxed);
        tracing::info!(
            delay_ms = self.limits.drain_delay.as_millis(),
            "draining: not ready, still serving"
        );
        sleep(self.limits.drain_delay).await;
    }

    /// Takes what the system has accepted already: closing the listener would reset it.
    async fn accept_backlog(&self, listener: &TcpListener, tasks: &TaskTracker, permits: &Arc<Semaphore>) {
        while let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            let Ok((stream, peer)) = timeout(BACKLOG_GRACE, http::accept(listener)).await else {
                return;
            };
            self.spawn(tasks, stream, peer, permit);
        }
    }

    fn spawn(&self, tasks: &TaskTracker, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let open = Open {
            shared: Arc::clone(&self.shared),
            peer,
            _permit: permit,
        };
        open.shared.receiver.metrics.connections.inc();
        let cut = self.shared.cut.clone();
        tasks.spawn(async move { cut.run_until_cancelled(open.serve(stream)).await });
    }
}

impl Open {
    async fn serve(&self, stream: TcpStream) {
        let Some(tls) = &self.shared.tls else {
            return self.serve_http(stream).await;
        };
        let acceptor = TlsAcceptor::from(tls.borrow().clone());
        match timeout(self.shared.handshake_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.serve_http(stream).await,
            Ok(Err(error)) => {
                self.count_failed("tls_handshake");
                tracing::debug!(peer = %self.peer, %error, "TLS handshake failed");
            }
            Err(_) => self.count_failed("tls_handshake_slow"),
        }
    }

    async fn serve_http(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let io = GuardedIo::new(stream, self.shared.connection_limits);
        let phase = io.phase();
        let service = service_fn(|request| self.answer(request, &phase));
        let served = self.shared.builder.serve_connection(TokioIo::new(io), service);
        tokio::pin!(served);
        let ended = tokio::select! {
            // Requests that have arrived come first.
            biased;
            ended = served.as_mut() => ended,
            () = self.told_to_end(&phase) => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            self.note_broken(&error);
        }
    }

    async fn told_to_end(&self, phase: &ConnectionPhase) {
        self.shared.closing.cancelled().await;
        if phase.is_fresh() {
            sleep(FIRST_REQUEST_GRACE).await;
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        phase: &Arc<ConnectionPhase>,
    ) -> Result<Answer, Infallible> {
        let mark = phase.begin_request();
        let has_body = !request.body().is_end_stream();
        let receiver = &self.shared.receiver;
        let outcome = receiver.receive(request, mark.first_byte_at()).await;
        receiver.outages.note(&outcome);
        let mut reply = self
            .shared
            .replier
            .reply(outcome, has_body, self.peer, &receiver.metrics);
        if reply.lingers {
            mark.linger();
        }
        if self.shared.draining.load(Relaxed) {
            reply
                .answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        receiver
            .metrics
            .answer_seconds
            .observe(mark.first_byte_at().elapsed().as_secs_f64());
        Ok(reply.answer)
    }

    /// A head that is no HTTP was answered by hyper, with 400 or its kin; the rest is a connection that broke.
    fn note_broken(&self, error: &hyper::Error) {
        if error.is_parse() {
            self.shared
                .replier
                .note_malformed(error, self.peer, &self.shared.receiver.metrics);
            return;
        }
        self.count_failed(if is_timeout(error) { "too_slow" } else { "broken" });
        tracing::debug!(peer = %self.peer, %error, "connection ended early");
    }

    fn count_failed(&self, cause: &'static str) {
        self.shared.receiver.metrics.count_failed_connection(cause);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.receiver.metrics.connections.dec();
    }
}

fn is_timeout(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.kind() == std::io::ErrorKind::TimedOut)
}
