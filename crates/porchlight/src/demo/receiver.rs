//! The demo's receiver of commands: a small HTTP server that verifies each callback as a partner's service should.
//!
//! It remembers what came and judges no story; that it refuses a command once is only done when it is told to.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use porchlight_device::Action;
use porchlight_device::command::command_id;
use porchlight_event::WebhookSecrets;
use porchlight_service::http;
use serde::Deserialize;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::facts::CommandFacts;
use crate::clock::now_ms;

/// Where commands are posted to.
const PATH: &str = "/commands";
/// Above the largest command, whose parameters have up to 16 KiB.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Above every head that is sent here.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A signature with another time than about now may be an old one, sent again by a stranger.
const AGE_S_MAX: i64 = 300;

/// Takes commands until it is dropped.
pub(super) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    secrets: WebhookSecrets,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    commands: Vec<CommandFacts>,
    refuse: u32,
}

/// What is read of a command.
#[derive(Deserialize)]
struct Body {
    id: String,
    action: String,
    generation: u64,
    operation: BodyOperation,
    device_id: String,
}

#[derive(Deserialize)]
struct BodyOperation {
    id: String,
}

impl Receiver {
    /// Listens on a free port.
    ///
    /// # Errors
    /// When there is no port.
    pub(super) fn start(secrets: WebhookSecrets) -> io::Result<Self> {
        let listener = http::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            secrets,
            record: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (served, token) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            let connections = TaskTracker::new();
            while let Some((stream, _)) = token.run_until_cancelled(http::accept(&listener)).await {
                let shared = Arc::clone(&served);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                let connection =
                    http::connection_builder(HEAD_BYTES_MAX).serve_connection(TokioIo::new(stream), service);
                let token = token.clone();
                connections.spawn(async move { token.run_until_cancelled(connection).await });
            }
        });
        Ok(Self {
            address,
            shared,
            _stop: stop.drop_guard(),
        })
    }

    /// Where commands are to be sent.
    pub(super) fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Refuses the next command once, as a service does that is overloaded.
    pub(super) fn refuse_next(&self) {
        self.shared.with_record(|record| record.refuse += 1);
    }

    /// The commands so far, in the order in which they first came.
    pub(super) fn commands(&self) -> Vec<CommandFacts> {
        self.shared.with_record(|record| record.commands.clone())
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let status = if request.uri().path() != PATH {
        StatusCode::NOT_FOUND
    } else if request.method() != Method::POST {
        StatusCode::METHOD_NOT_ALLOWED
    } else {
        let (head, body) = request.into_parts();
        match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => shared.take(&head.headers, &body.to_bytes(), now_ms()),
            Err(_) => StatusCode::BAD_REQUEST,
        }
    };
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    Ok(answer)
}

impl Shared {
    fn with_record<T>(&self, look: impl FnOnce(&mut Record) -> T) -> T {
        look(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes one command; the status to answer with.
    fn take(&self, headers: &HeaderMap, body: &[u8], now_ms: i64) -> StatusCode {
        let Ok(command) = serde_json::from_slice::<Body>(body) else {
            return StatusCode::BAD_REQUEST;
        };
        let verified = self.is_genuine(headers, body, now_ms) && is_itself(headers, &command);
        self.with_record(|record| {
            let known = record.commands.iter().position(|known| known.id == command.id);
            let at = known.unwrap_or_else(|| {
                record.commands.push(CommandFacts {
                    id: command.id,
                    action: command.action,
                    device_id: command.device_id,
                    operation: command.operation.id,
                    generation: command.generation,
                    verified: true,
                    ..CommandFacts::default()
                });
                record.commands.len() - 1
            });
            let noted = &mut record.commands[at];
            noted.verified &= verified;
            match (verified, record.refuse) {
                (false, _) => StatusCode::UNAUTHORIZED,
                (true, 0) => {
                    noted.taken += 1;
                    StatusCode::NO_CONTENT
                }
                (true, _) => {
                    noted.refused += 1;
                    record.refuse -= 1;
                    StatusCode::SERVICE_UNAVAILABLE
                }
            }
        })
    }

    /// Whether the signature is right, and recent.
    fn is_genuine(&self, headers: &HeaderMap, body: &[u8], now_ms: i64) -> bool {
        let (Some(id), Some(time), Some(signature)) = (
            text(headers, "webhook-id"),
            text(headers, "webhook-timestamp"),
            text(headers, "webhook-signature"),
        ) else {
            return false;
        };
        let Ok(time) = time.parse::<i64>() else {
            return false;
        };
        (now_ms / 1_000 - time).abs() <= AGE_S_MAX && self.secrets.verify(id, time, body, signature)
    }
}

/// Whether the header names the command of the body, under the identity that belongs to what it says.
fn is_itself(headers: &HeaderMap, command: &Body) -> bool {
    let identity = Action::from_code(&command.action).map(|action| {
        command_id(
            &command.device_id,
            &command.operation.id,
            command.generation,
            action,
        )
    });
    text(headers, "webhook-id") == Some(command.id.as_str()) && identity.as_ref() == Some(&command.id)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_771_025_571_000;

    fn shared() -> Shared {
        let secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        Shared {
            secrets: WebhookSecrets::parse(secret).unwrap(),
            record: Mutex::default(),
        }
    }

    fn body(generation: u64) -> (String, Vec<u8>) {
        let id = command_id("d", "o", generation, Action::Pause);
        let body = serde_json::json!({
            "id": id, "action": "pause", "generation": generation, "operation": { "id": "o" }, "device_id": "d",
        });
        (id, body.to_string().into_bytes())
    }

    fn headers(shared: &Shared, id: &str, time_s: i64, body: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let signature = shared.secrets.sign(id, time_s, body);
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", &time_s.to_string()),
            ("webhook-signature", &signature),
        ] {
            headers.insert(
                name.parse::<hyper::header::HeaderName>().unwrap(),
                value.parse().unwrap(),
            );
        }
        headers
    }

    #[test]
    fn a_command_that_comes_again_is_the_same_command() {
        let shared = shared();
        let (id, body) = body(1);
        let headers = headers(&shared, &id, NOW_MS / 1_000, &body);
        shared.with_record(|record| record.refuse = 1);
        let answers: Vec<u16> = (0..3)
            .map(|_| shared.take(&headers, &body, NOW_MS).as_u16())
            .collect();
        assert_eq!(answers, [503, 204, 204]);
        let commands = shared.with_record(|record| record.commands.clone());
        assert_eq!(commands.len(), 1);
        assert_eq!(
            (commands[0].refused, commands[0].taken, commands[0].verified),
            (1, 2, true)
        );
    }

    #[test]
    fn a_command_that_is_not_genuine_is_refused_and_remembered_as_such() {
        let (id, right) = body(1);
        let (other_id, other) = body(2);
        let own = shared();
        let now_s = NOW_MS / 1_000;
        for (name, headers, body) in [
            ("unsigned", HeaderMap::new(), &right),
            ("another body", headers(&own, &id, now_s, &right), &other),
            ("another id", headers(&own, &other_id, now_s, &right), &right),
            ("an old one", headers(&own, &id, now_s - 301, &right), &right),
        ] {
            let shared = shared();
            assert_eq!(shared.take(&headers, body, NOW_MS), 401, "{name}");
            let noted = shared.with_record(|record| record.commands[0].clone());
            assert!(!noted.verified && noted.taken == 0, "{name}: {noted:?}");
        }
        assert_eq!(own.take(&HeaderMap::new(), b"{}", NOW_MS), 400);
    }
}
