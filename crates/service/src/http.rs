//! What our HTTP/1.1 listeners have in common: limits on the connection, accepting, and small JSON answers.
//!
//! It serves nothing itself and knows no path.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A whole answer; ours are small and known before they are sent.
pub type Answer = Response<Full<Bytes>>;

/// Connections that may wait in the kernel to be accepted; the system's own bound (`somaxconn`) may be lower.
const BACKLOG: u32 = 4096;

/// Smallest buffer of a connection that hyper takes.
const BUFFER_BYTES_MIN: usize = 8192;

/// Pause after an accept that failed for want of files or memory: trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorCause<'a>,
}

#[derive(Serialize)]
struct ErrorCause<'a> {
    code: &'a str,
    message: &'a str,
}

/// How one HTTP/1.1 connection is read and written. Deadlines are not hyper's but
/// [`GuardedIo`](crate::guarded_io::GuardedIo)'s, which can tell a slow head from an idle connection.
pub fn connection_builder(head_bytes_max: usize) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .keep_alive(true)
        // A client that ends its sending side after the request still gets its answer.
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(head_bytes_max)
        // Read buffer of one connection; twice the head, so that head and a usual body fit together.
        .max_buf_size((2 * head_bytes_max).max(BUFFER_BYTES_MIN));
    builder
}

/// Listens on `address`. An address in the time-wait state of an earlier process is taken over.
///
/// # Errors
/// What the system says, such as an address in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The next connection, without delay of small packets. Errors of accepting are logged and waited out.
///
/// # Cancel safety
/// Safe: a connection is either returned or still in the kernel's queue.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // A socket that is already broken shows at its first read.
                let _ = stream.set_nodelay(true);
                return (stream, peer);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// An answer with a JSON body.
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(bytes) => json_bytes(status, bytes.into()),
        Err(_) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unwritable",
            "the answer cannot be written as JSON",
        ),
    }
}

/// An answer whose body is JSON already.
pub fn json_bytes(status: StatusCode, body: Bytes) -> Answer {
    with_type(status, HeaderValue::from_static("application/json"), body)
}

/// `{"error":{"code","message"}}`. The code is for programs, the message for people; neither may hold a secret.
pub fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    json(
        status,
        &ErrorBody {
            error: ErrorCause { code, message },
        },
    )
}

pub(crate) fn with_type(status: StatusCode, kind: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn errors_have_one_form() {
        let answer = error(StatusCode::NOT_FOUND, "not_found", "no \"such\" path");
        assert_eq!(answer.status(), 404);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            body,
            r#"{"error":{"code":"not_found","message":"no \"such\" path"}}"#
        );
    }
}
