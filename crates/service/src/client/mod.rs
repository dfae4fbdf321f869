//! A small HTTP/1.1 client: kept-alive connections to one address, plain or under TLS, with a deadline on all.
//!
//! It follows no redirect, knows no proxy, and retries nothing that may have been sent.

mod target;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
pub use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
pub use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

pub use target::{Target, TargetError, TlsError, connector};

/// Largest answer that is read whole, in bytes: a page of 1 000 devices is far smaller.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Most that is read of an answer whose body nobody wants, in bytes; past it the connection is closed.
const DROPPED_BYTES_MAX: usize = 64 << 10;
/// Longest wait for the rest of an answer whose body nobody wants; past it the connection is closed.
const DROPPING_MAX: Duration = Duration::from_secs(1);
/// How long a connection may idle and be used again. Many servers close theirs after 5 s, and a request that meets
/// the close is lost.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Connections to one target, opened when they are needed and kept while the server keeps them. As many requests may
/// be under way as its user likes; so many connections there are.
pub struct Client {
    target: Arc<Target>,
    tls: Option<TlsConnector>,
    deadlines: Deadlines,
    idle_max: usize,
    idle: Mutex<Vec<Idle>>,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
struct Deadlines {
    connect: Duration,
    whole: Duration,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

type Sender = SendRequest<Full<Bytes>>;

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
    /// What the server's clock says, to the second, where it tells (the header `Date`).
    pub date: Option<SystemTime>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A header or the path cannot be sent; nothing was.
    #[error("a header or the path has characters that cannot be sent")]
    NotARequest,
    /// No connection.
    #[error("cannot connect to {0}")]
    Connect(String, #[source] io::Error),
    /// A connection, and no trust in it.
    #[error("no TLS connection to {0}")]
    Tls(String, #[source] io::Error),
    /// No connection, or no TLS on it, in time.
    #[error("cannot connect to {address} within {} ms", .after.as_millis())]
    ConnectTimedOut {
        /// Host and port.
        address: String,
        /// The deadline.
        after: Duration,
    },
    /// It ended before the answer.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// No whole answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// An answer that is not whole.
    #[error("the answer is larger than {ANSWER_BYTES_MAX} bytes or broke off")]
    Answer,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.target.address())
    }
}

impl Client {
    /// A client that is not connected yet. `timeout` bounds each whole exchange, connecting included.
    pub fn new(target: Arc<Target>, tls: Option<TlsConnector>, timeout: Duration) -> Self {
        Self {
            target,
            tls,
            deadlines: Deadlines {
                connect: timeout,
                whole: timeout,
            },
            idle_max: 1,
            idle: Mutex::default(),
        }
    }

    /// With a narrower deadline for connecting, TLS included, and so many connections kept between requests.
    #[must_use]
    pub fn with_pool(mut self, connect: Duration, idle_max: usize) -> Self {
        self.deadlines.connect = connect.min(self.deadlines.whole);
        self.idle_max = idle_max;
        self
    }

    /// Sends one request and reads its answer. The headers `Host` and the length are added.
    ///
    /// # Errors
    /// [`SendError`]; unless it is a failure to connect, the server may have taken the request.
    ///
    /// # Cancel safety
    /// Dropped, the server may have taken the request; its connection is closed.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, SendError> {
        let exchange = async {
            let (answer, sender) = self.exchange(self.request(method, path, headers, body)?).await?;
            let (status, date) = (answer.status(), clock_of(&answer));
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|_| SendError::Answer)?.to_bytes();
            self.keep(sender);
            Ok(Answer { status, body, date })
        };
        self.within_deadline(exchange).await
    }

    /// Sends one request and gives the status of its answer. The body is not wanted: a little of it is read so that
    /// the connection can be used again, and nothing about it is an error.
    ///
    /// # Errors
    /// As [`Client::send`].
    ///
    /// # Cancel safety
    /// As [`Client::send`].
    pub async fn deliver(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<StatusCode, SendError> {
        let exchange = async { self.exchange(self.request(method, path, headers, body)?).await };
        let (answer, sender) = self.within_deadline(exchange).await?;
        let status = answer.status();
        let rest = Limited::new(answer.into_body(), DROPPED_BYTES_MAX).collect();
        if let Ok(Ok(_)) = tokio::time::timeout(DROPPING_MAX, rest).await {
            self.keep(sender);
        }
        Ok(status)
    }

    async fn within_deadline<T>(
        &self,
        exchange: impl Future<Output = Result<T, SendError>>,
    ) -> Result<T, SendError> {
        let whole = self.deadlines.whole;
        tokio::time::timeout(whole, exchange)
            .await
            .unwrap_or(Err(SendError::TimedOut(whole)))
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, SendError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.target.authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body)).map_err(|_| SendError::NotARequest)
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender), SendError> {
        let mut sender = match self.kept().await {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answer = match sender.try_send_request(request).await {
            Ok(answer) => answer,
            // The server closed an idle connection at this very moment; nothing was sent, so a new one is safe.
            Err(mut error) => match error.take_message() {
                Some(request) => {
                    sender = self.connect().await?;
                    sender.send_request(request).await.map_err(SendError::Broken)?
                }
                None => return Err(SendError::Broken(error.into_error())),
            },
        };
        Ok((answer, sender))
    }

    /// A connection that is still good, the one used last first.
    async fn kept(&self) -> Option<Sender> {
        loop {
            let Idle { mut sender, since } =
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if since.elapsed() < IDLE_MAX && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn keep(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| !kept.sender.is_closed() && kept.since.elapsed() < IDLE_MAX);
        if idle.len() < self.idle_max && !sender.is_closed() {
            let since = Instant::now();
            idle.push(Idle { sender, since });
        }
    }

    async fn connect(&self) -> Result<Sender, SendError> {
        let connect = self.deadlines.connect;
        let connected = tokio::time::timeout(connect, self.open()).await;
        connected.unwrap_or_else(|_| {
            Err(SendError::ConnectTimedOut {
                address: self.target.address(),
                after: connect,
            })
        })
    }

    async fn open(&self) -> Result<Sender, SendError> {
        let target = &self.target;
        let failed = |error| SendError::Connect(target.address(), error);
        let stream = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else {
            return handshake(stream).await;
        };
        let odd_name = |error| {
            SendError::Tls(
                target.address(),
                io::Error::new(io::ErrorKind::InvalidInput, error),
            )
        };
        let name = ServerName::try_from(target.host.clone()).map_err(odd_name)?;
        let stream = tls
            .connect(name, stream)
            .await
            .map_err(|error| SendError::Tls(target.address(), error))?;
        handshake(stream).await
    }
}

fn clock_of<B>(answer: &Response<B>) -> Option<SystemTime> {
    let date = answer.headers().get("date")?.to_str().ok()?;
    httpdate::parse_http_date(date).ok()
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Sender, SendError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(SendError::Broken)?;
    // It ends when the sender is dropped or the server closes; its error is the sender's, too.
    tokio::spawn(connection);
    Ok(sender)
}

impl SendError {
    /// A short code, for counting.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotARequest => "request",
            Self::Connect(..) | Self::ConnectTimedOut { .. } => "connect",
            Self::Tls(..) => "tls",
            Self::Broken(_) => "broken",
            Self::TimedOut(_) => "timeout",
            Self::Answer => "answer",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// A server that answers every request with `answer`; how many connections it took.
    async fn server(answer: &'static [u8]) -> (Arc<Target>, Arc<std::sync::atomic::AtomicUsize>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut read = [0; 4096];
                    while stream.read(&mut read).await.is_ok_and(|count| count > 0) {
                        if stream.write_all(answer).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        (Arc::new(target), taken)
    }

    async fn deliver(client: &Client) -> u16 {
        let delivered = client.deliver("POST", "/", &[], Bytes::from_static(b"{}")).await;
        delivered.unwrap().as_u16()
    }

    #[tokio::test]
    async fn a_connection_is_used_again_and_one_with_an_endless_body_is_not() {
        let patience = Duration::from_secs(60);
        for (answer, connections) in [
            (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], 1),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\nab", 3),
        ] {
            let (target, taken) = server(answer).await;
            let client = Client::new(target, None, patience).with_pool(patience, 2);
            for _ in 0..3 {
                assert!((200..300).contains(&deliver(&client).await));
            }
            assert_eq!(taken.load(std::sync::atomic::Ordering::SeqCst), connections);
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_nothing_else() {
        let (target, taken) = server(b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n").await;
        let client = Client::new(target, None, Duration::from_secs(60));
        assert_eq!(deliver(&client).await, 302);
        assert_eq!(taken.load(std::sync::atomic::Ordering::SeqCst), 1);
    }
}
