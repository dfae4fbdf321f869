//! One request in, stored or not: route, read, verify, store.
//!
//! It never looks into the body, and gives no answer itself. The order of its steps is that of the checks' price, with
//! one exception: whether the queue can be reached is asked last, so that only who can sign learns how we are.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request};
use porchlight_event::diagnosis::Claim;
use porchlight_event::signature::{self, DIGEST_BYTES};
use porchlight_event::{Envelope, Refusal, TraceParent, ids};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::body::{self, BodyError, BodyLimits, BodyMemory};
use crate::key_health::KeyHealth;
use crate::keys::{ActiveKeys, KeysInForce};
use crate::metrics::{IngressMetrics, StateCollector};
use crate::moment::now_ms;
use crate::outage::Outages;
use crate::spans::Spans;
use crate::storage::{Storage, StoreFailure, Stored};

const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Bounds of one request.
#[derive(Debug, Clone)]
pub(crate) struct ReceiveLimits {
    /// The one path that is served.
    pub(crate) path: String,
    /// Bytes of one body.
    pub(crate) body_bytes_max: usize,
    /// Bytes of all bodies together.
    pub(crate) body_memory_max: usize,
    /// From the head to the whole body.
    pub(crate) body_timeout: Duration,
    /// From the first byte to the answer.
    pub(crate) answer_timeout: Duration,
}

/// Takes requests; shared by all connections.
#[derive(Debug)]
pub(crate) struct Receiver {
    limits: ReceiveLimits,
    keys: KeysInForce,
    storage: Storage,
    memory: Arc<BodyMemory>,
    key_health: Arc<KeyHealth>,
    pub(crate) outages: Arc<Outages>,
    pub(crate) metrics: Arc<IngressMetrics>,
}

/// An event that may be answered 200.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) message_id: String,
    /// It is in the spool.
    pub(crate) spooled: bool,
}

/// Why a request is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("nothing is served at this path")]
    WrongPath,
    #[error("only POST is taken here")]
    WrongMethod,
    #[error("the declared length of the body is over the limit")]
    DeclaredTooLarge,
    #[error(transparent)]
    NotSigned(Refusal),
    #[error("no signing key matches")]
    NoMatch,
    #[error("no signing key matches, and none has for a while")]
    KeysInDoubt,
    #[error("no signing keys are loaded")]
    NoKeys,
    #[error(transparent)]
    Body(#[from] BodyError),
    /// With the message id that the event would have had, and has again when Ring sends it again.
    #[error("{0}")]
    NotStored(StoreFailure, String),
}

impl Receiver {
    pub(crate) fn new(
        limits: ReceiveLimits,
        keys: KeysInForce,
        storage: Storage,
        (outages, key_health): (Arc<Outages>, Arc<KeyHealth>),
        metrics: Arc<IngressMetrics>,
    ) -> Self {
        let memory = Arc::new(BodyMemory::new(limits.body_memory_max));
        Self {
            limits,
            keys,
            storage,
            memory,
            key_health,
            outages,
            metrics,
        }
    }

    /// Shows what is asked for at each scrape rather than counted.
    pub(crate) fn show_state_in(&self, registry: &mut Registry) {
        let (storage, memory) = (self.storage.clone(), Arc::clone(&self.memory));
        registry.register_collector(Box::new(StateCollector { storage, memory }));
    }

    /// Takes one request whose first byte came at `began`; by then plus the answer's time this returns.
    ///
    /// # Cancel safety
    /// A client that goes away takes this with it; the event may be stored all the same, and Ring's retry is then a
    /// duplicate.
    pub(crate) async fn receive(
        &self,
        request: Request<Incoming>,
        began: Instant,
    ) -> Result<Accepted, ReceiveError> {
        let (head, body) = request.into_parts();
        if head.uri.path() != self.limits.path {
            return Err(ReceiveError::WrongPath);
        }
        if head.method != Method::POST {
            return Err(ReceiveError::WrongMethod);
        }
        if body.size_hint().lower() > self.limits.body_bytes_max as u64 {
            return Err(ReceiveError::DeclaredTooLarge);
        }
        let digest = match signed_digest(&head.headers) {
            Ok(digest) => digest,
            Err(refusal) => {
                self.look_into(&head.headers, body, began).await;
                return Err(ReceiveError::NotSigned(refusal));
            }
        };
        let active = self.keys.borrow().clone().ok_or(ReceiveError::NoKeys)?;

        let answer_by = began + self.limits.answer_timeout;
        let limits = self.body_limits(answer_by);
        let mut verifier = active.keys.verifier();
        let (body, _share) = body::read(body, limits, &self.memory, |part| verifier.update(part)).await?;
        let Ok(key_name) = verifier.finish(&digest) else {
            return Err(self.refused(&Claim::of(digest), &body, &active));
        };
        active.count_match(key_name);
        let received_at_ms = now_ms();
        self.key_health.matched(began, received_at_ms);

        let came = traceparent(&head.headers);
        let spans = Spans::begin(came.as_ref(), began);
        let bytes = body.len();
        let envelope = Envelope {
            message_id: ids::message_id(&body),
            body,
            received_at_ms: Some(received_at_ms),
            key_name: Some(key_name.to_owned()),
            signature: text(&head.headers, &SIGNATURE),
            content_type: text(&head.headers, &CONTENT_TYPE),
            content_encoding: text(&head.headers, &CONTENT_ENCODING),
            traceparent: spans.traceparent(came.as_ref()),
            attempt: 0,
            replay: 0,
        };
        let stored = self.storage.store(&envelope, answer_by).await;
        spans.end(&envelope, &stored);
        let stored = match stored {
            Ok(stored) => stored,
            Err(failure) => return Err(ReceiveError::NotStored(failure, envelope.message_id)),
        };
        if let Stored::Queue { latency } = stored {
            self.metrics.confirm_seconds.observe(latency.as_secs_f64());
        }
        self.metrics.body_bytes.inc_by(bytes as u64);
        tracing::debug!(
            message.id = envelope.message_id,
            key = key_name,
            bytes,
            stored = stored.place(),
            trace.id = envelope.trace_id(),
            "event stored"
        );
        Ok(Accepted {
            message_id: envelope.message_id,
            spooled: matches!(stored, Stored::Spool),
        })
    }

    fn body_limits(&self, answer_by: Instant) -> BodyLimits {
        BodyLimits {
            bytes_max: self.limits.body_bytes_max,
            until: answer_by.min(Instant::now() + self.limits.body_timeout),
        }
    }

    fn refused(&self, claim: &Claim, body: &[u8], active: &ActiveKeys) -> ReceiveError {
        if self.key_health.mismatched(claim, body, active) {
            ReceiveError::KeysInDoubt
        } else {
            ReceiveError::NoMatch
        }
    }

    /// Looks whether a header that is not well-formed holds the right digest all the same, for the log. A few of them
    /// are looked into, and only where the body is short: it is not even read otherwise.
    async fn look_into(&self, headers: &HeaderMap, body: Incoming, began: Instant) {
        let declared = body.size_hint().exact();
        let header = headers.get(SIGNATURE).map(HeaderValue::as_bytes);
        let Some(claim) = header.and_then(|header| self.key_health.worth_a_look(header, declared)) else {
            return;
        };
        let Some(active) = self.keys.borrow().clone() else {
            return;
        };
        let limits = self.body_limits(began + self.limits.answer_timeout);
        if let Ok((body, _share)) = body::read(body, limits, &self.memory, |_| {}).await {
            self.key_health.look(&claim, &body, &active);
        }
    }
}

/// The digest of the one signature header there is.
fn signed_digest(headers: &HeaderMap) -> Result<[u8; DIGEST_BYTES], Refusal> {
    let mut values = headers.get_all(SIGNATURE).iter();
    let value = values.next().ok_or(Refusal::Missing)?;
    if values.next().is_some() {
        return Err(Refusal::Repeated);
    }
    signature::parse_header(value.as_bytes())
}

/// A header as text; several of one name are joined as HTTP allows, and bytes beyond UTF-8 are replaced.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut values = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = values.next()?.into_owned();
    Some(values.fold(first, |joined, value: Cow<'_, str>| joined + ", " + &value))
}

/// The trace context, if there is one and it has the form of one; it is not signed, and nothing depends on it.
fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    TraceParent::parse(value.to_str().ok()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn exactly_one_signature_header_is_read() {
        let good = format!("sha256={}", "0a".repeat(32));
        let one = ("x-signature", good.as_bytes());
        assert_eq!(signed_digest(&headers(&[one])), Ok([10; DIGEST_BYTES]));
        assert_eq!(signed_digest(&headers(&[])), Err(Refusal::Missing));
        assert_eq!(signed_digest(&headers(&[one, one])), Err(Refusal::Repeated));
        assert_eq!(
            signed_digest(&headers(&[("x-signature", b"")])),
            Err(Refusal::Malformed)
        );
        assert_eq!(
            signed_digest(&headers(&[("x-signature", b"\xff")])),
            Err(Refusal::Malformed)
        );
    }

    #[test]
    fn odd_headers_become_text_and_refuse_nothing() {
        let odd = headers(&[
            ("content-type", b"text/\xff"),
            ("content-encoding", b"gzip"),
            ("content-encoding", b"br"),
        ]);
        assert_eq!(text(&odd, &CONTENT_TYPE).unwrap(), "text/\u{fffd}");
        assert_eq!(text(&odd, &CONTENT_ENCODING).unwrap(), "gzip, br");
        assert_eq!(text(&odd, &TRACEPARENT), None);
    }

    #[test]
    fn a_trace_context_is_passed_on_only_in_its_own_form() {
        let good: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = traceparent(&headers(&[("traceparent", good)])).unwrap();
        assert_eq!(read.as_str().as_bytes(), good);
        assert_eq!(traceparent(&headers(&[("traceparent", &good[1..])])), None);
        assert_eq!(
            traceparent(&headers(&[("traceparent", good), ("traceparent", good)])),
            None
        );
    }
}
