//! A small HTTP/1.1 client: one kept-alive connection to one address, plain or under TLS, with a deadline on all.
//!
//! It follows no redirect and retries nothing that may have been sent.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Largest answer that is read, in bytes: a page of 1 000 devices is far smaller.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    https: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

/// Why text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("is not a URL; write for example http://127.0.0.1:8080/webhooks/ring")]
    NotUrl,
    #[error("must begin with http:// or https://")]
    Scheme,
    #[error("must not hold a user or a password")]
    Credentials,
}

/// One connection, opened when it is needed and kept while the server keeps it.
pub(crate) struct Client {
    target: Arc<Target>,
    tls: Option<TlsConnector>,
    timeout: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("cannot connect to {0}")]
    Connect(String, #[source] io::Error),
    #[error("no TLS connection to {0}")]
    Tls(String, #[source] io::Error),
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("the answer is larger than {ANSWER_BYTES_MAX} bytes or broke off")]
    Answer,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read the certificates in {0}")]
    Read(String, #[source] tokio_rustls::rustls::pki_types::pem::Error),
    #[error("there is no certificate in {0}")]
    Empty(String),
    #[error("the system has no trusted certificates")]
    NoRoots,
    #[error("a certificate is not usable")]
    Config(#[source] tokio_rustls::rustls::Error),
}

impl Target {
    /// Reads an absolute http or https URL.
    pub(crate) fn parse(text: &str) -> Result<Self, TargetError> {
        let uri: Uri = text.trim().parse().map_err(|_| TargetError::NotUrl)?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(TargetError::Scheme),
            None => return Err(TargetError::NotUrl),
        };
        let authority = uri.authority().ok_or(TargetError::NotUrl)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::Credentials);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            https,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// The path with its query.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}://{}{}",
            if self.https { "https" } else { "http" },
            self.authority,
            self.path
        )
    }
}

/// What `https` trusts: the certificates of `ca_file` when one is given, else the system's.
pub(crate) fn connector(target: &Target, ca_file: Option<&Path>) -> Result<Option<TlsConnector>, TlsError> {
    if !target.https {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let shown = path.display().to_string();
            let read = |error| TlsError::Read(shown.clone(), error);
            for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
                roots.add(certificate.map_err(read)?).map_err(TlsError::Config)?;
            }
            if roots.is_empty() {
                return Err(TlsError::Empty(shown));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

impl Client {
    /// A client that is not connected yet. `timeout` bounds each whole exchange, connecting included.
    pub(crate) fn new(target: Arc<Target>, tls: Option<TlsConnector>, timeout: Duration) -> Self {
        Self {
            target,
            tls,
            timeout,
            sender: None,
        }
    }

    /// Sends one request and reads its answer. The headers `Host` and the length are added.
    ///
    /// # Errors
    /// [`SendError`]; unless it is a failure to connect, the server may have taken the request.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, SendError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.target.authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|error| {
            SendError::Connect(
                self.target.to_string(),
                io::Error::new(io::ErrorKind::InvalidInput, error),
            )
        })?;
        let outcome = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        if !matches!(outcome, Ok(Ok(_))) {
            self.sender = None;
        }
        outcome.unwrap_or(Err(SendError::TimedOut(self.timeout)))
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, SendError> {
        let kept = match self.sender.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match kept {
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
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|_| SendError::Answer)?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer { status, body })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, SendError> {
        let target = &self.target;
        let shown = || format!("{}:{}", target.host, target.port);
        let failed = |error| SendError::Connect(shown(), error);
        let stream = TcpStream::connect((target.host.as_str(), target.port))
            .await
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else {
            return handshake(stream).await;
        };
        let odd_name = |error| SendError::Tls(shown(), io::Error::new(io::ErrorKind::InvalidInput, error));
        let name = ServerName::try_from(target.host.clone()).map_err(odd_name)?;
        let stream = tls
            .connect(name, stream)
            .await
            .map_err(|error| SendError::Tls(shown(), error))?;
        handshake(stream).await
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, SendError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(SendError::Broken)?;
    // It ends when the sender is dropped or the server closes; its error is the sender's, too.
    tokio::spawn(connection);
    Ok(sender)
}

impl SendError {
    /// A short code, for counting.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Connect(..) => "connect",
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

    #[test]
    fn a_target_has_a_port_and_a_path_whatever_the_url_leaves_out() {
        let target = Target::parse("https://ring.example").unwrap();
        assert_eq!((target.https, target.port, target.path()), (true, 443, "/"));
        let target = Target::parse("http://[::1]:8080/a?b=c").unwrap();
        assert_eq!(
            (target.host.as_str(), target.port, target.path()),
            ("::1", 8080, "/a?b=c")
        );
        assert_eq!(target.to_string(), "http://[::1]:8080/a?b=c");
    }

    #[test]
    fn what_is_no_target_says_why() {
        assert_eq!(Target::parse("127.0.0.1:8080"), Err(TargetError::NotUrl));
        assert_eq!(Target::parse("/path"), Err(TargetError::NotUrl));
        assert_eq!(Target::parse("ftp://host/"), Err(TargetError::Scheme));
        assert_eq!(
            Target::parse("http://user:secret@host/"),
            Err(TargetError::Credentials)
        );
    }
}
