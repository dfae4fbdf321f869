//! HTTP/1.1 as a test needs it: whole requests in one call, or bytes on a socket and what comes back.
//!
//! It follows no redirect, retries nothing and repairs nothing: what the server sent is what the test sees.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use porchlight_event::SigningKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer or a close, far above the 4.5 s any answer of ours may take: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Largest head of a response that is believed.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Largest body of a response that is believed.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An answer, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, values untouched, in the order sent.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Bytes,
}

/// Anything that carries bytes both ways: a socket, or TLS over one.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Carrier for T {}

/// A connection on which a test decides every byte.
pub struct RawConnection {
    stream: Box<dyn Carrier>,
    read: BytesMut,
}

impl Response {
    /// The first header of this name (in any case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
    }
}

/// Sends one request on a connection of its own and reads the answer, within [`PATIENCE`].
///
/// `Host` and `Content-Length` are added unless they are among `headers`.
///
/// # Errors
/// When the server cannot be reached, closes without an answer, is too slow, or does not speak HTTP.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut connection = RawConnection::open(address).await?;
    connection.send(&encode(method, path, headers, body)).await?;
    connection.response().await
}

/// A GET without a body; see [`request`].
///
/// # Errors
/// As [`request`].
pub async fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    request(address, "GET", path, &[], b"").await
}

/// A webhook as Ring sends it: a POST of JSON with its signature; see [`request`].
///
/// # Errors
/// As [`request`].
pub async fn post_signed(
    address: SocketAddr,
    path: &str,
    key: &SigningKey,
    body: &[u8],
) -> io::Result<Response> {
    let signature = key.sign(body);
    let headers = [
        ("Content-Type", "application/json"),
        ("X-Signature", signature.as_str()),
    ];
    request(address, "POST", path, &headers, body).await
}

/// The bytes of a request. `Host` and `Content-Length` are added unless they are among `headers`.
pub fn encode(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let given = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut bytes = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    if !given("host") {
        bytes.extend_from_slice(b"Host: localhost\r\n");
    }
    if !given("content-length") && !given("transfer-encoding") && (!body.is_empty() || method != "GET") {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

impl RawConnection {
    /// Connects over plain TCP.
    ///
    /// # Errors
    /// When the server cannot be reached within [`PATIENCE`].
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Speaks over a connection that is there, such as one under TLS.
    pub fn over(stream: impl Carrier + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            read: BytesMut::new(),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the server has closed, or does not take them within [`PATIENCE`].
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        timeout(PATIENCE, sent).await?
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn finish_sending(&mut self) -> io::Result<()> {
        timeout(PATIENCE, self.stream.shutdown()).await?
    }

    /// Reads one answer within [`PATIENCE`]. What follows it stays for the next call.
    ///
    /// # Errors
    /// `UnexpectedEof` when the server closed instead, `TimedOut` when it did nothing.
    pub async fn response(&mut self) -> io::Result<Response> {
        self.response_within(PATIENCE).await
    }

    /// As [`Self::response`], with another patience.
    ///
    /// # Errors
    /// As [`Self::response`].
    pub async fn response_within(&mut self, patience: Duration) -> io::Result<Response> {
        timeout(patience, self.read_response()).await?
    }

    /// Waits until the server closes, and returns what it sent before.
    ///
    /// # Errors
    /// `TimedOut` when it is still open after `patience`.
    pub async fn closed_within(&mut self, patience: Duration) -> io::Result<Bytes> {
        let closed = async {
            // A reset is a close, too.
            while self.fill().await.is_ok() {}
        };
        timeout(patience, closed).await?;
        Ok(self.read.split().freeze())
    }

    async fn read_response(&mut self) -> io::Result<Response> {
        loop {
            let head_bytes = loop {
                if let Some(end) = find(&self.read, b"\r\n\r\n") {
                    break end + 4;
                }
                if self.read.len() > HEAD_BYTES_MAX {
                    return Err(odd("the head of the response does not end"));
                }
                self.fill().await?;
            };
            let head = self.read.split_to(head_bytes);
            let (status, headers) = parse_head(&head)?;
            // An interim answer (100 Continue) announces the real one.
            if (100..200).contains(&status) {
                continue;
            }
            let mut response = Response {
                status,
                headers,
                body: Bytes::new(),
            };
            response.body = self.read_body(&response).await?;
            return Ok(response);
        }
    }

    async fn read_body(&mut self, response: &Response) -> io::Result<Bytes> {
        if matches!(response.status, 204 | 304) {
            return Ok(Bytes::new());
        }
        if response
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            return self.read_chunks().await;
        }
        match response.header("content-length").map(str::parse) {
            Some(Ok(length)) => self.take(length).await,
            Some(Err(_)) => Err(odd("the content length is no number")),
            None => {
                while self.fill().await.is_ok() {}
                Ok(self.read.split().freeze())
            }
        }
    }

    async fn read_chunks(&mut self) -> io::Result<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let end = loop {
                if let Some(end) = find(&self.read, b"\r\n") {
                    break end;
                }
                self.fill().await?;
            };
            let line = self.take(end + 2).await?;
            let size = std::str::from_utf8(&line[..end])
                .ok()
                .and_then(|text| usize::from_str_radix(text, 16).ok());
            let size = size.ok_or_else(|| odd("the size of a chunk is no number"))?;
            body.extend_from_slice(&self.take(size).await?);
            if self.take(2).await? != b"\r\n"[..] {
                return Err(odd("a chunk does not end where it says"));
            }
            if size == 0 {
                return Ok(body.freeze());
            }
        }
    }

    async fn take(&mut self, length: usize) -> io::Result<Bytes> {
        if length > BODY_BYTES_MAX {
            return Err(odd("the body is larger than any of ours"));
        }
        while self.read.len() < length {
            self.fill().await?;
        }
        Ok(self.read.split_to(length).freeze())
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.read.reserve(4096);
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn parse_head(mut head: &[u8]) -> io::Result<(u16, Vec<(String, String)>)> {
    let mut line = || {
        let end = find(head, b"\r\n")?;
        let line = String::from_utf8_lossy(&head[..end]).into_owned();
        head.advance(end + 2);
        Some(line)
    };
    let first = line().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok());
    let status = status.ok_or_else(|| odd("the first line is no status"))?;
    let mut headers = Vec::new();
    while let Some(line) = line().filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(|| odd("a header has no colon"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Ok((status, headers))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    async fn responses(wire: &[u8]) -> Vec<io::Result<Response>> {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(wire).await.unwrap();
        drop(far);
        let mut connection = RawConnection::over(near);
        vec![connection.response().await, connection.response().await]
    }

    #[tokio::test]
    async fn two_answers_on_one_connection_are_kept_apart() {
        let wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nRetry-After: 1\r\ncontent-length: 2\r\n\r\nnoHTTP/1.1 200 OK\r\n\
                     transfer-encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n";
        let answers = responses(wire).await;
        let first = answers[0].as_ref().unwrap();
        assert_eq!(
            (first.status, first.header("retry-after"), first.text().as_str()),
            (503, Some("1"), "no")
        );
        assert_eq!(answers[1].as_ref().unwrap().text(), "yes");
    }

    #[tokio::test]
    async fn a_close_in_place_of_an_answer_is_an_error() {
        let answers = responses(b"").await;
        assert_eq!(
            answers[0].as_ref().unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn a_length_is_added_only_where_none_is_given() {
        let plain = String::from_utf8(encode("POST", "/x", &[], b"ab")).unwrap();
        assert_eq!(
            plain,
            "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab"
        );
        let given = String::from_utf8(encode(
            "POST",
            "/x",
            &[("content-length", "9"), ("Host", "h")],
            b"ab",
        ))
        .unwrap();
        assert_eq!(
            given,
            "POST /x HTTP/1.1\r\ncontent-length: 9\r\nHost: h\r\n\r\nab"
        );
    }
}
