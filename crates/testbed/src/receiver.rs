//! A partner's service that receives callbacks: it remembers every call, and answers as a test tells it to.
//!
//! It acts on nothing it receives, and verifies a signature only when it is asked.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use porchlight_event::WebhookSecrets;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::poll::{WaitError, wait_for};

/// Largest head and body that are believed.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A running receiver. Dropping it ends it.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What it does with a call once it has it whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answering {
    /// Answers with this status and an empty body.
    Status(u16),
    /// Answers 302 to this address.
    Redirect(String),
    /// Answers 204, but only after this time.
    Slowly(Duration),
    /// Never answers, and keeps the connection until the caller closes it.
    Hang,
    /// Closes the connection.
    Drop,
}

/// A call as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The path with its query.
    pub path: String,
    /// Names in lower case, in the order sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

#[derive(Debug)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    answering: Mutex<Answering>,
    connections: Mutex<usize>,
}

impl Receiver {
    /// A receiver on a free port of this machine that answers 204.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            calls: Mutex::default(),
            answering: Mutex::new(Answering::Status(204)),
            connections: Mutex::default(),
        });
        let task = tokio::spawn(Arc::clone(&shared).serve(listener));
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// Its URL with this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From the next call on it does this.
    pub fn answer(&self, answering: Answering) {
        *lock(&self.shared.answering) = answering;
    }

    /// Every call so far, in the order in which they were whole.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    /// Connections it has taken so far.
    pub fn connections(&self) -> usize {
        *lock(&self.shared.connections)
    }

    /// Waits until there are at least so many calls, and gives all.
    ///
    /// # Errors
    /// [`WaitError`] when there are not within `patience`.
    pub async fn wait_calls(&self, at_least: usize, patience: Duration) -> Result<Vec<Call>, WaitError> {
        wait_for("calls", patience, async || {
            let calls = self.calls();
            if calls.len() >= at_least {
                Ok(calls)
            } else {
                Err(format!("{} of {at_least}", calls.len()))
            }
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Call {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
    }

    /// Whether it is signed by any of these secrets, as a receiver verifies it; how old it is does not matter.
    pub fn is_signed_by(&self, secrets: &WebhookSecrets) -> bool {
        let header = |name| self.header(name).unwrap_or_default();
        let timestamp = header("webhook-timestamp").parse();
        timestamp.is_ok_and(|timestamp| {
            secrets.verify(
                header("webhook-id"),
                timestamp,
                &self.body,
                header("webhook-signature"),
            )
        })
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        // Dropped with this task, it ends every connection.
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            *lock(&self.connections) += 1;
            connections.spawn(Arc::clone(&self).connection(stream));
            while connections.try_join_next().is_some() {}
        }
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream) {
        let mut read = BytesMut::new();
        while let Ok(Some(call)) = next_call(&mut stream, &mut read).await {
            // What it is to do is decided before anybody can see the call.
            let answering = lock(&self.answering).clone();
            lock(&self.calls).push(call);
            let head = match answering {
                Answering::Status(status) => format!("HTTP/1.1 {status} As told\r\n"),
                Answering::Redirect(to) => format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\n"),
                Answering::Slowly(after) => {
                    tokio::time::sleep(after).await;
                    "HTTP/1.1 204 No Content\r\n".to_owned()
                }
                Answering::Hang => {
                    while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {}
                    return;
                }
                Answering::Drop => return,
            };
            let length = if head.contains(" 204 ") {
                ""
            } else {
                "content-length: 0\r\n"
            };
            if stream
                .write_all(format!("{head}{length}\r\n").as_bytes())
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// The next call on a connection; nothing when the caller has closed it.
async fn next_call(stream: &mut TcpStream, read: &mut BytesMut) -> io::Result<Option<Call>> {
    let end = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if read.len() > REQUEST_BYTES_MAX || stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&read.split_to(end)).into_owned();
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1));
    let path = path.unwrap_or_default().to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut call = Call {
        path,
        headers,
        body: Bytes::new(),
    };
    let length = call.header("content-length").map_or(Ok(0), str::parse);
    let length: usize = length.map_err(|_| io::ErrorKind::InvalidData)?;
    if length > REQUEST_BYTES_MAX {
        return Ok(None);
    }
    while read.len() < length {
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
    call.body = read.split_to(length).freeze();
    Ok(Some(call))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use crate::http::RawConnection;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn it_remembers_calls_and_answers_as_told() {
        let receiver = Receiver::start().await.unwrap();
        let mut connection = RawConnection::open(receiver.address).await.unwrap();
        let call = crate::http::encode("POST", "/x?y", &[("Webhook-Id", "1")], b"{}");
        for (answering, status) in [
            (Answering::Status(500), 500),
            (Answering::Slowly(Duration::from_millis(1)), 204),
            (Answering::Redirect("/".to_owned()), 302),
        ] {
            receiver.answer(answering);
            connection.send(&call).await.unwrap();
            assert_eq!(connection.response().await.unwrap().status, status);
        }
        receiver.answer(Answering::Drop);
        connection.send(&call).await.unwrap();
        assert!(connection.closed_within(PATIENCE).await.unwrap().is_empty());
        let calls = receiver.wait_calls(4, PATIENCE).await.unwrap();
        assert_eq!(
            (calls[0].path.as_str(), calls[0].header("webhook-id")),
            ("/x?y", Some("1"))
        );
        assert_eq!((&calls[0].body[..], receiver.connections()), (&b"{}"[..], 1));
    }
}
